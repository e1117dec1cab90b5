"""PDF: the text layer, page by page. Pictures of text are left to OCR."""

import ctypes
import importlib
import itertools
import re
import statistics
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ragassets.core import media_types
from ragassets.core.parsing import Element, ElementKind, ParsedDocument, assemble_document
from ragassets.errors import CorruptDocumentError, EncryptedDocumentError, NeedsOcrError

# PDFium is not thread-safe. Source: the header comment of fpdfview.h.
_PDFIUM = threading.Lock()

# PDFium writes this where it joined a word that was hyphenated at the end of a line.
_JOINED_HYPHEN = "\ufffe"

# Lines further apart than this many usual line steps are two paragraphs.
_PARAGRAPH_STEP = 1.3
# Two sizes within this share of each other are the same font size.
_SAME_SIZE = 0.12
# Text this much larger than the body is a heading.
_HEADING_SIZE = 1.15
_MAX_HEADING_CHARS = 200
# A line that fills this share of the widest one was broken by the margin, not by its author.
_WRAPPED_SHARE = 0.7

# In points. PDFium's own limit for "no width" is 0.01.
_NO_WIDTH = 0.01
_SHEAR = 0.001

_LIST_MARKER = re.compile(r"(?:[•‣◦▪●○■□–*\uf0b7-]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s+\S")
_SENTENCE_END = re.compile(r"[.!?:;。！？]['\"”’)\]]?$")


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    page: int
    left: float
    right: float
    bottom: float
    size: float
    """Height of the first glyph's cell in points, after all transformations."""


class PdfParser:
    """Reads the text layer with PDFium."""

    name = "pdf"
    version = "1"
    media_types = frozenset({media_types.PDF})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Headings and paragraphs with their pages.

        Pages that hold pictures only are named in the metadata, under `pages_without_text`.

        Raises:
            EncryptedDocumentError: The document needs a password.
            CorruptDocumentError: PDFium cannot open the document.
            NeedsOcrError: No page has text, and some have pictures.
        """
        with _PDFIUM:
            pdf = _open_pdf(data, uri)
            try:
                pages = [_read_page(pdf, number) for number in range(1, len(pdf) + 1)]
                information: dict[str, str] = pdf.get_metadata_dict(skip_empty=True)
            finally:
                pdf.close()
        lines = [line for page in pages for line in page.lines]
        pictures = [page.number for page in pages if not page.lines and page.has_pictures]
        if pictures and not lines:
            detail = f"{len(pictures)} of {len(pages)} pages hold pictures, and none holds text"
            raise NeedsOcrError(uri=uri, detail=detail)
        metadata = {key.lower(): value for key, value in information.items()}
        if pictures:
            metadata["pages_without_text"] = ", ".join(map(str, pictures))
        return assemble_document(
            _group_lines(lines),
            media_type=media_type,
            parser=self.name,
            n_pages=len(pages),
            title=metadata.get("title"),
            metadata=metadata,
        )


@dataclass(frozen=True, slots=True)
class _Page:
    number: int
    lines: list[_Line]
    has_pictures: bool


def _open_pdf(data: bytes, uri: str) -> Any:
    pypdfium2: Any = importlib.import_module("pypdfium2")
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise EncryptedDocumentError(uri=uri, detail="the PDF needs a password") from error
        raise CorruptDocumentError(uri=uri, detail="PDFium cannot open the PDF") from error


def _read_page(pdf: Any, number: int) -> _Page:
    pypdfium2: Any = importlib.import_module("pypdfium2")
    try:
        page = pdf[number - 1]
    except pypdfium2.PdfiumError:
        # One broken page leaves the others readable.
        return _Page(number, [], has_pictures=False)
    _widen_vertical_text(page)
    textpage = page.get_textpage()
    try:
        box: tuple[float, float, float, float] = page.get_bbox()
        lines = [line for line in _read_lines(textpage, number) if _is_on_page(line, box)]
        images = () if lines else page.get_objects([pypdfium2.raw.FPDF_PAGEOBJ_IMAGE])
        return _Page(number, lines, has_pictures=any(True for _ in images))
    finally:
        textpage.close()
        page.close()


def _widen_vertical_text(page: Any) -> None:
    """Shear vertical text by an invisible amount.

    PDFium leaves text whose box has no width out of the text layer, and a column of full-width
    glyphs has none. Seen with PDFium 7.x (`CPDF_TextPage::ProcessTextObject`) on the samples
    jo.pdf and simple3.pdf of pdfminer.six.
    """
    pdfium: Any = importlib.import_module("pypdfium2.raw")

    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    for index in range(pdfium.FPDFPage_CountObjects(page)):
        item = pdfium.FPDFPage_GetObject(page, index)
        if pdfium.FPDFPageObj_GetType(item) != pdfium.FPDF_PAGEOBJ_TEXT:
            continue
        pdfium.FPDFPageObj_GetBounds(item, left, bottom, right, top)
        if right.value - left.value < _NO_WIDTH:
            pdfium.FPDFPageObj_Transform(item, 1, 0, _SHEAR, 1, 0, 0)


def _is_on_page(line: _Line, box: tuple[float, float, float, float]) -> bool:
    """Whether any of the line can be seen; text beside the page is an editor's leftover."""
    left, bottom, right, top = box
    return (
        line.right >= left
        and line.left <= right
        and line.bottom + line.size >= bottom
        and line.bottom <= top
    )


def _read_lines(textpage: Any, page: int) -> Iterator[_Line]:
    index = 0
    for raw in textpage.get_text_range().split("\r\n"):
        # PDFium counts UTF-16 units; a character outside the basic plane is two of them.
        n_units = len(raw.encode("utf-16-le", "surrogatepass")) // 2
        stripped = raw.strip()
        if stripped:
            first = index + len(raw) - len(raw.lstrip())
            last = index + len(raw.rstrip()) - 1
            left, bottom, _, top = textpage.get_charbox(first, loose=True)
            right = textpage.get_charbox(last, loose=True)[2]
            text = stripped.replace(_JOINED_HYPHEN, "")
            yield _Line(text, page, left, right, bottom, top - bottom)
        index += n_units + 2


def _group_lines(lines: Sequence[_Line]) -> Iterator[Element]:
    """Paragraphs and headings, from the distances and sizes of the lines."""
    if not lines:
        return
    body_size = _body_size(lines)
    heading_sizes = sorted({_rounded(line) for line in lines if _is_large(line, body_size)})[::-1]
    for _, page_lines in itertools.groupby(lines, key=lambda line: line.page):
        for paragraph in _split_paragraphs(list(page_lines)):
            text = _join_lines(paragraph)
            kind: ElementKind = "text"
            level = None
            if _is_large(paragraph[0], body_size) and len(text) <= _MAX_HEADING_CHARS:
                kind, level = "title", 1 + heading_sizes.index(_rounded(paragraph[0]))
            elif _LIST_MARKER.match(text):
                kind = "list_item"
            yield Element(kind, text, paragraph[0].page, level)


def _rounded(line: _Line) -> int:
    return round(line.size)


def _body_size(lines: Sequence[_Line]) -> float:
    """The size that most characters have."""
    weights: Counter[int] = Counter()
    for line in lines:
        weights[_rounded(line)] += len(line.text)
    return weights.most_common(1)[0][0]


def _is_large(line: _Line, body_size: float) -> bool:
    return _rounded(line) > body_size * _HEADING_SIZE


def _split_paragraphs(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    usual_step = _usual_step(lines)
    paragraph = [lines[0]]
    for previous, line in itertools.pairwise(lines):
        if _starts_paragraph(previous, line, usual_step, max(item.right for item in paragraph)):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    yield paragraph


def _usual_step(lines: Sequence[_Line]) -> float:
    """Median distance of two lines of one size that follow each other downwards."""
    steps = [
        previous.bottom - line.bottom
        for previous, line in itertools.pairwise(lines)
        if _is_same_size(previous, line) and 0 < previous.bottom - line.bottom < 3 * line.size
    ]
    return statistics.median(steps) if steps else 0.0


def _is_same_size(first: _Line, second: _Line) -> bool:
    return abs(first.size - second.size) <= _SAME_SIZE * max(first.size, second.size)


def _starts_paragraph(previous: _Line, line: _Line, usual_step: float, right: float) -> bool:
    step = previous.bottom - line.bottom
    if not _is_same_size(previous, line) or _LIST_MARKER.match(line.text):
        return True
    if step < -line.size:
        # Up again: the next column, where a sentence may go on.
        return bool(_SENTENCE_END.search(previous.text)) or not line.text[0].islower()
    if step > _PARAGRAPH_STEP * max(usual_step, line.size):
        return True
    is_short = previous.right - previous.left < _WRAPPED_SHARE * (right - previous.left)
    return is_short and bool(_SENTENCE_END.search(previous.text))


def _join_lines(lines: Sequence[_Line]) -> str:
    """Lines that the margin broke become one; the others keep their line break."""
    width = max(line.right - line.left for line in lines)
    pieces = [lines[0].text]
    for previous, line in itertools.pairwise(lines):
        is_wrapped = previous.right - previous.left >= _WRAPPED_SHARE * width
        pieces.append((" " if is_wrapped else "\n") + line.text)
    return "".join(pieces)
