"""What a build takes: time from measured speed, money from prices, bytes from sizes. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

from ragassets.core.store_locations import StoreKind

FLOAT_BYTES = 4

DEFAULT_TOKENS_PER_SECOND = 4_000.0
"""Until something was measured: the bundled model on two CPU cores (docs/benchmarks.md: 20 chunks
of about 200 tokens a second). A GPU is one to two orders faster."""

POINTS_PER_SECOND = 1_000.0
"""That the embedded engine is given on two cores, tables and verification included
(docs/benchmarks.md, `indexed_chunks`)."""

# Bytes on disk, fitted to builds of 23 to 6,000 chunks of 100 to 850 bytes (zstd at level 1).

FILE_BYTES = {"chunks": 8_300, "embeddings": 5_100, "indexed_chunks": 5_700, "intents": 2_000}
"""Of a table's file and its line in the log, besides rows: each source shard has one."""

ROW_BYTES = {"chunks": 62, "embeddings": 58, "indexed_chunks": 95, "intents": 21}
"""Of the ids, hashes and short strings of a row."""

VECTOR_COMPRESSION = 0.94
"""Of float32 components: only their exponents repeat."""

TEXT_COMPRESSION = 0.38
"""Of a byte of prose of real projects; text that repeats itself takes half of that."""

LEDGER_BYTES = 18_000
BUILD_BYTES = 13_000
"""Of what a build notes about itself: settings, windows, when the ledger was looked at."""

# The embedded engine, fitted to collections of 1 to 60,000 points. Bytes are blocks in use: its
# files are sparse and look 200 MB large from the first point on (`ls`, not `du`).

COLLECTION_BYTES = 320_000
"""Of a collection with its first points; pages that are not full."""

PAYLOAD_BYTES = 500
"""Of a payload besides the text."""

PAYLOAD_TEXT = 0.59
"""Of a byte of text in a payload: the engine packs it with LZ4."""

SPARSE_BYTES, SPARSE_TEXT = 115.0, 0.667
"""BM25 terms of a point: a base, and for each byte of text."""

INDEX_BYTES = 167
"""Of id, version and payload indexes."""

LOGGED_BYTES, LOGGED_FLOAT_BYTES, LOGGED_TEXT, LOGGED_SPARSE_TEXT = 410, 5, 1.0, 0.83
"""A point in the write-ahead log: a base, a component, a byte of text, and of text with terms."""

OTHER_POINT_BYTES: Mapping[StoreKind, int] = {
    "faiss": 2_000,
    "chroma": 4_400,
    "chroma-server": 4_400,
    "pinecone": 1_500,
}
"""A point in other stores besides vector and text. FAISS: 3.9 KB in all at 384 dimensions and 360
bytes of text, measured on 10,000; above 100,000 its graph holds every vector once more. Chroma: 6.3
KB, measured on 5,000. Pinecone: the metadata that are sent, since it bills by them."""

LOG_SEGMENT_BYTES = 32_768_000
"""The log keeps its last whole segment beside the one that is written."""


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


@dataclass(frozen=True)
class Rewrite:
    """What a build writes: whole files of the source shards in which anything changes."""

    n_chunks: float
    """Rows of `chunks` in them, old and new."""
    n_vectors: float
    n_points: float
    """Rows of `embeddings` and of `indexed_chunks`."""
    n_texts: float
    """New rows of the vector ledger."""
    n_new_points: float
    """That are named as intended before they are written."""
    text_bytes: float
    """Of the chunks."""
    n_shards: int
    dim: int


def table_bytes(rewrite: Rewrite) -> int:
    """Bytes that tables grow by; files of earlier versions stay until maintenance deletes them."""
    vector = rewrite.dim * FLOAT_BYTES * VECTOR_COMPRESSION
    rows = {
        "chunks": rewrite.n_chunks,
        "embeddings": rewrite.n_vectors,
        "indexed_chunks": rewrite.n_points,
        "intents": rewrite.n_new_points,
    }
    written = sum(
        n * ROW_BYTES[name] + rewrite.n_shards * FILE_BYTES[name] for name, n in rows.items() if n
    )
    written += rewrite.text_bytes * TEXT_COMPRESSION + rewrite.n_vectors * vector
    if rewrite.n_texts:
        written += LEDGER_BYTES + rewrite.n_texts * vector
    return round(written + BUILD_BYTES) if written else 0


def store_bytes(
    *,
    kind: StoreKind,
    n_points: float,
    n_standing: float,
    text_bytes: float,
    dim: int,
    has_sparse: bool,
) -> int:
    """Bytes that the vector store grows by, without an approximate index.

    Args:
        kind: Of store; a Qdrant server is taken for the embedded engine, which is its own.
        n_points: That are written.
        n_standing: That are there.
        text_bytes: Of the points that are written.
        dim: Of their vectors.
        has_sparse: Whether they have BM25 terms.
    """
    if not n_points:
        return 0
    if kind in OTHER_POINT_BYTES:
        return round(n_points * (dim * FLOAT_BYTES + OTHER_POINT_BYTES[kind]) + text_bytes)
    text = text_bytes / n_points
    point = dim * FLOAT_BYTES + INDEX_BYTES + PAYLOAD_BYTES + PAYLOAD_TEXT * text
    logged = LOGGED_BYTES + dim * LOGGED_FLOAT_BYTES + LOGGED_TEXT * text
    if has_sparse:
        point += SPARSE_BYTES + SPARSE_TEXT * text
        logged += LOGGED_SPARSE_TEXT * text
    log = _kept_log((n_standing + n_points) * logged) - _kept_log(n_standing * logged)
    fixed = 0 if n_standing else COLLECTION_BYTES
    return round(fixed + n_points * point + max(0.0, log))


def _kept_log(n_bytes: float) -> float:
    """What is left on disk of a write-ahead log of so many bytes."""
    if n_bytes < LOG_SEGMENT_BYTES:
        return n_bytes
    return LOG_SEGMENT_BYTES + n_bytes % LOG_SEGMENT_BYTES
