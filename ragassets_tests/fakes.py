"""In-memory stand-ins for outside systems; deterministic, and they pass the contract tests."""

from collections.abc import Sequence

import polars as pl

from ragassets.core.tables import (
    Partition,
    Snapshot,
    TableSpec,
    conform,
    partition_keys,
    rows_inside,
)
from ragassets.errors import ConcurrentWriteError


class InMemoryTables:
    """`Tables` in a dictionary, with the same conflicts as the real store."""

    def __init__(self) -> None:
        """Start without tables."""
        self._versions: dict[str, list[dict[tuple[str, ...], pl.DataFrame]]] = {}
        self._last_writes: dict[str, dict[tuple[str, ...], int]] = {}

    def read(
        self,
        spec: TableSpec,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the newest version."""
        return self.read_at(self.snapshot(spec), partitions, columns=columns, where=where)

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """The newest version, counted per table from 0."""
        n_versions = len(self._versions.get(spec.name, []))
        return Snapshot(spec, n_versions - 1 if n_versions else None)

    def read_at(
        self,
        snapshot: Snapshot,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the snapshot's version."""
        spec = snapshot.spec
        if snapshot.version is None:
            return spec.empty_frame(columns)
        stored = self._versions[spec.name][snapshot.version]
        frames = [
            conform(frame, spec)
            for key, frame in stored.items()
            if partitions is None
            or any(
                all(key[spec.partition_by.index(c)] == v for c, v in partition.items())
                for partition in partitions
            )
        ]
        found = pl.concat([spec.empty_frame(), *frames])
        found = found if where is None else found.filter(where)
        return found if columns is None else found.select(columns)

    def replace(
        self, snapshot: Snapshot, partitions: Sequence[Partition], frame: pl.DataFrame
    ) -> int:
        """Replace partitions unless one of them changed after the snapshot."""
        spec = snapshot.spec
        keys = partition_keys(spec, partitions)
        frame = rows_inside(spec, keys, conform(frame, spec))
        last_writes = self._last_writes.setdefault(spec.name, {})
        base = -1 if snapshot.version is None else snapshot.version
        for key in keys:
            if last_writes.get(key, -1) > base:
                raise ConcurrentWriteError(table=spec.name, partition="|".join(key))
        history = self._versions.setdefault(spec.name, [])
        current = dict(history[-1]) if history else {}
        for key in keys:
            of_key = [pl.col(c) == v for c, v in zip(spec.partition_by, key, strict=True)]
            current[key] = frame.filter(*of_key)
            last_writes[key] = len(history)
        history.append(current)
        return len(history) - 1

    def tables(self) -> list[str]:
        """The names of the tables, sorted."""
        return sorted(self._versions)
