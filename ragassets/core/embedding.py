"""What an embedding model is, and what sound vectors are; no model is loaded here."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragassets.errors import RagAssetsError

NORM_TOLERANCE = 1e-3
"""float16 inference leaves unit vectors off by up to about 5e-4; a wrong pooling or a missing
normalization is off by far more."""


class Embedder(Protocol):
    """Turns texts into vectors; the same text gives the same vector, whatever its batch."""

    @property
    def name(self) -> str:
        """The model's name in the configuration."""
        ...

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the vectors; not of the device or the batch size."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that count, special tokens included; the rest is cut off."""
        ...

    @property
    def window_texts(self) -> int:
        """Texts to hand over at once: enough to be fast, few enough to lose when a run is killed.

        The caller keeps a checkpoint after every window.
        """
        ...

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized; (0, dim) without texts."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized; (0, dim) without texts."""
        ...


@dataclasses.dataclass(frozen=True)
class EmbeddedTexts:
    """What an embedder made of some texts, each for itself."""

    vectors: NDArray[np.float32]
    """(n_texts, dim), L2-normalized; the rows of failures are zero."""
    failures: Mapping[int, RagAssetsError]
    """By position."""


@runtime_checkable
class EmbedsEach(Protocol):
    """An embedder that may fail on some texts and keep the others, as a service does."""

    def embed_each(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Embed documents; what says something of one text only is not raised."""
        ...


def validate_vectors(
    vectors: NDArray[np.float32], *, dim: int, is_normalized: bool = True
) -> list[str | None]:
    """Return for each row what is wrong with it, or None.

    Args:
        vectors: (n, any) float32.
        dim: the expected dimension.
        is_normalized: also require unit length, within `NORM_TOLERANCE`.
    """
    if vectors.shape[1:] != (dim,):
        actual = " x ".join(str(size) for size in vectors.shape[1:])
        return [f"has dimension {actual or 1} instead of {dim}"] * len(vectors)
    # float64, because the squares of large but finite float32 values overflow.
    norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    return [_length_problem(float(norm), is_normalized=is_normalized) for norm in norms]


def truncate_vectors(
    vectors: NDArray[np.float32] | NDArray[np.float64], *, dim: int
) -> NDArray[np.float32]:
    """Return the first `dim` components of each row, L2-normalized again; zero rows stay zero.

    Source: Kusupati et al., Matryoshka Representation Learning, https://arxiv.org/abs/2205.13147
    """
    head = vectors[:, :dim]
    norms = np.linalg.norm(head, axis=1, keepdims=True)
    return (head / np.where(norms > 0, norms, 1)).astype(np.float32)


def batch_by_tokens(n_tokens: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Return batches of positions, longest texts first, each within the budget after padding.

    Every position is in exactly one batch; a text longer than the budget is a batch of its own.
    Longest first, so that memory runs out on the first batch rather than on the last.
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(n_tokens)), key=lambda i: (-n_tokens[i], i)):
        batch = batches[-1] if batches else None
        if batch is not None and n_tokens[batch[0]] * (len(batch) + 1) <= batch_tokens:
            batch.append(position)
        else:
            batches.append([position])
    return batches


def batch_by_count(
    n_tokens: Sequence[int], *, batch_texts: int, batch_tokens: int
) -> list[list[int]]:
    """Return batches of consecutive positions, each within both limits.

    For services: they pad nothing, so texts of any length go together. A text longer than the
    budget is a batch of its own.
    """
    batches: list[list[int]] = []
    n_in_batch = 0
    for position, count in enumerate(n_tokens):
        is_full = bool(batches) and len(batches[-1]) == batch_texts
        if not batches or is_full or n_in_batch + count > batch_tokens:
            batches.append([])
            n_in_batch = 0
        batches[-1].append(position)
        n_in_batch += count
    return batches


ASCII_CHARS_PER_TOKEN = 3
OTHER_BYTES_PER_TOKEN = 2


def estimate_tokens(text: str) -> int:
    """Tokens of a text where its tokenizer is not at hand, meant to err on the high side.

    A token of three ASCII characters, or of two UTF-8 bytes of other scripts. English has four to
    five characters a token; a Chinese character, three bytes, has one to one and a half tokens. Too
    high sends smaller batches, too low meets a 429: no vector depends on it.
    """
    n_ascii = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    n_other_bytes = len(text.encode("utf-8", "surrogatepass")) - n_ascii
    return 1 + n_ascii // ASCII_CHARS_PER_TOKEN + n_other_bytes // OTHER_BYTES_PER_TOKEN


def _length_problem(norm: float, *, is_normalized: bool) -> str | None:
    if not math.isfinite(norm):  # NaN and infinity in any component reach the norm
        return "is not finite"
    # The smallest normal float32: below it an engine's float32 norm is zero.
    if norm < float(np.finfo(np.float32).tiny):
        return "is zero"
    if is_normalized and abs(norm - 1) > NORM_TOLERANCE:
        return f"has length {norm:.4g} instead of 1"
    return None
