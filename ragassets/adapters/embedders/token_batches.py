"""Texts to batches for a forward pass: tokenized once, ahead of the device, sorted by length.

`SentenceTransformer.encode` sorts by characters and pads 32 texts at a time to the longest of them.
Characters say little about tokens where languages and code are mixed: on the bulk corpus it
computes 36 % more tokens than there are. Sorted by tokens and bounded by a budget it is 1 to 6 %.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragassets.core.embedding import batch_by_tokens

TASK_TEXTS = 256
"""Texts of one call of the tokenizer: about 0.1 s, so that many threads share a slice evenly."""

SLICES_AHEAD = 2
"""One is computed from, one is being tokenized."""

TokenIds = NDArray[np.int64]

Prepare = Callable[[list[str]], "list[PreparedText]"]
"""Tokenizes texts; must be safe to call from several threads."""


@dataclass(frozen=True)
class PreparedText:
    """A text that is ready for a model."""

    text: str
    n_tokens: int
    token_ids: TokenIds
    """(n_tokens,) int64, special tokens included; empty where the model tokenizes by itself."""


@dataclass(frozen=True)
class TokenBatch:
    """Texts of one forward pass, longest first, and where their vectors belong."""

    positions: list[int]
    texts: list[PreparedText]

    @property
    def n_padded_tokens(self) -> int:
        """Tokens that the forward pass computes."""
        return self.texts[0].n_tokens * len(self.texts)

    def split(self, batch_tokens: int) -> "list[TokenBatch]":
        """The batch in parts within the budget; a text that is longer is a part of its own."""
        parts = batch_by_tokens([text.n_tokens for text in self.texts], batch_tokens=batch_tokens)
        return [
            TokenBatch([self.positions[i] for i in part], [self.texts[i] for i in part])
            for part in parts
        ]

    def pad(self, pad_id: int, *, on_the_left: bool = False) -> tuple[TokenIds, TokenIds]:
        """Token ids and attention mask, both (n_texts, longest) int64."""
        shape = (len(self.texts), self.texts[0].n_tokens)
        token_ids = np.full(shape, pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(self.texts):
            columns = slice(shape[1] - text.n_tokens, None) if on_the_left else slice(text.n_tokens)
            token_ids[row, columns] = text.token_ids
            mask[row, columns] = 1
        return token_ids, mask


def batches_ahead(
    texts: Sequence[str],
    prepare: Prepare,
    *,
    batch_tokens: int,
    slice_texts: int,
    n_threads: int,
) -> Generator[TokenBatch]:
    """Every text in exactly one batch, while threads tokenize what comes next.

    Texts are taken in the order of their characters, so that a slice holds similar ones; inside of
    a slice tokens decide. The batches follow from the texts alone, not from the threads' timing.

    Args:
        texts: any number.
        prepare: tokenizes some texts. Fast tokenizers release the interpreter's lock, so that the
            device is fed meanwhile.
        batch_tokens: the most tokens of a batch, padding included.
        slice_texts: texts that are sorted together; two slices are held at once.
        n_threads: how many calls of `prepare` run at once.
    """
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
    slices = deque(_cut(order, slice_texts))
    waiting: list[tuple[int, PreparedText]] = []
    with ThreadPoolExecutor(n_threads, thread_name_prefix="tokenize") as pool:
        ahead: deque[tuple[list[int], list[Future[list[PreparedText]]]]] = deque()
        try:
            while slices or ahead:
                while slices and len(ahead) < SLICES_AHEAD:
                    part = slices.popleft()
                    calls = [[texts[i] for i in positions] for positions in _cut(part, TASK_TEXTS)]
                    ahead.append((part, [pool.submit(prepare, call) for call in calls]))
                part, futures = ahead.popleft()
                prepared = [text for future in futures for text in future.result()]
                waiting += zip(part, prepared, strict=True)
                whole, waiting = _batch(waiting, batch_tokens, is_last=not (slices or ahead))
                yield from whole
        finally:
            for _, futures in ahead:
                for future in futures:
                    future.cancel()


def _cut(positions: list[int], size: int) -> list[list[int]]:
    return [positions[i : i + size] for i in range(0, len(positions), size)]


def _batch(
    rows: list[tuple[int, PreparedText]], batch_tokens: int, *, is_last: bool
) -> tuple[list[TokenBatch], list[tuple[int, PreparedText]]]:
    """Full batches, and the rows of the last one: it is filled up from the next slice."""
    batches = batch_by_tokens([text.n_tokens for _, text in rows], batch_tokens=batch_tokens)
    rest = [] if is_last else [rows[i] for i in batches.pop()]
    return [
        TokenBatch([rows[i][0] for i in batch], [rows[i][1] for i in batch]) for batch in batches
    ], rest
