"""Splitting clean text into chunks that fit an embedding model, and naming them.

The strategies share one splitter (`chunk_boundaries` says where a cut may be, `chunk_cuts` chooses)
and differ in what they tell it; only `fixed` counts windows from the start. Everything but `fixed`
is edit-stable: one changed paragraph gives one new chunk or two, seldom three and hardly ever four
(`chunk_cuts.MARGIN_SHARE` has the figures), wherever it stands in the document.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragassets.core.chunk_boundaries import BlockLike
from ragassets.core.chunk_spans import Limits, Span, split_fixed, split_structured
from ragassets.core.chunk_tokens import IntArray, TokenIndex, Tokenizer
from ragassets.core.section_headings import SectionHeadings
from ragassets.core.settings import ChunkingConfig
from ragassets.errors import StageError


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """Where a chunk lies: its text is `text[start_char:end_char]`, the overlap included."""

    start_char: int
    end_char: int
    n_tokens: int
    """As the tokenizer counts the chunk's text, without special tokens."""
    page: int | None
    """Of the first block that is the chunk's own, not overlap."""
    headings: tuple[str, ...]
    """The titles above the chunk and those it begins with, outermost first."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of one document, named by its document and its text."""

    chunk_id: str
    text: str
    text_hash: str
    n_tokens: int
    start_char: int
    end_char: int
    page: int | None
    headings: tuple[str, ...]
    ordinal: int
    """Its place in the document, from 0. Not part of the id."""


def split_document(
    text: str,
    blocks: Sequence[BlockLike],
    config: ChunkingConfig,
    tokenizer: Tokenizer,
    *,
    offsets: IntArray | None = None,
) -> list[ChunkSpan]:
    """The chunks of a text, in order.

    Every character but white space is in at least one chunk, and no chunk with its special tokens
    holds more than `max_tokens`. A text that fits is one chunk.

    Args:
        text: clean text.
        blocks: its blocks, in order, not overlapping; empty for text without known structure.
        config: strategy and sizes.
        tokenizer: counts the tokens.
        offsets: the tokenizer's offsets of the text, if they are known already.

    Returns:
        The spans; empty when the text holds no token at all.
    """
    tokens = TokenIndex(text, tokenizer.offsets(text) if offsets is None else offsets)
    if not tokens.n_tokens:
        return []
    limits = Limits(config.max_tokens - tokenizer.n_special_tokens, config.overlap_tokens)
    if config.strategy == "fixed":
        spans = split_fixed(tokens, tokenizer, limits)
    else:
        spans = split_structured(blocks, tokens, tokenizer, limits, strategy=config.strategy)
    return _with_places(text, blocks, spans)


def _with_places(text: str, blocks: Sequence[BlockLike], spans: Sequence[Span]) -> list[ChunkSpan]:
    headings = SectionHeadings(text, blocks)
    starts = np.array([block.start_char for block in blocks], dtype=np.int64)
    own_starts = [span.own_start_char for span in spans]
    at: list[int] = (np.searchsorted(starts, own_starts, side="right") - 1).tolist()
    return [
        ChunkSpan(
            start_char=span.start_char,
            end_char=span.end_char,
            n_tokens=span.n_tokens,
            page=blocks[block].page if block >= 0 else None,
            headings=headings.at_block(block),
        )
        for span, block in zip(spans, at, strict=True)
    ]


def chunk_id(document_id: str, text: str, occurrence: int) -> str:
    """The id of a chunk: 32 hex characters.

    Args:
        document_id: the chunk's document.
        text: the chunk's text.
        occurrence: how many chunks of the same text come before it in the document.
    """
    named = f"{document_id}\0{occurrence}\0{text}"
    return hashlib.blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def chunk_document(
    document_id: str,
    text: str,
    blocks: Sequence[BlockLike],
    config: ChunkingConfig,
    tokenizer: Tokenizer,
    *,
    offsets: IntArray | None = None,
) -> list[Chunk]:
    """The chunks of a document; where its own chunking gives none, those of the fallbacks.

    The fallbacks are the same strategy at the default size, then the sentence strategy.

    Raises:
        StageError: no method gives a chunk, since the text holds nothing that the model would read.
    """
    for candidate in (config, *_fallbacks(config)):
        spans = split_document(text, blocks, candidate, tokenizer, offsets=offsets)
        if spans:
            return _named(document_id, text, spans)
    detail = f"no method gives a chunk of its {len(text)} characters; is there any text in it?"
    raise StageError(stage="chunks", subject=document_id, detail=detail)


def _fallbacks(config: ChunkingConfig) -> tuple[ChunkingConfig, ChunkingConfig]:
    default_size = ChunkingConfig(strategy=config.strategy, tokenizer=config.tokenizer)
    return default_size, ChunkingConfig(strategy="sentence", tokenizer=config.tokenizer)


def _named(document_id: str, text: str, spans: Sequence[ChunkSpan]) -> list[Chunk]:
    n_seen: Counter[str] = Counter()
    chunks: list[Chunk] = []
    for ordinal, span in enumerate(spans):
        chunk_text = text[span.start_char : span.end_char]
        data = chunk_text.encode("utf-8", "surrogatepass")
        text_hash = hashlib.blake2b(data, digest_size=16).hexdigest()
        chunks.append(
            Chunk(
                chunk_id=chunk_id(document_id, chunk_text, n_seen[text_hash]),
                text=chunk_text,
                text_hash=text_hash,
                n_tokens=span.n_tokens,
                start_char=span.start_char,
                end_char=span.end_char,
                page=span.page,
                headings=span.headings,
                ordinal=ordinal,
            )
        )
        n_seen[text_hash] += 1
    return chunks
