"""Rows of cells to table elements, for every format that holds tables."""

import re
from collections.abc import Iterable, Iterator, Sequence

from ragassets.core.parsing import Element

# Rows per element: small enough that a chunk is one or two elements, large enough that the header
# repeated over each costs little.
ROWS_PER_ELEMENT = 20

_WHITE_SPACE = re.compile(r"\s+")


def render_row(cells: Iterable[str]) -> str:
    """`cell | cell`, each on one line; an empty cell stays visible, trailing ones do not."""
    rendered = [_WHITE_SPACE.sub(" ", cell).strip() for cell in cells]
    while rendered and not rendered[-1]:
        rendered.pop()
    return " | ".join(rendered)


def table_element(rows: Iterable[Sequence[str]], *, page: int | None = None) -> Element:
    """One table as one element: a line a row, rows without text left out."""
    return Element("table", "\n".join(filter(None, map(render_row, rows))), page)


def table_elements(rows: Iterable[Sequence[str]], *, page: int | None = None) -> Iterator[Element]:
    """A table inside a document: one element, or several where it is long."""
    lines = list(rows)
    if len(lines) <= ROWS_PER_ELEMENT:
        yield table_element(lines, page=page)
    else:
        yield from split_table(lines, page=page)


def split_table(rows: Iterable[Sequence[str]], *, page: int | None = None) -> Iterator[Element]:
    """A long table as elements of a few rows, the header repeated over each.

    The first row that fills the table's width is the header; rows above it (a title, a note) are
    an element of their own.
    """
    lines = [row for row in rows if any(cell.strip() for cell in row)]
    n_columns = max(map(_n_filled, lines), default=0)
    n_above = next((i for i, row in enumerate(lines) if _n_filled(row) == n_columns), 0)
    if n_above:
        yield table_element(lines[:n_above], page=page)
    if n_columns == 0:
        return
    header, body = lines[n_above], lines[n_above + 1 :]
    if n_columns == 1 or not body:
        header_rows, body = [], lines[n_above:]
    else:
        header_rows = [header]
    for start in range(0, len(body), ROWS_PER_ELEMENT):
        yield table_element([*header_rows, *body[start : start + ROWS_PER_ELEMENT]], page=page)


def _n_filled(row: Sequence[str]) -> int:
    return sum(1 for cell in row if cell.strip())
