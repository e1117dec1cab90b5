"""The parsers that are used by default, in order of preference."""

from ragassets.adapters.parsers.delimited import DelimitedParser
from ragassets.adapters.parsers.docx import DocxParser
from ragassets.adapters.parsers.html import HtmlParser
from ragassets.adapters.parsers.json_document import JsonParser
from ragassets.adapters.parsers.legacy_office import LegacyOfficeParser, find_libreoffice
from ragassets.adapters.parsers.mail import EmlParser, MsgParser
from ragassets.adapters.parsers.markdown import MarkdownParser
from ragassets.adapters.parsers.pandoc import PandocParser, find_pandoc
from ragassets.adapters.parsers.pdf import PdfParser
from ragassets.adapters.parsers.plain_text import PlainTextParser
from ragassets.adapters.parsers.pptx import PptxParser
from ragassets.adapters.parsers.record import RecordParser
from ragassets.adapters.parsers.spreadsheet import XlsParser, XlsxParser
from ragassets.adapters.parsers.unstructured_office import UnstructuredParser
from ragassets.adapters.parsers.xml_document import XmlParser
from ragassets.core.parsing import Parser


def default_parsers() -> tuple[Parser, ...]:
    """Light parsers first, the general one as their fallback; nothing heavy is imported here."""
    return (
        RecordParser(),
        HtmlParser(),
        MarkdownParser(),
        DelimitedParser(),
        JsonParser(),
        XmlParser(),
        PdfParser(),
        DocxParser(),
        PptxParser(),
        XlsxParser(),
        XlsParser(),
        EmlParser(),
        MsgParser(),
        PandocParser(),
        LegacyOfficeParser(),
        UnstructuredParser(),
        PlainTextParser(),
    )


def has_all_converters() -> bool:
    """Whether every outside program that a parser may need is installed."""
    return find_libreoffice() is not None and find_pandoc() is not None
