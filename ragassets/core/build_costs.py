"""What a build takes: time from measured speed, money from prices, bytes from sizes. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

from ragassets.core.store_locations import StoreKind

FLOAT_BYTES = 4

DEFAULT_TOKENS_PER_SECOND = 4_000.0
"""Until something was measured: the bundled model on two CPU cores (docs/benchmarks.md: 20 chunks
of about 200 tokens a second). A GPU is one to two orders faster."""

ROW_BYTES = 250
"""Ids, hashes and URIs of a row, compressed: measured on `embeddings` with vectors left out."""

TEXT_COMPRESSION = 0.5
"""Bytes on disk of a byte of prose in a table: zstd at level 1."""

POINT_BYTES: Mapping[StoreKind, int] = {
    "edge": 1_100,
    "qdrant": 1_100,
    "faiss": 2_000,
    "chroma": 4_400,
    "chroma-server": 4_400,
    "pinecone": 1_500,
}
"""Payload besides the text, terms and indexes of a point. Embedded Qdrant: 3 KB a point of 384
dimensions with 360 bytes of text, measured on 100,000 points. FAISS: 3.9 KB of the same, measured
on 10,000; above 100,000 its graph holds every vector once more. Chroma: 6.3 KB,
measured on 5,000. Pinecone: the metadata that are sent, since it bills
by them."""


@dataclass(frozen=True)
class Speed:
    """How fast a model embeds."""

    tokens_per_second: float
    is_measured: bool
    """Else it is the default that the documentation states."""


@dataclass(frozen=True)
class Price:
    """What embedding costs; an API charges by the token, a machine of one's own by the hour."""

    usd_per_million_tokens: float | None
    usd_per_gpu_hour: float | None

    def of(self, n_tokens: float, seconds: float) -> float | None:
        """US dollars, or None where nobody said what it costs."""
        if self.usd_per_million_tokens is not None:
            return n_tokens / 1e6 * self.usd_per_million_tokens
        if self.usd_per_gpu_hour is not None:
            return seconds / 3600 * self.usd_per_gpu_hour
        return None


def table_bytes(
    *, n_chunks: float, n_vectors: float, n_texts: float, text_bytes: float, dim: int
) -> int:
    """Bytes that tables grow by.

    Args:
        n_chunks: New rows of `chunks`.
        n_vectors: New rows of `embeddings`, and of `indexed_chunks` without vectors.
        n_texts: New rows of the vector ledger.
        text_bytes: Of the new chunks.
        dim: Dimension of the vectors.
    """
    vector = dim * FLOAT_BYTES
    chunks = n_chunks * ROW_BYTES + text_bytes * TEXT_COMPRESSION
    return round(chunks + n_vectors * (vector + 2 * ROW_BYTES) + n_texts * vector)


def store_bytes(*, kind: StoreKind, n_points: float, text_bytes: float, dim: int) -> int:
    """Bytes that the vector store grows by."""
    return round(n_points * (dim * FLOAT_BYTES + POINT_BYTES[kind]) + text_bytes)
