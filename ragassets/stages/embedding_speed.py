"""How fast each model embeds, as its last runs have measured it: what a plan multiplies with."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime

import polars as pl

from ragassets.core.build_costs import DEFAULT_TOKENS_PER_SECOND, Speed
from ragassets.core.incremental import TIMESTAMP
from ragassets.core.tables import Tables, TableSpec
from ragassets.errors import ConcurrentWriteError

EMBEDDING_SPEED = TableSpec(
    "_embedding_speed",
    pl.Schema(
        {
            "model": pl.String(),
            "run_id": pl.String(),
            "n_texts": pl.Int64(),
            "n_tokens": pl.Int64(),
            "seconds": pl.Float64(),
            "measured_at": TIMESTAMP,
        }
    ),
    ("model",),
    "run_id",
)
"""`model` is the fingerprint of the embeddings stage under a model; tokens as chunks count them."""

KEPT_RUNS = 20
"""Enough to outvote a run on a busy machine, few enough to follow a change of hardware."""


class Stopwatch:
    """Adds up texts, tokens and seconds of one run's batches."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """Start at nothing."""
        self.now = now
        self.batches: list[tuple[int, int, float]] = []

    @contextmanager
    def timing(self, n_tokens: pl.Series) -> Generator[None]:
        """Time a batch with so many tokens in each of its texts."""
        started = self.now()
        yield
        seconds = (self.now() - started).total_seconds()
        self.batches.append((len(n_tokens), int(n_tokens.sum()), seconds))

    def totals(self) -> tuple[int, int, float]:
        """Texts, tokens and seconds, without the first of several batches: it loads the model."""
        counted = self.batches[1:] or self.batches
        texts, tokens, seconds = (list(part) for part in zip(*counted, strict=True))
        return sum(texts), sum(tokens), sum(seconds)


def record_speed(
    tables: Tables, model: str, stopwatch: Stopwatch, *, run_id: str, now: datetime
) -> None:
    """Keep what a run measured, beside that of the runs before it.

    Two runs that write at once lose one measurement, and so does a run that is killed before.
    """
    if not stopwatch.batches:
        return
    n_texts, n_tokens, seconds = stopwatch.totals()
    if seconds <= 0 or n_tokens <= 0:
        return
    snapshot = tables.snapshot(EMBEDDING_SPEED)
    earlier = tables.read_at(snapshot, [{"model": model}])
    row = (model, run_id, n_texts, n_tokens, seconds, now)
    added = pl.DataFrame([row], schema=EMBEDDING_SPEED.schema, orient="row")
    kept = pl.concat([earlier, added]).sort("measured_at", maintain_order=True).tail(KEPT_RUNS)
    try:
        tables.replace(snapshot, [{"model": model}], kept)
    except ConcurrentWriteError:
        return


def read_speed(tables: Tables, model: str) -> Speed:
    """Tokens a second over the last runs of a model, long runs counting for more."""
    rows = tables.read(EMBEDDING_SPEED, [{"model": model}], columns=["n_tokens", "seconds"])
    seconds = float(rows["seconds"].sum())
    if not seconds:
        return Speed(DEFAULT_TOKENS_PER_SECOND, is_measured=False)
    return Speed(float(rows["n_tokens"].sum()) / seconds, is_measured=True)
