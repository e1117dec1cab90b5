"""What a page layout prints on every page: running headers and footers, and page numbers.

Finds lines, by their place on the page and their repetition; `ragassets.core.cleaning` removes them
and its stage's version covers this module. Text without pages has no furniture.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MIN_PAGES = 3
"""A line on two pages may be a coincidence, or a page that was printed twice."""

EDGE_LINES = 3
"""Lines at the top, and at the bottom, of a page that may be furniture."""

MAX_FURNITURE_LINES = 8
"""Lines that a page may lose: a letterhead has five, a footer three. Pages that share more are
copies or forms."""

MAX_LINE_CHARS = 160
"""Longer lines are sentences. Running headers are set on one line of the page."""

_EDGES = (True, False)
"""Top and bottom."""

_MAX_NUMBERS = 4
"""Numbers of a line that are tried as the page number; running lines hold few."""

# Kinds whose lines are content wherever they stand: a table's heading row repeats on every page.
_CONTENT_KINDS = frozenset({"table", "code"})

_NUMBER = re.compile(r"(?<![\d.,])\d{1,4}(?![\d.,]*\d)")
_WHITE_SPACE = re.compile(r"\s+")

# A line that says itself that it is a page number. Bare digits are not among them: they are page
# numbers only where they count along with the pages.
_EXPLICIT_PAGE_NUMBER = re.compile(
    r"(?:[-–—|•]\s*)?"
    r"(?:(?:page|pg\.?|p\.|seite|página|pagina|pág\.|стр\.|страница|strona|sida|side)\s*\d{1,4}"
    r"(?:\s*(?:/|of|von|de|di|sur|из|z|av|af|van)\s*\d{1,4})?"
    r"|第\s*\d{1,4}\s*[页頁](?:\s*[/,,]?\s*共\s*\d{1,4}\s*[页頁])?"
    r"|\d{1,4}\s*(?:ページ|페이지)"
    r"|[-–—]\s*\d{1,4}\s*[-–—])"
    r"(?:\s*[-–—|•])?",
    re.IGNORECASE,
)


class Piece(NamedTuple):
    """An element on its way through cleaning."""

    kind: str
    text: str
    page: int | None
    level: int | None


class LinePlace(NamedTuple):
    """A line of a piece, by their positions."""

    piece: int
    line: int


class _EdgeLine(NamedTuple):
    place: LinePlace
    page: int
    text: str
    """Case-folded, with single spaces."""


def find_running_lines(pieces: Sequence[Piece], *, min_share: float) -> set[LinePlace]:
    """Lines that stand at the same edge of at least `min_share` of the pages.

    Two lines are the same when they are equal but for case and white space, or differ in one number
    only and that number counts along with the pages. A line must appear on three pages at least.
    A line that such lines hide from the edge is looked at as if they were gone. Where half of the
    pages would be left blank, or lose more than MAX_FURNITURE_LINES, the pages are copies of one
    another, not pages with furniture, and nothing is found.

    Source: the repetition-by-position rule of Lin, "Header and footer extraction by page
    association", Document Recognition and Retrieval X, 2003.
    """
    lines_by_page = _lines_by_page(pieces)
    n_pages = len(lines_by_page)
    if n_pages < MIN_PAGES:
        return set()
    n_required = max(MIN_PAGES, math.ceil(min_share * n_pages))
    found: set[LinePlace] = set()
    rest = list(lines_by_page.values())
    while more := _repeated_at_edges(rest, n_required):
        found |= more
        rest = [[line for line in lines if line.place not in more] for lines in rest]
    n_hollow = sum(
        not left or len(lines) - len(left) > MAX_FURNITURE_LINES
        for left, lines in zip(rest, lines_by_page.values(), strict=True)
    )
    return set() if 2 * n_hollow >= n_pages else found


def find_page_numbers(pieces: Sequence[Piece]) -> set[LinePlace]:
    """Lines at a page's edge that call themselves page numbers: `Page 3 of 10`, `- 3 -`."""
    return {
        line.place
        for lines in _lines_by_page(pieces).values()
        for is_top in _EDGES
        for line in _edge(lines, is_top=is_top)
        if _EXPLICIT_PAGE_NUMBER.fullmatch(line.text)
    }


def without_lines(pieces: Sequence[Piece], places: Iterable[LinePlace]) -> list[Piece]:
    """The pieces without these lines; a piece that loses all of its lines is left out."""
    drop: dict[int, set[int]] = defaultdict(set)
    for place in places:
        drop[place.piece].add(place.line)
    kept: list[Piece] = []
    for index, piece in enumerate(pieces):
        if index not in drop:
            kept.append(piece)
            continue
        lines = piece.text.split("\n")
        text = "\n".join(line for at, line in enumerate(lines) if at not in drop[index])
        if text.strip():
            kept.append(piece._replace(text=text))
    return kept


def _lines_by_page(pieces: Sequence[Piece]) -> dict[int, list[_EdgeLine]]:
    """The lines of every page that has text, in reading order; content kinds count, as blockers."""
    pages: dict[int, list[_EdgeLine]] = defaultdict(list)
    for index, piece in enumerate(pieces):
        if piece.page is None:
            continue
        for at, raw in enumerate(piece.text.split("\n")):
            text = _WHITE_SPACE.sub(" ", raw).strip().casefold()
            if text:
                shown = "" if piece.kind in _CONTENT_KINDS else text
                pages[piece.page].append(_EdgeLine(LinePlace(index, at), piece.page, shown))
    return pages


def _edge(lines: list[_EdgeLine], *, is_top: bool) -> list[_EdgeLine]:
    edge = lines[:EDGE_LINES] if is_top else lines[-EDGE_LINES:]
    return [line for line in edge if line.text and len(line.text) <= MAX_LINE_CHARS]


def _repeated_at_edges(pages: Sequence[list[_EdgeLine]], n_required: int) -> set[LinePlace]:
    edges = ([line for lines in pages for line in _edge(lines, is_top=top)] for top in _EDGES)
    return set[LinePlace]().union(*(_repeated(edge, n_required) for edge in edges))


def _repeated(lines: Sequence[_EdgeLine], n_required: int) -> set[LinePlace]:
    pages_of_key: Counter[tuple[str, int | None]] = Counter()
    for key, _ in {(key, line.page) for line in lines for key in _keys(line)}:
        pages_of_key[key] += 1
    return {
        line.place for line in lines if any(pages_of_key[key] >= n_required for key in _keys(line))
    }


def _keys(line: _EdgeLine) -> list[tuple[str, int | None]]:
    """What the line is the same by: its text, or its text around a number relative to the page."""
    keys: list[tuple[str, int | None]] = [(line.text, None)]
    for match in list(_NUMBER.finditer(line.text))[:_MAX_NUMBERS]:
        template = f"{line.text[: match.start()]}\0{line.text[match.end() :]}"
        keys.append((template, int(match[0]) - line.page))
    return keys
