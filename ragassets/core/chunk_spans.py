"""Spans of text that fit a token budget: segments between cuts, their overlap, and exact counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ragassets.core.chunk_boundaries import (
    BlockLike,
    Boundaries,
    Strength,
    find_boundaries,
    rank_keys,
)
from ragassets.core.chunk_cuts import find_cuts
from ragassets.core.chunk_tokens import IntArray, TokenIndex, Tokenizer

FINE_GAP_SHARE = 0.25
"""Sentences longer than this share of the budget may be cut inside. Less than the smallest window
in which a cut is sought, so that each window holds a candidate."""
MERGED_SECTION_SHARE = 0.5
"""Two neighbouring sections may share a chunk when each is at most this share of the budget."""


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk's place; `own_start_char` is where its own text begins, after the overlap."""

    start_char: int
    own_start_char: int
    end_char: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a chunk may be, without special tokens, and how much of it may be overlap."""

    budget_tokens: int
    overlap_tokens: int


def split_structured(
    blocks: Sequence[BlockLike],
    tokens: TokenIndex,
    tokenizer: Tokenizer,
    limits: Limits,
    *,
    strategy: Literal["recursive", "sentence", "by_title"],
) -> list[Span]:
    """Segments between content-defined cuts, each with the end of the one before it as overlap.

    A segment may fill the whole budget; the overlap takes what room is left. To reserve it in every
    chunk would give a sixth more chunks for the sake of the few that are full.
    """
    text, budget_tokens = tokens.text, limits.budget_tokens
    if tokens.n_tokens <= budget_tokens:
        return _fitted(tokens, tokenizer, [(0, 0, len(text))], budget_tokens)
    boundaries = find_boundaries(
        text, blocks, tokens, max_gap_tokens=int(budget_tokens * FINE_GAP_SHARE)
    )
    if strategy == "sentence":
        boundaries = _without_structure(boundaries)
    forced = _section_cuts(boundaries, budget_tokens) if strategy == "by_title" else None
    cuts = find_cuts(
        boundaries, n_tokens=tokens.n_tokens, budget_tokens=budget_tokens, forced=forced
    )
    edges = [0, *boundaries.positions[cuts].tolist(), len(text)]
    n_own_tokens = np.diff(boundaries.tokens[cuts], append=tokens.n_tokens)
    room = np.clip(budget_tokens - n_own_tokens, 0, limits.overlap_tokens)
    starts = _overlapped(tokens, boundaries, np.array(cuts, dtype=np.int64), room)
    spans = list(zip([0, *starts], edges[:-1], edges[1:], strict=True))
    return _fitted(tokens, tokenizer, spans, budget_tokens)


def split_fixed(tokens: TokenIndex, tokenizer: Tokenizer, limits: Limits) -> list[Span]:
    """Windows of tokens counted from the start, each end moved back to the nearest word start."""
    starts = tokens.token_starts
    is_word_start = np.append(tokens.is_space[starts[1:] - 1], True)
    word_starts = np.append(0, np.flatnonzero(is_word_start) + 1)
    spans: list[tuple[int, int, int]] = []
    first, own = 0, 0
    while own < starts.size:
        last = _back_to_word(word_starts, min(first + limits.budget_tokens, starts.size), own)
        end_char = int(starts[last]) if last < starts.size else len(tokens.text)
        start_char = int(starts[first]) if first else 0
        spans.append((start_char, int(starts[own]) if own else 0, end_char))
        own = last
        first = _on_to_word(word_starts, max(last - limits.overlap_tokens, 0), last)
    return _fitted(tokens, tokenizer, spans, limits.budget_tokens)


def _back_to_word(word_starts: IntArray, token: int, after: int) -> int:
    """The last word start at or before a token, or the token where there is none after `after`."""
    word = int(word_starts[np.searchsorted(word_starts, token, side="right") - 1])
    return word if word > after else token


def _on_to_word(word_starts: IntArray, token: int, limit: int) -> int:
    """The first word start at or after a token, or the token where there is none before `limit`."""
    index = int(np.searchsorted(word_starts, token, side="left"))
    return int(word_starts[index]) if word_starts[index] < limit else token


def _without_structure(boundaries: Boundaries) -> Boundaries:
    """The same places with headings, paragraphs and list items no better than sentences."""
    strengths = np.minimum(boundaries.strengths, Strength.SENTENCE)
    return replace(boundaries, strengths=strengths, keys=rank_keys(strengths, boundaries.keys))


def _section_cuts(boundaries: Boundaries, budget_tokens: int) -> npt.NDArray[np.bool_]:
    """The headings at which a section must begin a new chunk.

    A heading may be merged over when it continues at the level of the heading before it (the same
    parent) or below it, and both sections are small. That looks at two sections and no further.
    """
    forced = np.zeros(boundaries.positions.size, dtype=np.bool_)
    headings = np.flatnonzero(boundaries.strengths >= Strength.HEADING)
    if not headings.size:
        return forced
    sizes = np.diff(boundaries.tokens[headings], append=np.iinfo(np.int64).max)
    sizes_before = np.diff(boundaries.tokens[headings], prepend=0)
    levels = boundaries.strengths[headings]
    goes_up = np.diff(levels, prepend=Strength.HEADING) > 0
    limit = budget_tokens * MERGED_SECTION_SHARE
    forced[headings] = goes_up | (sizes > limit) | (sizes_before > limit)
    return forced


def _overlapped(
    tokens: TokenIndex, boundaries: Boundaries, cuts: IntArray, room: IntArray
) -> list[int]:
    """Where the chunk after each cut begins: before the cut by up to its `room` in tokens.

    At the earliest sentence within reach that is of the same section, else at the earliest word.
    """
    sentences = boundaries.positions[boundaries.strengths >= Strength.SENTENCE]
    headings = boundaries.positions[boundaries.strengths >= Strength.HEADING]
    own_starts = boundaries.positions[cuts]
    first_tokens = np.maximum(boundaries.tokens[cuts] - room, 0)
    earliest = np.where(room > 0, tokens.token_starts[first_tokens], own_starts)
    section = np.append(0, headings)[np.searchsorted(headings, own_starts, side="right")]
    earliest = np.maximum(earliest, section)
    following = np.append(sentences, len(tokens.text))[np.searchsorted(sentences, earliest)]
    return [
        sentence if sentence < own_start else _word_between(tokens, start, own_start)
        for sentence, start, own_start in zip(
            following.tolist(), earliest.tolist(), own_starts.tolist(), strict=True
        )
    ]


def _word_between(tokens: TokenIndex, earliest: int, end: int) -> int:
    """The first word that begins in a range; where none does, the first whole character."""
    if earliest == 0 or tokens.is_space[earliest - 1]:
        return earliest
    spaces = np.flatnonzero(tokens.is_space[earliest:end])
    if not spaces.size:
        return tokens.character_from(earliest, end)
    return min(int(tokens.next_word[earliest + int(spaces[0])]), end)


def _fitted(
    tokens: TokenIndex,
    tokenizer: Tokenizer,
    spans: Sequence[tuple[int, int, int]],
    budget_tokens: int,
) -> list[Span]:
    """The spans without the white space around them, counted exactly, and split where too large."""
    trimmed = [_trimmed(tokens, *span) for span in spans]
    counts = _exact_counts(tokens, tokenizer, trimmed)
    fitted: list[Span] = []
    for (start, own, end), n_tokens in zip(trimmed, counts, strict=True):
        if n_tokens <= budget_tokens:
            fitted.append(Span(start, own, end, n_tokens))
        elif start < own:
            fitted.extend(_fitted(tokens, tokenizer, [(own, own, end)], budget_tokens))
        else:
            halves = _halves(tokens, start, end)
            fitted.extend(_fitted(tokens, tokenizer, halves, budget_tokens))
    return [span for span in fitted if span.n_tokens]


def _trimmed(tokens: TokenIndex, start: int, own: int, end: int) -> tuple[int, int, int]:
    own = int(tokens.next_word[own])
    while end > own and tokens.is_space[end - 1]:
        end -= 1
    return min(int(tokens.next_word[start]), own), own, end


def _exact_counts(
    tokens: TokenIndex, tokenizer: Tokenizer, spans: Sequence[tuple[int, int, int]]
) -> list[int]:
    """The tokens of each span's own text; only spans that tear words are tokenized again."""
    counts = [tokens.count(start, end) for start, _, end in spans]
    unsure = [
        index
        for index, (start, _, end) in enumerate(spans)
        if not (
            tokenizer.counts_by_word and tokens.is_word_start(start) and tokens.is_word_start(end)
        )
    ]
    texts = [tokens.text[spans[index][0] : spans[index][2]] for index in unsure]
    for index, offsets in zip(unsure, tokenizer.offsets_batch(texts), strict=True):
        counts[index] = len(offsets)
    return counts


def _halves(tokens: TokenIndex, start: int, end: int) -> list[tuple[int, int, int]]:
    """A span cut in two at the token nearest its middle, or at its middle character."""
    middle = (start + end) // 2
    inside = tokens.token_starts[
        np.searchsorted(tokens.token_starts, start, side="right") : np.searchsorted(
            tokens.token_starts, end, side="left"
        )
    ]
    if inside.size:
        middle = int(inside[np.abs(inside - middle).argmin()])
    return [(start, start, middle), (middle, middle, end)]
