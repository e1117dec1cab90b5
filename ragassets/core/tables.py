"""What a table is, and what a store of tables promises; no store lives here.

Every asset keeps its rows in one table. The partition dimensions of the asset are the partition
columns of the table, and a commit replaces whole partitions, so a table is always a set of complete
partitions. `ragassets.adapters.tables` holds the Delta Lake implementation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import polars as pl

from ragassets.errors import StageError

Partition = Mapping[str, str]
"""Partition column to value, for example `{"source_shard": "handbook-000", "chunking": "a"}`.

For a write every partition column is named; for a read some may be left out, which means "any"."""

PartitionKey = tuple[str, ...]
"""The values of one complete partition, in the order of `TableSpec.partition_by`."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The name, columns and partitioning of one table.

    Raises:
        ValueError: `partition_by` or `key` names a column that `schema` lacks, or a partition
            column is not `pl.String`.
    """

    name: str
    schema: pl.Schema
    """All columns, partition columns included, in the order in which readers get them."""
    partition_by: tuple[str, ...]
    key: str
    """The column that identifies a row inside a partition."""
    row_group_rows: int | None = None
    """Rows that a reader must take together; None leaves it to the store. Small groups make it
    cheap to look a few keys up, where the rows of a write are sorted by key."""

    def __post_init__(self) -> None:
        """Refuse a spec that no table can have."""
        for column in (*self.partition_by, self.key):
            if column not in self.schema:
                msg = f"table {self.name!r} has no column {column!r}"
                raise ValueError(msg)
        for column in self.partition_by:
            if self.schema[column] != pl.String:
                msg = f"table {self.name!r}: partition column {column!r} must be a String"
                raise ValueError(msg)

    def empty_frame(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A frame without rows that has the columns asked for (all of them when `None`)."""
        names = list(self.schema) if columns is None else list(columns)
        return pl.DataFrame(schema={name: self.schema[name] for name in names})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table as one reader saw it; the base that a later `replace` is checked against."""

    spec: TableSpec
    version: int | None
    """The commit that was read, or `None` when there was no table yet."""
    handle: object = field(default=None, repr=False, compare=False)
    """What the store keeps to read this version again; nobody else looks inside."""


@runtime_checkable
class Tables(Protocol):
    """A store of partitioned tables with atomic, conflict-checked replacement of partitions."""

    def read(
        self,
        spec: TableSpec,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the newest version: of all partitions when `None`, else of any one named.

        A table that does not exist gives an empty frame with the columns asked for; a column that
        an old table lacks is null. The order of rows is not defined.

        Raises:
            StorageUnavailableError: The store cannot be read.
        """
        ...

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Remember the newest version, or that there is no table yet."""
        ...

    def read_at(
        self,
        snapshot: Snapshot,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """As `read`, but of the version that the snapshot remembers."""
        ...

    def replace(
        self, snapshot: Snapshot, partitions: Sequence[Partition], frame: pl.DataFrame
    ) -> int:
        """Make `frame` the whole content of exactly these partitions, in one commit.

        Args:
            snapshot: What the caller read before it computed `frame`.
            partitions: Complete partitions; other partitions are left alone.
            frame: The new rows, all of them inside `partitions`. No rows empties the partitions.

        Returns:
            The version of the commit.

        Raises:
            ConcurrentWriteError: Somebody committed to one of these partitions after the snapshot.
                Nothing was written. Commits to other partitions do not disturb.
            StageError: A row lies outside `partitions`, or the frame does not fit the schema.
            StorageUnavailableError: The store cannot be written.
        """
        ...

    def tables(self) -> list[str]:
        """The names of the tables that exist, sorted."""
        ...


def partition_keys(spec: TableSpec, partitions: Sequence[Partition]) -> list[PartitionKey]:
    """The values of complete partitions, in the order of `spec.partition_by`, without repeats.

    Raises:
        StageError: No partition is given, or one lacks a column, names another one, or has an
            empty value. (The Delta protocol reads an empty partition value as null.)
    """
    if not partitions:
        raise StageError(stage="write", subject=spec.name, detail="no partition is named")
    keys: dict[PartitionKey, None] = {}
    for partition in partitions:
        if set(partition) != set(spec.partition_by) or not all(partition.values()):
            detail = f"a write needs a value for each of {spec.partition_by}, got {partition!r}"
            raise StageError(stage="write", subject=spec.name, detail=detail)
        keys[tuple(partition[column] for column in spec.partition_by)] = None
    return list(keys)


def conform(frame: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """The frame with the columns of the spec, in its order and types; a missing one is null.

    Columns that the spec does not have are dropped: a table may have been written by a newer
    version of the software.

    Raises:
        StageError: A column cannot be cast to its type.
    """
    columns = [
        pl.col(name) if name in frame.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in spec.schema.items()
    ]
    try:
        return frame.select(columns).cast(spec.schema)
    except pl.exceptions.PolarsError as error:
        detail = f"the rows do not fit the schema ({type(error).__name__})"
        raise StageError(stage="write", subject=spec.name, detail=detail) from error


def rows_inside(spec: TableSpec, keys: Sequence[PartitionKey], frame: pl.DataFrame) -> pl.DataFrame:
    """The frame itself, when every row lies in one of the partitions.

    Raises:
        StageError: A row lies outside.
    """
    if not spec.partition_by:
        return frame
    found = frame.select(spec.partition_by).unique().rows()
    allowed = set(keys)
    outside = [row for row in found if row not in allowed]
    if outside:
        detail = f"rows lie in {outside[0]!r}, outside the partitions to be replaced"
        raise StageError(stage="write", subject=spec.name, detail=detail)
    return frame


def partitions_filter(partitions: Sequence[Partition]) -> pl.Expr:
    """The rows of any of these partitions, complete or partial.

    Partitions that differ in one column become one `is_in`, which readers prune by far faster than
    a long chain of alternatives.
    """
    if not partitions:
        return pl.lit(value=False)
    alike: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for partition in partitions:
        if not partition:
            return pl.lit(value=True)
        ordered = sorted(partition.items())
        varying = max(partition, key=lambda column: len({p.get(column) for p in partitions}))
        rest = tuple(item for item in ordered if item[0] != varying)
        alike.setdefault((*rest, (varying, "")), {})[partition[varying]] = None
    return pl.any_horizontal(_group_filter(group, list(values)) for group, values in alike.items())


def _group_filter(group: tuple[tuple[str, str], ...], values: Sequence[str]) -> pl.Expr:
    """One alternative of `partitions_filter`: fixed columns, then the one that varies."""
    *fixed, (varying, _) = group
    conditions = [pl.col(column) == value for column, value in fixed]
    return pl.all_horizontal(*conditions, pl.col(varying).is_in(values))


class PinnedTables:
    """Tables as they were when each was first looked at: what one step of work reads is consistent.

    A step that read its inputs before somebody else's commit, and its own rows after it, would take
    back that commit without a conflict. So the tables that it writes are pinned first, and whatever
    it reads later, once or twice, comes from one version of each table.
    """

    def __init__(self, tables: Tables, *written: TableSpec) -> None:
        """Pin the tables that will be written; the others are pinned by their first read."""
        self._tables = tables
        self._snapshots = {spec.name: tables.snapshot(spec) for spec in written}

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """The pinned version of a table."""
        if spec.name not in self._snapshots:
            self._snapshots[spec.name] = self._tables.snapshot(spec)
        return self._snapshots[spec.name]

    def read(
        self,
        spec: TableSpec,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the pinned version; see `Tables.read`."""
        return self._tables.read_at(self.snapshot(spec), partitions, columns=columns, where=where)

    def read_at(
        self,
        snapshot: Snapshot,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """See `Tables.read_at`."""
        return self._tables.read_at(snapshot, partitions, columns=columns, where=where)

    def replace(
        self, snapshot: Snapshot, partitions: Sequence[Partition], frame: pl.DataFrame
    ) -> int:
        """See `Tables.replace`; the table is pinned anew by its next read."""
        version = self._tables.replace(snapshot, partitions, frame)
        self._snapshots.pop(snapshot.spec.name, None)
        return version

    def tables(self) -> list[str]:
        """See `Tables.tables`."""
        return self._tables.tables()
