"""From a parser's elements to the text that is searched: noise out, damage mended, offsets known.

Decides what is noise in a document and lays out the blocks. Repairing one text is
`ragassets.core.text_repair`, what a page layout repeats is `ragassets.core.page_furniture`,
personal data is `ragassets.core.redaction`. Nothing is rewritten for style: what a person would
read as content stays.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ragassets.core.page_furniture import (
    Piece,
    find_page_numbers,
    find_running_lines,
    without_lines,
)
from ragassets.core.redaction import redact
from ragassets.core.settings import CleaningConfig
from ragassets.core.text_repair import TextShape, normalize_white_space, repair_text
from ragassets.errors import EmptyDocumentError

BLOCK_SEPARATOR = "\n\n"


class ElementLike(Protocol):
    """What cleaning needs of a parser's element."""

    @property
    def kind(self) -> str:
        """Title, text, list_item, table, header, footer, page_number, code or caption."""
        ...

    @property
    def text(self) -> str:
        """The text as the parser found it."""
        ...

    @property
    def page(self) -> int | None:
        """1-based; None where the format has no pages."""
        ...

    @property
    def level(self) -> int | None:
        """Heading level 1 to 6, or None."""
        ...


class Block(NamedTuple):
    """A span of the clean text: `text[start_char:end_char]` is the block."""

    kind: str
    start_char: int
    end_char: int
    page: int | None
    level: int | None


class CleanDocument(NamedTuple):
    """Clean text and its blocks, which tile it in order, joined by BLOCK_SEPARATOR."""

    text: str
    title: str | None
    blocks: tuple[Block, ...]
    n_removed: dict[str, int]
    """What was left out, by reason: `header`, `footer`, `page_number`, `running_line`,
    `boilerplate`, `blank`, `faulty` (elements or lines), `email` and `phone` (places replaced by a
    mark)."""
    n_repaired_chars: int


MAX_BOILERPLATE_CHARS = 300
"""A longer line says more than a notice does."""

_MAX_PASSES = 12
"""Removing one line can uncover the next; documents settle after two or three passes."""

_MIN_WRAP_CHARS = 45
"""Lines that are mostly longer were wrapped by a typesetter; shorter ones (verses, addresses,
receipts, menus) break where their author broke them. Ideographs are twice as wide."""

_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uff01-\uff60]")
_STARTS_ITEM = re.compile(r"(?:[•◦▪‣●○*–—-]|\(?\w{1,3}[.)])\s")
_SPACELESS_JOIN = re.compile(
    "(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uff60])\n(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uff60])"
)

# A word cut at a line end: letters, a hyphen, the break, and a small letter.
_CUT_WORD = re.compile(r"(\w*[^\W\d_])[-\u2010]\n((?=[^\W\d_])\w+)")
_WORD = re.compile(r"[^\W_]+(?:[-\u2010][^\W_]+)*")
_PAGED_PROSE = frozenset({"title", "text", "list_item", "caption"})

# Whole lines only, and only wording that is addressed to the visitor of a web site.
_BOILERPLATE = re.compile(
    r"(?:"
    r"(?:accept|allow|reject|decline|manage)(?: all| only necessary)? cookies"
    r"|cookie (?:settings|preferences|consent)"
    r"|(?=.*\b(?:accept|agree|consent|continu\w+|got it)\b)"
    r"(?:we|this (?:web)?site|our (?:web)?site) uses? cookies\b.*"
    r"|by (?:continuing|using)\b.*\b(?:agree|consent)\b.*\bcookies\b.*"
    r"|all rights reserved\.?"
    r"|(?:©|\(c\)|copyright)(?=.*\d{4}).{0,120}\ball rights reserved\.?"
    r"|skip to (?:main )?(?:content|navigation)"
    r"|(?:back|return) to top"
    r"|(?:sign up for|subscribe to) our newsletter[.!]?"
    r")",
    re.IGNORECASE,
)
# What every boilerplate line holds: most pieces are settled by this one scan.
_BOILERPLATE_HINT = re.compile(
    r"cookie|rights reserved|skip to|to top|our newsletter", re.IGNORECASE
)


def clean_document(
    *,
    uri: str,
    elements: Sequence[ElementLike | Mapping[str, Any]],
    title: str | None,
    config: CleaningConfig,
) -> CleanDocument:
    """The text to be searched, without noise.

    Cleaning is a fixed point: elements made of the result's blocks come out unchanged. An element
    that cannot be processed is left out and counted as `faulty`, so that it costs one section.

    Args:
        uri: The document's address; used in errors.
        elements: What the parser found, in reading order, as objects or as rows.
        title: The parser's title; without one, the first title element serves.
        config: What counts as noise.

    Raises:
        EmptyDocumentError: Nothing is left.
    """
    removed: Counter[str] = Counter()
    pieces, n_repaired_chars = _repaired_pieces(elements, config, removed)
    for _ in range(_MAX_PASSES):
        before = pieces
        pieces = _remove_noise(before, config, removed)
        if pieces == before:
            break
    if not pieces:
        raise EmptyDocumentError(uri=uri, detail=_nothing_left(len(elements), removed))
    text, blocks = _lay_out(pieces)
    clean_title = _clean_title(title, config) or _first_title(pieces)
    counts = {reason: count for reason, count in sorted(removed.items()) if count}
    return CleanDocument(text, clean_title, blocks, counts, n_repaired_chars)


def _repaired_pieces(
    elements: Sequence[ElementLike | Mapping[str, Any]],
    config: CleaningConfig,
    removed: Counter[str],
) -> tuple[list[Piece], int]:
    pieces: list[Piece] = []
    n_repaired_chars = 0
    for element in elements:
        try:
            piece = _piece(element)
            text, n_chars = repair_text(piece.text)
            text = normalize_white_space(text, _shape(piece.kind))
        except Exception:  # noqa: BLE001 - any failure here would cost the whole document
            removed["faulty"] += 1
            continue
        n_repaired_chars += n_chars
        if not text:
            removed["blank"] += 1
        else:
            pieces.append(piece._replace(text=text))
    return _without_furniture(pieces, config, removed), n_repaired_chars


def _without_furniture(
    pieces: list[Piece], config: CleaningConfig, removed: Counter[str]
) -> list[Piece]:
    if {piece.page for piece in pieces} == {1}:
        return pieces
    removed.update(piece.kind for piece in pieces if piece.kind in config.drop_kinds)
    return [piece for piece in pieces if piece.kind not in config.drop_kinds]


def _piece(element: ElementLike | Mapping[str, Any]) -> Piece:
    if isinstance(element, Mapping):
        return Piece(element["kind"], element["text"], element.get("page"), element.get("level"))
    return Piece(element.kind, element.text, element.page, element.level)


def _shape(kind: str) -> TextShape:
    return "code" if kind == "code" else "table" if kind == "table" else "prose"


def _remove_noise(
    pieces: list[Piece], config: CleaningConfig, removed: Counter[str]
) -> list[Piece]:
    """One pass over the document."""
    if config.remove_running_lines:
        page_numbers = find_page_numbers(pieces)
        running = find_running_lines(pieces, min_share=config.running_line_share) - page_numbers
        removed["page_number"] += len(page_numbers)
        removed["running_line"] += len(running)
        pieces = without_lines(pieces, page_numbers | running)
    pieces = _join_lines(pieces)
    if config.remove_boilerplate:
        pieces = _remove_boilerplate(pieces, removed)
    return [_redacted(piece, config, removed) for piece in pieces]


def _join_lines(pieces: list[Piece]) -> list[Piece]:
    """Words and paragraphs that were broken at line ends, in one piece again."""
    words: frozenset[str] | None = None
    joined: list[Piece] = []
    for piece in pieces:
        text = piece.text
        if "\n" in text and piece.kind in _PAGED_PROSE:
            if piece.page is not None and _CUT_WORD.search(text):
                words = _words(pieces) if words is None else words
                text = _join_cut_words(text, words)
            text = BLOCK_SEPARATOR.join(map(_unwrap, text.split(BLOCK_SEPARATOR)))
        joined.append(piece if text == piece.text else piece._replace(text=text))
    return joined


def _words(pieces: Iterable[Piece]) -> frozenset[str]:
    return frozenset(word.casefold() for piece in pieces for word in _WORD.findall(piece.text))


def _join_cut_words(text: str, words: frozenset[str]) -> str:
    """Cut words joined, their hyphen kept where the document writes the word with one."""

    def join(match: re.Match[str]) -> str:
        head, tail = match[1], match[2]
        if not tail[0].islower():
            return f"{head}-{tail}" if f"{head}-{tail}".casefold() in words else match[0]
        is_compound = f"{head}-{tail}".casefold() in words
        is_word = f"{head}{tail}".casefold() in words
        return f"{head}-{tail}" if is_compound and not is_word else f"{head}{tail}"

    return _CUT_WORD.sub(join, text)


def _unwrap(paragraph: str) -> str:
    """A typeset paragraph on one line; anything else as it is."""
    lines = paragraph.split("\n")
    if len(lines) == 1:
        return paragraph
    widths = sorted(len(line) + len(_WIDE.findall(line)) for line in lines[:-1])
    if widths[len(widths) // 2] < _MIN_WRAP_CHARS:
        return paragraph
    parts = [lines[0]]
    for line in lines[1:]:
        # A colon announces lines of their own, and a list item starts one.
        if parts[-1].endswith(":") or _STARTS_ITEM.match(line):
            parts.append(line)
        else:
            parts[-1] = _SPACELESS_JOIN.sub("", f"{parts[-1]}\n{line}").replace("\n", " ")
    return "\n".join(parts)


def _remove_boilerplate(pieces: list[Piece], removed: Counter[str]) -> list[Piece]:
    kept: list[Piece] = []
    for piece in pieces:
        if piece.kind not in _PAGED_PROSE or not _BOILERPLATE_HINT.search(piece.text):
            kept.append(piece)
            continue
        lines = piece.text.split("\n")
        content = [line for line in lines if not _is_boilerplate(line)]
        if len(content) == len(lines):
            kept.append(piece)
            continue
        removed["boilerplate"] += len(lines) - len(content)
        text = normalize_white_space("\n".join(content), "prose")
        if text:
            kept.append(piece._replace(text=text))
    return kept


def _is_boilerplate(line: str) -> bool:
    return len(line) <= MAX_BOILERPLATE_CHARS and _BOILERPLATE.fullmatch(line.strip()) is not None


def _redacted(piece: Piece, config: CleaningConfig, removed: Counter[str]) -> Piece:
    if not config.redact:
        return piece
    text, counts = redact(piece.text, config.redact, phone_region=config.phone_region)
    removed.update(counts)
    return piece._replace(text=text) if counts else piece


def _lay_out(pieces: Iterable[Piece]) -> tuple[str, tuple[Block, ...]]:
    """The pieces' texts, joined, and where each of them stands."""
    parts: list[str] = []
    blocks: list[Block] = []
    start_char = 0
    for kind, text, page, level in pieces:
        parts.append(text)
        blocks.append(Block(kind, start_char, start_char + len(text), page, level))
        start_char += len(text) + len(BLOCK_SEPARATOR)
    return BLOCK_SEPARATOR.join(parts), tuple(blocks)


def _clean_title(title: str | None, config: CleaningConfig) -> str | None:
    text = " ".join(repair_text(title or "")[0].split())
    if config.redact:
        text, _ = redact(text, config.redact, phone_region=config.phone_region)
    return text or None


def _first_title(pieces: Iterable[Piece]) -> str | None:
    return next((" ".join(piece.text.split()) for piece in pieces if piece.kind == "title"), None)


def _nothing_left(n_elements: int, removed: Counter[str]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(removed.items()) if count)
    return f"nothing is left of {n_elements} elements after cleaning (removed: {counts or 'none'})"
