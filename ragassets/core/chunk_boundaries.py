"""Where a document may be cut, how strong each place is, and the content hash that ranks equals.

Everything here looks at the text beside a place and at nothing else, so that an edit elsewhere
changes neither the strength nor the hash of a boundary. Which become cuts is up to `chunk_cuts`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ragassets.core.chunk_tokens import JOINER, IntArray, TokenIndex, extends_character
from ragassets.core.sentences import sentence_starts

KeyArray = npt.NDArray[np.uint64]


class BlockLike(Protocol):
    """A block of clean text, as the cleaning stage makes it."""

    @property
    def kind(self) -> str:
        """title, text, list_item, table, header, footer, page_number, code or caption."""
        ...

    @property
    def start_char(self) -> int:
        """Where the block begins in the text."""
        ...

    @property
    def end_char(self) -> int:
        """Where it ends, exclusive."""
        ...

    @property
    def page(self) -> int | None:
        """Its page, from 1."""
        ...

    @property
    def level(self) -> int | None:
        """The level of a heading, 1 to 6."""
        ...


class Strength(IntEnum):
    """How good a place is for a cut; a heading of level 1 is `HEADING + 6`."""

    TOKEN = 0
    """Inside a run of characters without white space."""
    WORD = 1
    """Between words; also between a heading and what it announces."""
    CLAUSE = 2
    """After a comma or at a line break of running text."""
    SENTENCE = 3
    """Between sentences, lines of code, rows of a table."""
    ITEM = 4
    """Between list items, after a paragraph that ends with a colon, at a blank line of code."""
    PARAGRAPH = 5
    HEADING = 6


@dataclass(frozen=True)
class Boundaries:
    """Candidate cuts, ascending, none at the start of the text: arrays of shape (n_boundaries,).

    `positions` int64 in characters, `tokens` int64 tokens before the place, `strengths` int64,
    `keys` uint64: the smaller the better; strength first, then the hash of the text that follows.
    """

    positions: IntArray
    tokens: IntArray
    strengths: IntArray
    keys: KeyArray


_HASHED_CHARS = 48
"""How much text after a boundary its hash reads: enough that few sentences of a document share it,
and little, so that an edit late in a sentence does not move the cut before it."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_STRENGTH_SHIFT = np.uint64(59)
_HASH_BITS = np.uint64((1 << 59) - 1)
_CLAUSE_MARKS = np.array([ord(mark) for mark in ",;:—–、，；："], dtype=np.uint32)
_FIRST_WIDE_MARK = 0x3000
"""From here on marks need no space after them."""
_FIRST_COMBINING = 0x0300
_LINE_KINDS = frozenset({"code", "table"})
_PLAIN, _LINED, _TITLE = 0, 1, 2


def find_boundaries(
    text: str, blocks: Sequence[BlockLike], tokens: TokenIndex, *, max_gap_tokens: int
) -> Boundaries:
    """Every place where the document may be cut.

    Args:
        text: the document.
        blocks: its blocks in order; empty means that blank lines separate paragraphs.
        tokens: the token index of the text.
        max_gap_tokens: where sentence-like boundaries lie further apart than this, clauses, words
            and at last single tokens become candidates between them.

    Returns:
        The boundaries; linear in the text.
    """
    strengths = _strengths_by_position(text, blocks, tokens)
    positions = np.flatnonzero(strengths >= Strength.SENTENCE)
    edges = np.concatenate([[0], tokens.token_at(positions), [tokens.n_tokens]])
    wide_gaps = np.flatnonzero(np.diff(edges) > max_gap_tokens)
    starts = tokens.token_starts
    fine = [starts[edges[gap] + 1 : edges[gap + 1]] for gap in wide_gaps.tolist()]
    if fine:
        _mark_fine(tokens, strengths, np.concatenate(fine))
        positions = np.flatnonzero(strengths >= Strength.TOKEN)
    return _boundaries(tokens, positions, strengths[positions].astype(np.int64))


def heading_strength(level: int | None) -> int:
    """The strength of the boundary before a heading; one without level is the weakest."""
    return Strength.HEADING + 6 - min(max(level or 6, 1), 6) + (level is not None)


def _strengths_by_position(
    text: str, blocks: Sequence[BlockLike], tokens: TokenIndex
) -> npt.NDArray[np.int8]:
    """(n_chars + 1,) int8: the strength of a cut before each character, -1 where there is none."""
    strengths = np.full(len(text) + 1, -1, dtype=np.int8)
    kinds = _kinds_by_block(blocks)
    starts = np.array([block.start_char for block in blocks], dtype=np.int64)
    _mark_lines(tokens, strengths, starts, kinds)
    sentences = np.array(sentence_starts(text), dtype=np.int64)
    _raise_to(strengths, sentences[_kind_at(sentences, starts, kinds) == _PLAIN], Strength.SENTENCE)
    for previous, block in itertools.pairwise(blocks):
        start = int(tokens.next_word[block.start_char])
        strengths[start] = _strength_between(text, previous, block)
    strengths[: int(tokens.next_word[0]) + 1] = -1
    strengths[len(text)] = -1
    return strengths


def _kinds_by_block(blocks: Sequence[BlockLike]) -> IntArray:
    kinds = [
        _LINED if block.kind in _LINE_KINDS else _TITLE if block.kind == "title" else _PLAIN
        for block in blocks
    ]
    return np.array(kinds, dtype=np.int64)


def _kind_at(positions: IntArray, starts: IntArray, kinds: IntArray) -> IntArray:
    """The kind of the block around each position; plain outside of all blocks."""
    if not starts.size:
        return np.zeros(positions.size, dtype=np.int64)
    block = np.searchsorted(starts, positions, side="right") - 1
    return np.where(block >= 0, kinds[block], _PLAIN)


def _mark_lines(
    tokens: TokenIndex, strengths: npt.NDArray[np.int8], starts: IntArray, kinds: IntArray
) -> None:
    """Line breaks: rows of code and tables are units, in running text only blank lines count."""
    breaks = np.flatnonzero(tokens.codes == ord("\n"))
    if not breaks.size:
        return
    following = tokens.next_word[breaks]
    is_blank = np.diff(following, append=-1) == 0
    kind = _kind_at(following, starts, kinds)
    _raise_to(strengths, following[(kind == _PLAIN) & is_blank], Strength.PARAGRAPH)
    _raise_to(strengths, following[(kind == _LINED) & ~is_blank], Strength.SENTENCE)
    _raise_to(strengths, following[(kind == _LINED) & is_blank], Strength.ITEM)


def _raise_to(strengths: npt.NDArray[np.int8], positions: IntArray, strength: int) -> None:
    strengths[positions] = np.maximum(strengths[positions], strength)


def _strength_between(text: str, previous: BlockLike, block: BlockLike) -> int:
    if previous.kind == "title":
        return Strength.WORD
    if block.kind == "title":
        return heading_strength(block.level)
    is_list = previous.kind == block.kind == "list_item"
    announces = text[max(0, previous.end_char - 2) : previous.end_char].rstrip()[-1:] in ":："
    return Strength.ITEM if is_list or announces or block.kind == "caption" else Strength.PARAGRAPH


def _mark_fine(tokens: TokenIndex, strengths: npt.NDArray[np.int8], positions: IntArray) -> None:
    """Clauses, words and tokens, where nothing better is near."""
    positions = positions[(strengths[positions] < 0) & (positions > tokens.next_word[0])]
    follows_space = tokens.is_space[positions - 1]
    _raise_to(strengths, positions[follows_space], Strength.WORD)
    inside = positions[~follows_space]
    _raise_to(strengths, inside[~_joins_characters(tokens, inside)], Strength.TOKEN)
    before = tokens.codes[positions - 1]
    mark = np.where(follows_space, tokens.codes[np.maximum(positions - 2, 0)], before)
    ends_clause = np.isin(mark, _CLAUSE_MARKS) & (follows_space | (mark >= _FIRST_WIDE_MARK))
    _raise_to(strengths, positions[ends_clause | (before == ord("\n"))], Strength.CLAUSE)


def _joins_characters(tokens: TokenIndex, positions: IntArray) -> npt.NDArray[np.bool_]:
    """Where a cut would tear a combining mark, a joined emoji or a skin tone from its base."""
    after, before = tokens.codes[positions], tokens.codes[positions - 1]
    rare = np.unique(after[after >= _FIRST_COMBINING])
    extenders = [code for code in rare.tolist() if extends_character(chr(code))]
    return np.isin(after, extenders) | (before == ord(JOINER))


def _boundaries(tokens: TokenIndex, positions: IntArray, strengths: IntArray) -> Boundaries:
    return Boundaries(
        positions=positions,
        tokens=tokens.token_at(positions),
        strengths=strengths,
        keys=rank_keys(strengths, hash_following(tokens.codes, positions)),
    )


def rank_keys(strengths: IntArray, hashes: KeyArray) -> KeyArray:
    """(n,) uint64 keys that order by strength, the greatest first, then by the hash."""
    ranks = (np.uint64(31) - strengths.astype(np.uint64)) << _STRENGTH_SHIFT
    return ranks | (hashes & _HASH_BITS)


def hash_following(codes: npt.NDArray[np.uint32], positions: IntArray) -> KeyArray:
    """(n_positions,) uint64: a hash of the characters that follow each position.

    A polynomial hash, mixed, since the low bits of a product modulo 2**64 know little of its
    factors.

    Source: Karp and Rabin 1987 (polynomial hashes of windows); Steele, Lea and Flood 2014
    (SplitMix, the mixing constants).
    """
    mixed = _mix(codes.astype(np.uint64) + _PRIME)
    values = np.zeros(positions.size, dtype=np.uint64)
    padded = np.append(mixed, np.zeros(_HASHED_CHARS, dtype=np.uint64))
    for distance in range(_HASHED_CHARS):
        values = values * _PRIME + padded[positions + distance]
    return _mix(values)


def _mix(values: KeyArray) -> KeyArray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
