"""Records of APIs and dumps: what the settings of their source picked out of them."""

from dataclasses import replace

from ragassets.adapters.parsers.html import HtmlParser
from ragassets.adapters.parsers.json_document import JsonParser
from ragassets.adapters.parsers.markdown import MarkdownParser
from ragassets.adapters.parsers.plain_text import PlainTextParser
from ragassets.core import media_types
from ragassets.core.parsing import ParsedDocument, Parser, assemble_document
from ragassets.core.records import read_envelope
from ragassets.errors import CorruptDocumentError

BODY_PARSERS: dict[str, tuple[Parser, str]] = {
    "text": (PlainTextParser(), media_types.PLAIN),
    "html": (HtmlParser(), media_types.HTML),
    "markdown": (MarkdownParser(), media_types.MARKDOWN),
    "json": (JsonParser(), media_types.JSON),
}


class RecordParser:
    """Reads what a source of records landed; the body by the parser of its kind."""

    name = "record"
    version = "1"
    media_types = frozenset({media_types.RECORD})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """The body's elements, with the record's title and metadata.

        Raises:
            CorruptDocumentError: The bytes are no envelope, or the body cannot be read.
        """
        try:
            envelope = read_envelope(data)
            parser, body_type = BODY_PARSERS[envelope.body_type]
        except (ValueError, KeyError, RecursionError) as error:
            raise CorruptDocumentError(uri=uri, detail="not a record as it was landed") from error
        body = envelope.body.encode("utf-8", "replace")
        found = parser.parse(body, uri=uri, media_type=body_type)
        titled = assemble_document(
            (), media_type=media_type, parser=self.name, title=envelope.title
        )
        return replace(
            found,
            media_type=media_type,
            parser=f"{self.name}+{found.parser}",
            title=titled.title or found.title,
            metadata={},
            record_metadata=dict(envelope.metadata),
        )
