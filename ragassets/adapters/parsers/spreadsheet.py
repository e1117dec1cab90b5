"""XLSX and XLS: the rows of every sheet, under the sheet's name."""

import datetime as dt
import io
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

from ragassets.adapters.parsers.rows import split_table
from ragassets.adapters.parsers.xml_tree import Package
from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, assemble_document
from ragassets.errors import CorruptDocumentError, EncryptedDocumentError

Row = tuple[str, ...]


class XlsxParser:
    """Reads Excel workbooks; formulas give the value that Excel stored."""

    name = "xlsx"
    version = "1"
    media_types = frozenset({media_types.XLSX})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Each sheet's name as a title, then its rows.

        Raises:
            CorruptDocumentError: The workbook cannot be opened.
            OversizedDocumentError: It unpacks to more than any honest one.
        """
        import openpyxl

        Package(data, uri)  # refuses decompression bombs
        with warnings.catch_warnings():
            # openpyxl warns about every extension that it will not write back.
            warnings.simplefilter("ignore")
            try:
                workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
                raise CorruptDocumentError(uri=uri, detail="not a readable workbook") from error
            try:
                elements = list(_read_sheets(_xlsx_sheets(workbook)))
            finally:
                workbook.close()
        return assemble_document(elements, media_type=media_type, parser=self.name)


class XlsParser:
    """Reads workbooks of Excel 97 to 2003."""

    name = "xls"
    version = "1"
    media_types = frozenset({media_types.XLS})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Each sheet's name as a title, then its rows.

        Raises:
            EncryptedDocumentError: The workbook needs a password.
            CorruptDocumentError: The workbook cannot be opened.
        """
        import xlrd
        from xlrd.biffh import XLRDError

        try:
            book = xlrd.open_workbook(file_contents=data, logfile=io.StringIO())
        except XLRDError as error:
            if "encrypted" in str(error):
                raise EncryptedDocumentError(
                    uri=uri, detail="the workbook needs a password"
                ) from error
            raise CorruptDocumentError(uri=uri, detail="not a readable workbook") from error
        return assemble_document(
            _read_sheets(_xls_sheets(book)), media_type=media_type, parser=self.name
        )


def _read_sheets(sheets: Iterable[tuple[str, Iterable[Row]]]) -> Iterator[Element]:
    """A sheet without cells gives nothing, not even its name."""
    for page, (name, rows) in enumerate(sheets, 1):
        filled = [row for row in rows if any(row)]
        if filled:
            yield Element("title", name, page, 1)
            yield from split_table(filled, page=page)


def _xlsx_sheets(workbook: Any) -> Iterator[tuple[str, Iterable[Row]]]:
    for sheet in workbook.worksheets:
        # The stored dimension is a hint that some writers get wrong; None makes openpyxl look.
        sheet.reset_dimensions()
        rows = cast("Iterable[tuple[object, ...]]", sheet.iter_rows(values_only=True))
        yield str(sheet.title), (tuple(map(_render_cell, row)) for row in rows)


def _xls_sheets(book: Any) -> Iterator[tuple[str, Iterable[Row]]]:
    for sheet in book.sheets():
        yield (
            str(sheet.name),
            (
                tuple(_render_xls_cell(cell, book.datemode) for cell in sheet.row(index))
                for index in range(sheet.nrows)
            ),
        )


def _render_xls_cell(cell: Any, date_mode: Literal[0, 1]) -> str:
    import xlrd

    value: object = cell.value
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            value = xlrd.xldate_as_datetime(cell.value, date_mode)
        except (ValueError, OverflowError):
            value = cell.value
    elif cell.ctype == xlrd.XL_CELL_BOOLEAN:
        value = bool(cell.value)
    elif cell.ctype == xlrd.XL_CELL_ERROR:
        value = xlrd.error_text_from_code.get(cell.value, "")
    return _render_cell(value)


def _render_cell(value: object) -> str:
    """The cell as Excel would most plainly show it: 3.0 is 3, midnight is a date."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else str(value)
    return str(value).strip()
