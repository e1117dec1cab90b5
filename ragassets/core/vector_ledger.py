"""Where the vectors of texts that were ever embedded are kept: rows, keys and the shape of it.

A vector is named by what decides it: the model (a fingerprint of its files, dimension, prompt and
dtype) and the text's hash. Nothing here knows documents, chunks or embedding sets, so a vector
serves whoever has that text next: a moved document, another chunking, one that comes back.

The rows of a model form a tree over the hex digits of the text's hash. A row lies at the root
(`ROOT`) or below it, in a partition named by the first digits of its hash; where it lies does not
matter for its meaning, and the same row twice is harmless. Every write is appended as one file a
partition, as deep as its size asks for. A partition of too many files is merged into one sorted
file while it is small, else pushed one digit down. So a write and a merge cost what is written, and
a lookup opens a few files a level: nothing grows with the corpus but the depth, by a digit for
sixteen times the rows.

Source: Bender et al. 2007, Cache-oblivious streaming B-trees, SPAA (the buffer tree: writes wait at
the root and move down in batches).
"""

from collections.abc import Iterable

import polars as pl

from ragassets.core.incremental import TIMESTAMP
from ragassets.core.tables import TableSpec

ROOT = "-"
"""Partition of the rows that were not pushed down; the Delta protocol knows no empty name."""

ROOT_ROWS = 4_096
"""Rows that the root is merged up to. Every run writes there: a merge costs 6 MB at 384 dimensions,
every eighth run."""

ROOT_FILES = 8
"""Files of the root before it is put in order."""

NODE_ROWS = 16_384
"""The same below the root, where rows arrive some hundred at a time: 25 MB a merge."""

NODE_FILES = 2
"""Files of a partition below the root: a lookup opens them in as many partitions as it has texts,
and a file costs more than the rows that are read of it."""

BATCH_ROWS = 65_536
"""Rows that are held while partitions are put in order: 100 MB at 384 dimensions."""

MAX_DEPTH = 4
"""65,536 leaves of 16,384 rows are a billion vectors; deeper, the log would name too many files."""

ROW_GROUP_ROWS = 256
"""What a lookup reads for one hash: 8 KB of hashes, and where it is found 400 KB of vectors."""

VECTOR_LEDGER = TableSpec(
    "_vector_ledger",
    pl.Schema(
        {
            "model": pl.String(),
            "prefix": pl.String(),
            "text_hash": pl.String(),
            "vector": pl.List(pl.Float32()),
            "embedded_at": TIMESTAMP,
        }
    ),
    ("model", "prefix"),
    "text_hash",
    ROW_GROUP_ROWS,
)
"""`model` is the fingerprint of the embeddings stage under a model, `text_hash` the chunk's."""

UNUSED_VECTORS = TableSpec(
    "_unused_vectors",
    pl.Schema({"model": pl.String(), "text_hash": pl.String(), "unused_since": TIMESTAMP}),
    ("model",),
    "text_hash",
)
"""Vectors in the ledger that no embedding has any more, and since when they were seen to be so."""

LEDGER_UPKEEP = TableSpec(
    "_vector_ledger_upkeep",
    pl.Schema({"task": pl.String(), "done_at": TIMESTAMP}),
    ("task",),
    "task",
)
"""When the ledger was last looked through."""


def depth_of(n_rows: int) -> int:
    """How many digits deep so many rows are written: partitions get `NODE_ROWS` at most."""
    depth = 0
    while n_rows > NODE_ROWS * 16**depth and depth < MAX_DEPTH:
        depth += 1
    return depth


def prefix_at(depth: int) -> pl.Expr:
    """The partition of every row at a depth, from its `text_hash`."""
    return pl.lit(ROOT) if depth == 0 else pl.col("text_hash").str.head(depth)


def is_crowded() -> pl.Expr:
    """Which partitions have too many files, from their `prefix` and `n_files`."""
    allowed = pl.when(pl.col("prefix") == ROOT).then(ROOT_FILES).otherwise(NODE_FILES)
    return pl.col("n_files") > allowed


def is_mergeable() -> pl.Expr:
    """Which partitions are merged rather than pushed down, from their `prefix` and `n_rows`."""
    is_root = pl.col("prefix") == ROOT
    allowed = pl.when(is_root).then(ROOT_ROWS).otherwise(NODE_ROWS)
    is_leaf = ~is_root & (pl.col("prefix").str.len_bytes() >= MAX_DEPTH)
    return is_leaf | (pl.col("n_rows") <= allowed)


def depth_below(prefix: str) -> int:
    """The depth of a partition's children."""
    return 1 if prefix == ROOT else len(prefix) + 1


def places_of(text_hashes: Iterable[str]) -> list[str]:
    """Every partition in which one of these texts may lie, sorted."""
    hashes = list(text_hashes)
    return sorted({ROOT, *(name[:d] for name in hashes for d in range(1, MAX_DEPTH + 1))})
