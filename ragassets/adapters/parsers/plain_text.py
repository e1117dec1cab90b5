"""Plain text: paragraphs between blank lines."""

import re
from collections.abc import Iterator

from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text

_BLANK_LINES = re.compile(r"\n[ \t\u3000]*(?:\n[ \t\u3000]*)+|\f")


def split_paragraphs(text: str) -> Iterator[Element]:
    """Paragraphs of `text`; lines within one stay, because they may be verse or code."""
    for paragraph in _BLANK_LINES.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        yield Element("text", paragraph)


class PlainTextParser:
    """Reads text in any encoding."""

    name = "plain_text"
    version = "1"
    # Text formats that stay readable as what they are. Broken JSON and XML do not.
    media_types = frozenset(
        {
            media_types.PLAIN,
            media_types.RST,
            media_types.ORG,
            media_types.MARKDOWN,
            media_types.CSV,
            media_types.TSV,
        }
    )

    def parse(
        self,
        data: bytes,
        *,
        uri: str,  # noqa: ARG002  part of the protocol; here nothing can fail
        media_type: str,
    ) -> ParsedDocument:
        """Paragraphs of `data`."""
        return assemble_document(
            split_paragraphs(decode_text(data)), media_type=media_type, parser=self.name
        )
