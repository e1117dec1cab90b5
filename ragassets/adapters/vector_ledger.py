"""The vector ledger on Delta tables: what `core/vector_ledger.py` describes, read and written.

Killed anywhere, the ledger is whole: rows are content-addressed, so that a row twice is as good as
once, and rows are copied to a new place before they leave the old one.
"""

from collections.abc import Collection, Iterator
from datetime import datetime

import polars as pl

from ragassets.adapters.tables import DeltaTables
from ragassets.core.vector_ledger import (
    BATCH_ROWS,
    ROOT,
    VECTOR_LEDGER,
    depth_below,
    depth_of,
    is_crowded,
    is_mergeable,
    places_of,
    prefix_at,
)
from ragassets.errors import ConcurrentWriteError

MAX_NODES = 32
"""Partitions that one write puts in order, 25 MB each; the others wait for the next write."""

MAX_ATTEMPTS = 5
"""Times that a text is taken out while others write to the same partitions."""


class VectorLedger:
    """Vectors by model and text hash."""

    def __init__(self, tables: DeltaTables) -> None:
        """Keep the vectors in these tables."""
        self._tables = tables

    def models(self) -> list[str]:
        """Fingerprints of the models that have vectors, sorted."""
        sizes = self._tables.partition_sizes(self._tables.snapshot(VECTOR_LEDGER))
        return sorted(sizes["model"].unique())

    def known(self, model: str, text_hashes: Collection[str]) -> set[str]:
        """Those of the texts that have a vector; no vector is read."""
        return set(self._read(model, text_hashes, ["text_hash"])["text_hash"])

    def vectors(self, model: str, text_hashes: Collection[str]) -> pl.DataFrame:
        """`text_hash` and `vector` of the texts that have one, each once."""
        # Hashes first: new texts are what a run looks up most, and their vectors are not there.
        known = self.known(model, text_hashes)
        rows = self._read(model, known, ["text_hash", "vector", "embedded_at"])
        # Of two that embedded a text at once, always the same one.
        return _unique(rows).select("text_hash", "vector")

    def add(self, model: str, rows: pl.DataFrame, *, now: datetime) -> None:
        """Keep vectors, then put the partitions in order that they went to.

        Args:
            model: Fingerprint of the model.
            rows: `text_hash` and `vector`, not in the ledger yet.
            now: When they were embedded.

        Raises:
            StorageUnavailableError: The store cannot be written.
        """
        if rows.is_empty():
            return
        added = rows.with_columns(
            pl.lit(model).alias("model"),
            prefix_at(depth_of(rows.height)).alias("prefix"),
            pl.lit(now).alias("embedded_at"),
        )
        self._tables.append(VECTOR_LEDGER, added.sort("text_hash"))
        self.compact(model)

    def compact(self, model: str, *, max_nodes: int = MAX_NODES) -> int:
        """Put partitions of too many files in order, the fullest first; how many."""
        n_done = 0
        try:
            while (
                n_done < max_nodes and (crowded := self._crowded(model, max_nodes - n_done)).height
            ):
                for prefix, n_rows in crowded.filter(~is_mergeable())["prefix", "n_rows"].rows():
                    self._push_down(model, prefix, n_rows)
                for prefixes in _batches(crowded.filter(is_mergeable())):
                    self._merge(model, prefixes)
                n_done += crowded.height
        except ConcurrentWriteError:
            pass  # somebody else is at it; the next write tries again
        return n_done

    def forget(self, text_hashes: Collection[str], *, model: str | None = None) -> int:
        """Take the vectors of these texts out, of one model or of all; how many rows went.

        Files of earlier versions of the table hold them until `DeltaTables.maintain` deletes those.

        Raises:
            ConcurrentWriteError: Others wrote to the same partitions all the while.
        """
        models = self.models() if model is None else [model]
        return sum(self._forget(name, frozenset(text_hashes)) for name in models)

    def hashes(self, model: str) -> Iterator[pl.DataFrame]:
        """`text_hash` of all vectors of a model, a partition at a time; some may come twice."""
        snapshot = self._tables.snapshot(VECTOR_LEDGER)
        sizes = self._tables.partition_sizes(snapshot).filter(pl.col("model") == model)
        for prefix in sizes["prefix"].sort():
            place = {"model": model, "prefix": prefix}
            yield self._tables.read_at(snapshot, [place], columns=["text_hash"])

    def _read(self, model: str, text_hashes: Collection[str], columns: list[str]) -> pl.DataFrame:
        """Rows of these texts. Files and row groups without any are skipped by their statistics."""
        hashes = sorted(text_hashes)
        if not hashes:
            return VECTOR_LEDGER.empty_frame(columns)
        return self._tables.read(
            VECTOR_LEDGER,
            [{"model": model, "prefix": prefix} for prefix in places_of(hashes)],
            columns=columns,
            where=pl.col("text_hash").is_in(hashes),
        )

    def _crowded(self, model: str, max_nodes: int) -> pl.DataFrame:
        """Sizes of the partitions that have too many files, those with the most first."""
        sizes = self._tables.partition_sizes(self._tables.snapshot(VECTOR_LEDGER))
        crowded = sizes.filter((pl.col("model") == model) & is_crowded())
        return crowded.sort("n_files", "prefix", descending=[True, False]).head(max_nodes)

    def _merge(self, model: str, prefixes: list[str]) -> None:
        """Make each partition one sorted file, in one commit."""
        places = [{"model": model, "prefix": prefix} for prefix in prefixes]
        snapshot = self._tables.snapshot(VECTOR_LEDGER)
        rows = _unique(self._tables.read_at(snapshot, places), "prefix")
        self._tables.replace(snapshot, places, rows)

    def _push_down(self, model: str, prefix: str, n_rows: int) -> None:
        """Move the rows of a partition one digit down: first the copies, then the originals go."""
        place = {"model": model, "prefix": prefix}
        snapshot = self._tables.snapshot(VECTOR_LEDGER)
        above = "" if prefix == ROOT else prefix
        # All at once where memory allows, else a sixteenth at a time.
        for digits in [""] if n_rows <= BATCH_ROWS else "0123456789abcdef":
            is_below = pl.col("text_hash").str.starts_with(above + digits)
            rows = _unique(self._tables.read_at(snapshot, [place], where=is_below))
            lower = rows.with_columns(prefix_at(depth_below(prefix)).alias("prefix"))
            if lower.height:
                self._tables.append(VECTOR_LEDGER, lower)
        self._tables.replace(snapshot, [place], VECTOR_LEDGER.empty_frame())

    def _forget(self, model: str, text_hashes: Collection[str]) -> int:
        """Take texts out of a model's partitions, one after the other."""
        places = self._read(model, text_hashes, ["prefix"])["prefix"].unique().sort()
        return sum(self._forget_at(model, prefix, list(text_hashes)) for prefix in places)

    def _forget_at(self, model: str, prefix: str, text_hashes: list[str]) -> int:
        place = {"model": model, "prefix": prefix}
        for attempt in range(1, MAX_ATTEMPTS + 1):
            snapshot = self._tables.snapshot(VECTOR_LEDGER)
            rows = self._tables.read_at(snapshot, [place])
            kept = rows.filter(~pl.col("text_hash").is_in(text_hashes)).sort("text_hash")
            try:
                self._tables.replace(snapshot, [place], kept)
            except ConcurrentWriteError:
                if attempt == MAX_ATTEMPTS:
                    raise
            else:
                return rows.height - kept.height
        return 0


def _unique(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Each text once, or once for each value of the columns, sorted; of several rows the oldest."""
    ordered = rows.sort("text_hash", "embedded_at")
    return ordered.unique(["text_hash", *columns], keep="first", maintain_order=True)


def _batches(sizes: pl.DataFrame) -> list[list[str]]:
    """Prefixes of partitions in groups of `BATCH_ROWS` rows at most, at least one a group."""
    batches: list[list[str]] = []
    n_held = 0
    for prefix, n_rows in sizes["prefix", "n_rows"].rows():
        if not batches or n_held + n_rows > BATCH_ROWS:
            batches.append([])
            n_held = 0
        batches[-1].append(prefix)
        n_held += n_rows
    return batches
