"""XML: its text, read without entities, without external resources and without a network."""

import re
from collections.abc import Iterator

from ragassets.adapters.parsers.xml_tree import XmlNode, parse_xml
from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text
from ragassets.errors import CorruptDocumentError

_DECLARATION = re.compile(r"\s*<\?xml.*?\?>", re.DOTALL)
_DECLARED_ENCODING = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)", re.IGNORECASE)
_WHITE_SPACE = re.compile(r"\s+")


class XmlParser:
    """Reads the text content of any XML."""

    name = "xml"
    version = "1"
    media_types = frozenset({media_types.XML})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """One element for every element with text of its own.

        Raises:
            CorruptDocumentError: The bytes are not XML, not even with mistakes.
        """
        declared = _DECLARED_ENCODING.search(data[:200])
        text = decode_text(data, declared=declared[1].decode("ascii") if declared else None)
        # The text is decoded already, so what the declaration says must not be heard again.
        source = _DECLARATION.sub("", text, count=1).encode("utf-8", "replace")
        root = parse_xml(source)
        elements = _text_elements(root) if root is not None else ()
        document = assemble_document(elements, media_type=media_type, parser=self.name)
        if not document.elements and parse_xml(source, tolerant=False) is None:
            raise CorruptDocumentError(uri=uri, detail="not valid XML")
        return document


def _text_elements(root: XmlNode) -> Iterator[Element]:
    """Text runs in document order; the text of mixed content stays together."""
    stack = [root]
    while stack:
        node = stack.pop()
        if _is_mixed(node):
            yield Element("text", _WHITE_SPACE.sub(" ", "".join(node.itertext())))
            continue
        yield Element("text", node.text or "")
        stack.extend(reversed(list(node)))


def _is_mixed(node: XmlNode) -> bool:
    """Whether text and elements alternate, as in `<p>one <b>two</b> three</p>`."""
    has_tail = any((child.tail or "").strip() for child in node)
    return has_tail or (len(node) > 0 and bool((node.text or "").strip()))
