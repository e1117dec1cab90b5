"""CSV and TSV: rows under their header."""

import csv
import io
import sys

from ragassets.adapters.parsers.rows import split_table
from ragassets.core import media_types
from ragassets.core.parsing import ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text

_DELIMITERS = ",;\t|"
_SNIFF_LINES = 50


class DelimitedParser:
    """Reads delimited text; the delimiter is found from the content."""

    name = "delimited"
    version = "1"
    media_types = frozenset({media_types.CSV, media_types.TSV})

    def parse(
        self,
        data: bytes,
        *,
        uri: str,  # noqa: ARG002  part of the protocol; here nothing can fail
        media_type: str,
    ) -> ParsedDocument:
        """Groups of rows, the header repeated over each."""
        text = decode_text(data)
        default = "\t" if media_type == media_types.TSV else ","
        # A field of any length is content; csv's own limit guards against unbalanced quotes only.
        csv.field_size_limit(sys.maxsize)
        # NUL is refused by csv before Python 3.11.4 and means nothing here.
        rows = csv.reader(io.StringIO(text.replace("\0", "")), delimiter=_delimiter(text, default))
        return assemble_document(split_table(rows), media_type=media_type, parser=self.name)


def _delimiter(text: str, default: str) -> str:
    """The delimiter that cuts the first lines most evenly; `default` where none cuts them.

    `csv.Sniffer` is not used: it takes letters for delimiters and fails on one column.
    """
    lines = [line for line in text.split("\n")[:_SNIFF_LINES] if line.strip()]

    def evenness(delimiter: str) -> tuple[float, int, bool]:
        counts = [line.count(delimiter) for line in lines]
        usual = max(set(counts), key=lambda count: (counts.count(count), count), default=0)
        share = counts.count(usual) / len(counts) if usual else 0.0
        return share, usual, delimiter == default

    best = max(_DELIMITERS, key=evenness)
    return best if evenness(best)[0] > 0 else default
