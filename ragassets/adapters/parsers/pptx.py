"""PPTX: the text of every slide, its tables, diagrams and speaker notes; a slide is a page."""

from collections.abc import Iterator

from ragassets.adapters.parsers.rows import table_elements
from ragassets.adapters.parsers.xml_tree import (
    Package,
    XmlNode,
    attribute,
    child,
    children,
    local_name,
)
from ragassets.core import media_types
from ragassets.core.parsing import Element, ElementKind, ParsedDocument, assemble_document
from ragassets.errors import CorruptDocumentError, NeedsOcrError

_KIND_OF_PLACEHOLDER: dict[str, ElementKind] = {
    "title": "title",
    "ctrTitle": "title",
    "sldNum": "page_number",
    "ftr": "footer",
    "hdr": "header",
    "dt": "footer",
}
# On a notes page only the notes themselves; its picture and number repeat the slide's.
_NOTES_PLACEHOLDERS = frozenset({"body"})


class PptxParser:
    """Reads PowerPoint presentations."""

    name = "pptx"
    version = "1"
    media_types = frozenset({media_types.PPTX})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Elements slide by slide, in the order of the show.

        Raises:
            CorruptDocumentError: The package or its main part cannot be read.
            NeedsOcrError: The slides hold pictures only.
        """
        package = Package(data, uri)
        main = package.main_part("ppt/presentation.xml")
        presentation = package.read(main)
        if presentation is None:
            raise CorruptDocumentError(uri=uri, detail="the package has no presentation part")
        slides = _slide_parts(package, main, presentation)
        properties = package.core_properties()
        document = assemble_document(
            _read_slides(package, slides),
            media_type=media_type,
            parser=self.name,
            n_pages=len(slides),
            title=properties.get("title"),
            metadata=properties,
        )
        if not document.elements and any(package.related(slide, "image") for slide in slides):
            raise NeedsOcrError(uri=uri, detail="the slides hold pictures only")
        return document


def _slide_parts(package: Package, main: str, presentation: XmlNode) -> list[str]:
    relations = package.relations(main)
    ids = [
        # `id` without a namespace is the slide's own number; `r:id` is the relationship.
        next((value for key, value in item.items() if key.endswith("}id")), "")
        for item in children(child(presentation, "sldIdLst"))
    ]
    return [relations[relation][0] for relation in ids if relation in relations]


def _read_slides(package: Package, slides: list[str]) -> Iterator[Element]:
    for page, slide in enumerate(slides, 1):
        yield from _read_shapes(child(package.read(slide), "cSld", "spTree"), page)
        for kind in ("diagramData", "chart"):
            for part in package.related(slide, kind):
                root = package.read(part)
                if root is not None:
                    yield from _read_paragraphs(root, "text", page)
        for part in package.related(slide, "notesSlide"):
            notes = child(package.read(part), "cSld", "spTree")
            yield from _read_shapes(notes, page, only=_NOTES_PLACEHOLDERS)


def _read_shapes(
    tree: XmlNode | None, page: int, *, only: frozenset[str] | None = None
) -> Iterator[Element]:
    for shape in children(tree):
        match local_name(shape):
            case "sp":
                placeholder = child(shape, "nvSpPr", "nvPr", "ph")
                role = (attribute(placeholder, "type") or "body") if placeholder is not None else ""
                if only is None or role in only:
                    kind = _KIND_OF_PLACEHOLDER.get(role, "list_item" if role == "body" else "text")
                    yield from _read_paragraphs(shape, kind, page)
            case "graphicFrame":
                for table in shape.iter():
                    if local_name(table) == "tbl":
                        yield from table_elements(_table_rows(table), page=page)
            case "Fallback":
                pass
            case _:
                # Groups and alternatives hold shapes of their own.
                yield from _read_shapes(shape, page, only=only)


def _table_rows(table: XmlNode) -> Iterator[list[str]]:
    for row in table:
        if local_name(row) == "tr":
            yield [" ".join(_paragraph_texts(cell)) for cell in row if local_name(cell) == "tc"]


def _read_paragraphs(node: XmlNode, kind: ElementKind, page: int) -> Iterator[Element]:
    texts = list(_paragraph_texts(node))
    if kind == "title":
        # A title over several lines is one title.
        yield Element(kind, " ".join(texts), page, 1)
        return
    for text in texts:
        yield Element(kind, text, page)


def _paragraph_texts(node: XmlNode) -> Iterator[str]:
    for paragraph in node.iter():
        if local_name(paragraph) == "p":
            pieces = (
                (item.text or "") if local_name(item) == "t" else "\n"
                for item in paragraph.iter()
                if local_name(item) in ("t", "br")
            )
            text = "".join(pieces).strip()
            if text:
                yield text
