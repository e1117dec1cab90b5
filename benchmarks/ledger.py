"""What it costs to look up the texts of one new document, among more and more vectors."""

import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.vector_ledger import VectorLedger
from ragassets.core.asset_tables import EMBEDDINGS
from ragassets.core.stages import SHARD
from ragassets.core.vector_ledger import VECTOR_LEDGER

TITLE = "Vector ledger: the lookup of one new document"
SIZES = (20_000, 200_000)
DIM = 384
N_TEXTS = 20
"""Chunks of a document of about 4,000 words."""
PART = 10_000
N_SHARDS = 16
REPEATS = 15
SET = "recursive-256.minilm"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def measure() -> list[str]:
    """Lookup of texts that nobody has, and of known ones, against the scan of all input hashes."""
    folder = Path(tempfile.mkdtemp(prefix="ragassets-ledger-"))
    try:
        rows = [_measure(folder / str(size), size) for size in SIZES]
    finally:
        shutil.rmtree(folder)
    growth = rows[-1]["missing"] / rows[0]["missing"]
    scan_growth = rows[-1]["scan"] / rows[0]["scan"]
    header = (
        "vectors",
        "ledger files",
        "largest partition",
        "texts nobody has",
        "known texts, with vectors",
        "baseline",
        "baseline / ledger",
    )
    return [
        (
            f"{N_TEXTS} texts; medians of {REPEATS}, interleaved. Baseline: the scan of all input"
            " hashes of the embedding set, which the ledger replaced."
        ),
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(
            f"| {size:,} | {row['n_files']:.0f} | {row['largest_mb']:.1f} MB |"
            f" {row['missing']:.1f} ms | {row['known']:.1f} ms | {row['scan']:.1f} ms |"
            f" {row['scan'] / row['missing']:.1f} |"
            for size, row in zip(SIZES, rows, strict=True)
        ),
        "",
        (
            f"With {SIZES[-1] // SIZES[0]} times the vectors the lookup takes {growth:.1f} times as"
            f" long, the scan {scan_growth:.1f} times."
        ),
    ]


def _measure(folder: Path, size: int) -> dict[str, float]:
    rng = np.random.default_rng(1)
    tables = DeltaTables(str(folder))
    ledger = VectorLedger(tables)
    known: list[str] = []
    for start in range(0, size, PART):
        names = [rng.bytes(16).hex() for _ in range(PART)]
        vectors = rng.normal(size=(PART, DIM)).astype(np.float32)
        column = pl.Series("vector", vectors).cast(pl.List(pl.Float32))
        ledger.add("m", pl.DataFrame({"text_hash": names}).with_columns(column), now=NOW)
        _add_embeddings(tables, names, column, f"s-{start // PART % N_SHARDS:03d}")
        known += names[:3]
    missing = [rng.bytes(16).hex() for _ in range(N_TEXTS)]
    present = known[:: max(1, len(known) // N_TEXTS)][:N_TEXTS]
    is_wanted = pl.col("input_hash").is_in(missing)

    def scan() -> None:
        tables.read(
            EMBEDDINGS.outputs,
            [{"embedding_set": SET}],
            columns=["input_hash", SHARD],
            where=is_wanted,
        )

    seconds = _interleaved(
        {
            "missing": lambda: ledger.vectors("m", missing),
            "known": lambda: ledger.vectors("m", present),
            "scan": scan,
        }
    )
    sizes = tables.partition_sizes(tables.snapshot(VECTOR_LEDGER))
    return {name: 1000 * value for name, value in seconds.items()} | {
        "n_files": float(sizes["n_files"].sum()),
        "largest_mb": float(sizes["n_bytes"].max()) / 1e6,
    }


def _add_embeddings(tables: DeltaTables, names: list[str], column: pl.Series, shard: str) -> None:
    rows = pl.DataFrame({"chunk_id": names, "input_hash": names}).with_columns(
        column, pl.lit(shard).alias(SHARD), pl.lit(SET).alias("embedding_set")
    )
    tables.append(EMBEDDINGS.outputs, rows)


def _interleaved(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, taken in turns, after one round that nobody counts."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(REPEATS + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if number:
                taken[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in taken.items()}
