"""HTML: what a reader of the page sees, in reading order."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ragassets.adapters.parsers.plain_text import split_paragraphs
from ragassets.adapters.parsers.rows import table_elements
from ragassets.core import media_types
from ragassets.core.parsing import Element, ElementKind, ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text
from ragassets.errors import CorruptDocumentError

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

# Source: HTML Living Standard, 4.2.5.5: the declaration stands in the first 1,024 bytes; older
# pages put it later.
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9._:-]+)", re.IGNORECASE)
_META_WINDOW_BYTES = 4096

# Never shown as text, or only where scripts do not run.
_UNSEEN_TAGS = frozenset({
    "script", "style", "noscript", "template", "title", "svg", "iframe", "object", "canvas",
    "audio", "video", "select", "datalist", "input", "textarea", "ix:header", "-comment",
    "!doctype",
})  # fmt: skip
_UNSEEN = '[style*="display:none" i], [style*="display: none" i], a.headerlink'
_NAVIGATION = 'nav, [role="navigation"]'

# Some sites keep whole articles in script elements that hold a template (kafka.apache.org does).
_TEMPLATE_TYPE = re.compile(
    r"text/(?:html|template|x-\S*template\S*|x-handlebars\S*)$", re.IGNORECASE
)

_BLOCK_TAGS = frozenset({
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5",
    "h6", "header", "hr", "html", "legend", "li", "main", "menu", "nav", "ol", "p", "section",
    "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", "caption", "option",
    "optgroup", "hgroup", "search",
})  # fmt: skip
_HEADING_LEVELS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_KIND_OF_TAG: dict[str, ElementKind] = {
    **dict.fromkeys(_HEADING_LEVELS, "title"),
    "li": "list_item",
    "figcaption": "caption",
    "caption": "caption",
    "header": "header",
    "footer": "footer",
}
# A <header> or <footer> inside these belongs to a piece of the content, not to the page.
_CONTENT_TAGS = frozenset({"article", "main", "section", "blockquote", "figure"})
# A table that holds any of these arranges the page instead of data.
_LAYOUT_CONTENT = "table :is(table, h1, h2, h3, h4, h5, h6, article, section)"

# Building the tree takes time in the square of its depth: 200,000 nested <div> take minutes.
# Browsers stop at 512 levels; unclosed tags of honest old pages add up to a few hundred.
MAX_DEPTH = 5_000
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)")
_SELF_CLOSING_TAGS = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr", "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup",
    "option", "optgroup",
})  # fmt: skip

# Longer preformatted blocks than this are whole documents put into <pre>, not code samples.
PREFORMATTED_CODE_CHARS = 10_000

_WHITE_SPACE = re.compile(r"[ \t\n\r\f]+")
_AROUND_LINE_BREAK = re.compile(r" *\n *")


class HtmlParser:
    """Reads HTML of any quality; menus are left out unless they are all there is."""

    name = "html"
    version = "1"
    media_types = frozenset({media_types.HTML})

    def parse(
        self,
        data: bytes,
        *,
        uri: str,
        media_type: str,
    ) -> ParsedDocument:
        """Headings, paragraphs, list items, tables, code and captions of the page.

        Raises:
            CorruptDocumentError: The tags are nested deeper than any page's.
        """
        declared = _META_CHARSET.search(data[:_META_WINDOW_BYTES])
        charset = declared[1].decode("ascii") if declared else None
        return parse_html(
            decode_text(data, declared=charset), uri=uri, parser=self.name, media_type=media_type
        )


def parse_html(text: str, *, uri: str, parser: str, media_type: str) -> ParsedDocument:
    """The document in decoded HTML; `parser` is the name that goes into the result.

    Raises:
        CorruptDocumentError: The tags are nested deeper than `MAX_DEPTH`.
    """
    if is_too_deep(text):
        raise CorruptDocumentError(uri=uri, detail=f"tags are nested deeper than {MAX_DEPTH}")
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    title = tree.css_first("head > title")
    document = assemble_document(
        _PageReader(tree, _UNSEEN + ", " + _NAVIGATION).read(),
        media_type=media_type,
        parser=parser,
        title=_WHITE_SPACE.sub(" ", title.text()) if title else None,
    )
    if document.elements:
        return document
    elements = _PageReader(tree, _UNSEEN).read()
    return assemble_document(elements, media_type=media_type, parser=parser, title=document.title)


def is_too_deep(text: str) -> bool:
    """Whether building the tree of a page could take minutes."""
    if text.count("<") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _TAG.finditer(text):
        if match[2].lower() not in _SELF_CLOSING_TAGS:
            depth = max(depth - 1, 0) if match[1] else depth + 1
            if depth > MAX_DEPTH:
                return True
    return False


class _PageReader:
    """One walk over the tree, without recursion: pages nest as deeply as they like."""

    def __init__(self, tree: "LexborHTMLParser", skipped: str) -> None:
        self._root = tree.root
        self._selector = skipped
        self._skipped = {node.mem_id for node in tree.css(skipped)}
        self._layout_tables = _find_layout_tables(tree)
        self._inline: list[str] = []
        self._open: list[str] = []

    def read(self) -> Iterator[Element]:
        """Elements in document order."""
        # A node on the stack is to be opened; a tag name is the end of an open block.
        stack: list[LexborNode | str] = [self._root] if self._root else []
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                yield from self._flush()
                self._open.pop()
                continue
            tag = item.tag or ""
            if tag == "-text":
                self._inline.append(_WHITE_SPACE.sub(" ", item.text_content or ""))
            elif tag == "br":
                self._inline.append("\n")
            elif tag == "script" and _TEMPLATE_TYPE.match(item.attributes.get("type") or ""):
                yield from self._flush()
                yield from self._read_template(item)
            elif tag in _UNSEEN_TAGS or item.mem_id in self._skipped:
                continue
            elif tag == "pre" or (tag == "table" and item.mem_id not in self._layout_tables):
                yield from self._flush()
                yield from _read_preformatted(item) if tag == "pre" else self._read_table(item)
            else:
                if tag in _BLOCK_TAGS:
                    yield from self._flush()
                    self._open.append(tag)
                    stack.append(tag)
                stack.extend(reversed(list(item.iter(include_text=True))))
        yield from self._flush()

    def _read_template(self, script: "LexborNode") -> Iterator[Element]:
        """Elements of markup that a script puts into the page."""
        from selectolax.lexbor import LexborHTMLParser

        yield from _PageReader(LexborHTMLParser(script.text()), self._selector).read()

    def _flush(self) -> Iterator[Element]:
        """The inline text gathered since the last block boundary, as one element."""
        if not self._inline:
            return
        text = _AROUND_LINE_BREAK.sub("\n", _WHITE_SPACE_BUT_LINES.sub(" ", "".join(self._inline)))
        self._inline.clear()
        kind, level = self._kind()
        yield Element(kind, text, level=level)

    def _kind(self) -> tuple[ElementKind, int | None]:
        """The innermost open tag that says what its text is."""
        for depth in range(len(self._open) - 1, -1, -1):
            tag = self._open[depth]
            kind = _KIND_OF_TAG.get(tag)
            if kind in ("header", "footer") and not _CONTENT_TAGS.isdisjoint(self._open[:depth]):
                continue
            if kind:
                return kind, _HEADING_LEVELS.get(tag)
        return "text", None

    def _read_table(self, table: "LexborNode") -> Iterator[Element]:
        rows: list[list[str]] = []
        for row in table.css("tr, caption"):
            if row.tag == "caption":
                yield Element("caption", _WHITE_SPACE.sub(" ", self._cell_text(row)))
                continue
            cells = [self._cell_text(cell) for cell in row.iter() if cell.tag in ("td", "th")]
            rows.append(cells)
        yield from table_elements(rows)

    def _cell_text(self, cell: "LexborNode") -> str:
        """Seen text of a cell; blocks and line breaks become spaces."""
        pieces: list[str] = []
        stack = [cell]
        while stack:
            node = stack.pop()
            tag = node.tag or ""
            if tag == "-text":
                pieces.append(node.text_content or "")
            elif tag not in _UNSEEN_TAGS and node.mem_id not in self._skipped:
                if tag == "br" or tag in _BLOCK_TAGS:
                    pieces.append(" ")
                stack.extend(reversed(list(node.iter(include_text=True))))
        return "".join(pieces)


_WHITE_SPACE_BUT_LINES = re.compile(r"[ \t\r\f]+")


def _find_layout_tables(tree: "LexborHTMLParser") -> set[int]:
    """Ids of the tables that arrange content of other kinds, and of the tables around those."""
    found: set[int] = set()
    for content in tree.css(_LAYOUT_CONTENT):
        node = content.parent
        while node is not None and node.mem_id not in found:
            if node.tag == "table":
                found.add(node.mem_id)
            node = node.parent
    return found


def _read_preformatted(node: "LexborNode") -> Iterator[Element]:
    text = node.text()
    if len(text) <= PREFORMATTED_CODE_CHARS or node.css_first("code"):
        yield Element("code", text)
    else:
        yield from split_paragraphs(text)
