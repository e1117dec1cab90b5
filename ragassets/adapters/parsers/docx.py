"""DOCX: paragraphs, tables, text boxes, notes and comments, straight from the package's XML.

`python-docx` leaves out tracked insertions, content controls and text boxes; here every `w:t` that
a reader sees is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
from ragassets.errors import CorruptDocumentError

# Deleted or moved away by a tracked change, or the same content again for old readers.
_UNSEEN = frozenset({"del", "moveFrom", "Fallback", "pPr", "rPr", "txbxContent"})
_HEADING_STYLE = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
_HIGHEST_OUTLINE_LEVEL = 8


@dataclass(frozen=True, slots=True)
class _Style:
    name: str
    outline_level: int | None
    is_list: bool
    based_on: str | None


class DocxParser:
    """Reads Word documents."""

    name = "docx"
    version = "1"
    media_types = frozenset({media_types.DOCX})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Page headers, body, notes, comments and page footers, in this order.

        Raises:
            CorruptDocumentError: The package or its main part cannot be read.
        """
        package = Package(data, uri)
        main = package.main_part("word/document.xml")
        body = child(package.read(main), "body")
        if body is None:
            raise CorruptDocumentError(uri=uri, detail="the package has no document part")
        reader = _BodyReader(_read_styles(package, main))
        properties = package.core_properties()
        return assemble_document(
            _read_package(package, main, body, reader),
            media_type=media_type,
            parser=self.name,
            title=properties.get("title"),
            metadata=properties,
        )


def _read_package(
    package: Package, main: str, body: XmlNode, reader: "_BodyReader"
) -> Iterator[Element]:
    yield from _read_margins(package, main, reader, "header")
    yield from reader.read(body)
    for kind, item in (("footnotes", "footnote"), ("endnotes", "endnote"), ("comments", "comment")):
        for part in package.related(main, kind):
            for note in children(package.read(part)):
                # Separators between text and notes are notes of a type of their own.
                if local_name(note) == item and attribute(note, "type") is None:
                    yield from reader.read(note)
    yield from _read_margins(package, main, reader, "footer")


def _read_margins(
    package: Package, main: str, reader: "_BodyReader", kind: ElementKind
) -> Iterator[Element]:
    """Page headers or footers; sections that repeat one another's give it once."""
    seen: set[str] = set()
    for part in package.related(main, kind):
        for element in reader.read(package.read(part)):
            if element.text.strip() not in seen:
                seen.add(element.text.strip())
                yield Element(kind, element.text)


def _read_styles(package: Package, main: str) -> dict[str, _Style]:
    styles: dict[str, _Style] = {}
    for part in package.related(main, "styles"):
        for node in children(package.read(part)):
            style_id = attribute(node, "styleId")
            if local_name(node) == "style" and style_id:
                styles[style_id] = _Style(
                    name=_value(child(node, "name")) or style_id,
                    outline_level=_outline_level(child(node, "pPr")),
                    is_list=child(node, "pPr", "numPr") is not None,
                    based_on=_value(child(node, "basedOn")),
                )
    return styles


def _value(node: XmlNode | None) -> str | None:
    return attribute(node, "val") if node is not None else None


def _outline_level(properties: XmlNode | None) -> int | None:
    value = _value(child(properties, "outlineLvl"))
    is_heading = value is not None and value.isdigit() and int(value) <= _HIGHEST_OUTLINE_LEVEL
    return int(value) + 1 if is_heading and value is not None else None


class _BodyReader:
    """Reads block content: the body, a header, a note, a text box."""

    def __init__(self, styles: dict[str, _Style]) -> None:
        self._styles = styles

    def read(self, container: XmlNode | None) -> Iterator[Element]:
        """Elements of the blocks in `container`; wrappers of any kind are looked into."""
        for node in children(container):
            match local_name(node):
                case "p":
                    yield self._read_paragraph(node)
                    yield from self._read_text_boxes(node)
                case "tbl":
                    yield from self._read_table(node)
                case name if name not in _UNSEEN:
                    yield from self.read(node)
                case _:
                    pass

    def _read_paragraph(self, node: XmlNode) -> Element:
        kind, level = self._kind(child(node, "pPr"))
        return Element(kind, _paragraph_text(node), level=level)

    def _read_text_boxes(self, node: XmlNode) -> Iterator[Element]:
        for item in node:
            name = local_name(item)
            if name == "txbxContent":
                yield from self.read(item)
            elif name not in _UNSEEN:
                yield from self._read_text_boxes(item)

    def _read_table(self, table: XmlNode) -> Iterator[Element]:
        rows = [_named(row, "tc") for row in _named(table, "tr")]
        if len(rows) == 1 and len(rows[0]) == 1:
            # A frame around text, not a table.
            yield from self.read(rows[0][0])
            return
        yield from table_elements([[self._cell_text(cell) for cell in row] for row in rows])

    def _cell_text(self, cell: XmlNode) -> str:
        return " ".join(filter(None, (element.text.strip() for element in self.read(cell))))

    def _kind(self, properties: XmlNode | None) -> tuple[ElementKind, int | None]:
        level = _outline_level(properties)
        if level:
            return "title", level
        is_list = child(properties, "numPr") is not None
        style_id = _value(child(properties, "pStyle"))
        seen: set[str] = set()
        while style_id and style_id not in seen:
            seen.add(style_id)
            style = self._styles.get(style_id)
            if style is None:
                break
            heading = _HEADING_STYLE.match(style.name)
            if heading or style.outline_level:
                return "title", int(heading[1]) if heading else style.outline_level
            if style.name.lower() == "title":
                return "title", 1
            if style.name.lower() == "caption":
                return "caption", None
            is_list = is_list or style.is_list or style.name.lower().startswith("list")
            style_id = style.based_on
        return ("list_item" if is_list else "text"), None


def _named(node: XmlNode, name: str) -> list[XmlNode]:
    """Rows of a table or cells of a row, also those inside content controls."""
    found: list[XmlNode] = []
    for item in node:
        if local_name(item) == name:
            found.append(item)
        elif local_name(item) in ("sdt", "sdtContent", "customXml", "ins"):
            found.extend(_named(item, name))
    return found


def _paragraph_text(node: XmlNode) -> str:
    return "".join(_text_pieces(node))


def _text_pieces(node: XmlNode) -> Iterator[str]:
    for item in node:
        match local_name(item):
            case "t":
                yield item.text or ""
            case "tab" | "ptab":
                yield "\t"
            case "br" | "cr":
                yield "\n"
            case "noBreakHyphen":
                yield "-"
            case name if name not in _UNSEEN:
                yield from _text_pieces(item)
            case _:
                pass
