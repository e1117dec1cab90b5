"""Tables on Delta Lake: `deltalake` writes and checks for conflicts, Polars reads.

A replacement of partitions is one Delta commit. It also carries one application transaction per
partition, so that the log remembers which commit touched a partition last, even when that commit
left it empty. Two rules follow, and together they make a stale writer lose:

- before writing, the transactions of its partitions must be those of its snapshot;
- while writing, Delta refuses a commit that overlaps with one made in between.

Everything else that Delta refuses (a concurrent compaction, a new column) is tried again on the
newest version, because it does not touch what the writer read.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    TableNotFoundError,
)
from obstore.exceptions import BaseError

from ragassets.adapters.object_storage import MAX_RETRIES, open_root, storage_error
from ragassets.core.tables import (
    Partition,
    PartitionKey,
    Snapshot,
    TableSpec,
    conform,
    partition_keys,
    partitions_filter,
    rows_inside,
)
from ragassets.errors import ConcurrentWriteError, StageError

# A table is opened by its last checkpoint and the commits after it, about 0.2 ms each. Delta's own
# default of 100 doubles the time to open a busy table; a checkpoint of 1,000 files takes 40 ms.
CHECKPOINT_INTERVAL = 50

# Within one attempt Delta itself rebases on commits to other partitions. 15, its default, can run
# out when dozens of steps commit to one table at once.
MAX_REBASES = 100

# Attempts on a newer version after a conflict that did not touch our partitions.
MAX_ATTEMPTS = 5

# The same for rows that are only added: nothing was read, so nothing but haste is in the way.
MAX_APPENDS = 50

# Files that no commit names any more stay this long, for readers of older versions and for commits
# under way. Source: Delta Lake's default, https://docs.delta.io/latest/delta-utility.html#-delta-vacuum
RETENTION_HOURS = 168


class _ReadableTable(DeltaTable):
    """A Delta table whose local files Polars finds.

    `deltalake` 1.6 percent-encodes the folder of the table in the paths it hands out, and Polars
    2.1 opens them literally: below a root such as `My Documents` every read fails.
    """

    def file_uris(self, *args: Any, **kwargs: Any) -> list[str]:
        """The files of this version, a local path as the file system spells it."""
        uris = super().file_uris(*args, **kwargs)
        folder = self.table_uri.removeprefix("file://").rstrip("/")
        if not folder.startswith("/") or "%" not in folder:
            return uris
        return [unquote(folder) + uri.removeprefix(folder) for uri in uris]


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What one `DeltaTables.maintain` did."""

    n_files_compacted: int
    n_files_deleted: int


class DeltaTables:
    """Delta tables under `<root>/tables/<name>`, on local disk or an object store."""

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        """Open the tables below a root (see `open_root`).

        Args:
            root: A path or URI.
            storage_options: Added to what `open_root` says; for tests and unusual endpoints.
        """
        opened = open_root(root)
        self._store = opened.store
        self._uri = f"{opened.uri}/tables"
        self._options = {**opened.storage_options, **(storage_options or {})}

    def read(
        self,
        spec: TableSpec,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the newest version (see `Tables.read`); only files of `partitions` are opened."""
        return self.read_at(self.snapshot(spec), partitions, columns=columns, where=where)

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Remember the newest version, or that there is no table yet."""
        table = self._open(spec.name)
        return Snapshot(spec, None if table is None else table.version(), handle=table)

    def read_at(
        self,
        snapshot: Snapshot,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the snapshot's version (see `Tables.read_at`)."""
        spec = snapshot.spec
        table = self._table_of(snapshot)
        if table is None or (partitions is not None and not partitions):
            return spec.empty_frame(columns)
        with self._translated_errors(spec.name):
            # `deltalake` takes this option as text only, and Polars as a number only.
            rows = pl.scan_delta(table, storage_options={"max_retries": MAX_RETRIES})
            if partitions is not None:
                # First, on the bare scan: a filter behind a cast would not prune files.
                rows = rows.filter(partitions_filter(partitions))
            rows = _with_columns_of(spec, rows)
            rows = rows if where is None else rows.filter(where)
            return rows.select(list(spec.schema) if columns is None else list(columns)).collect()

    def replace(
        self, snapshot: Snapshot, partitions: Sequence[Partition], frame: pl.DataFrame
    ) -> int:
        """Make `frame` the whole content of these partitions, in one commit (see `Tables.replace`).

        A commit whose success the store did not confirm is reported as `ConcurrentWriteError` too;
        the next run finds it done.
        """
        spec = snapshot.spec
        keys = partition_keys(spec, partitions)
        rows = rows_inside(spec, keys, conform(frame, spec))
        refusal: CommitFailedError | None = None
        for _ in range(MAX_ATTEMPTS):
            with self._translated_errors(spec.name):
                table = self._open_or_create(spec)
                self._refuse_stale(snapshot, table, keys)
                _refuse_other_types(table, spec)
                try:
                    return _commit(table, spec, keys, rows)
                except CommitFailedError as error:
                    refusal = error
        raise ConcurrentWriteError(table=spec.name, partition=_label(keys)) from refusal

    def append(self, spec: TableSpec, frame: pl.DataFrame) -> int:
        """Add rows to whatever their partitions hold, in one commit; its version.

        Appends never conflict with each other. A `replace` of one of the partitions that was based
        on an earlier version loses, as it would against another `replace`.

        Raises:
            ConcurrentWriteError: Others committed to the partitions all the while.
            StageError: The frame does not fit the schema.
            StorageUnavailableError: The store cannot be written.
        """
        rows = conform(frame, spec)
        keys = [tuple(key) for key in rows.select(spec.partition_by).unique().iter_rows()]
        refusal: CommitFailedError | None = None
        for _ in range(MAX_APPENDS):
            with self._translated_errors(spec.name):
                table = self._open_or_create(spec)
                _refuse_other_types(table, spec)
                try:
                    return _append(table, spec, keys, rows)
                except CommitFailedError as error:
                    refusal = error
        raise ConcurrentWriteError(table=spec.name, partition=_label(keys)) from refusal

    def partition_sizes(self, snapshot: Snapshot) -> pl.DataFrame:
        """One row a partition that has files: its columns, `n_files`, `n_rows` and `n_bytes`.

        Read from the log alone.
        """
        spec = snapshot.spec
        table = self._table_of(snapshot)
        columns = [f"partition.{name}" for name in spec.partition_by]
        sizes = [
            pl.len().cast(pl.Int64).alias("n_files"),
            pl.col("num_records").sum().alias("n_rows"),
            pl.col("size_bytes").sum().alias("n_bytes"),
        ]
        schema = dict.fromkeys(columns, pl.String) | {"num_records": pl.Int64}
        files = pl.DataFrame(schema=schema | {"size_bytes": pl.Int64})
        if table is not None:
            with self._translated_errors(spec.name):
                actions = pl.DataFrame(table.get_add_actions(flatten=True))
            files = actions.select(files.columns) if actions.height else files
        return (
            files.group_by(columns)
            .agg(sizes)
            .rename({f"partition.{name}": name for name in spec.partition_by})
        )

    def tables(self) -> list[str]:
        """The names of the tables that exist, sorted."""
        with self._translated_errors("*"):
            folders = self._store.list_with_delimiter("tables")["common_prefixes"]
        names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
        return sorted(name for name in names if self._open(name) is not None)

    def file_names(self, name: str) -> set[str]:
        """The names, without folders, of the files that the newest version of a table names."""
        table = self._open(name)
        return set() if table is None else {u.rpartition("/")[2] for u in table.file_uris()}

    def maintain(
        self,
        spec: TableSpec,
        *,
        retention_hours: int = RETENTION_HOURS,
        compacts: bool = True,
    ) -> MaintenanceReport:
        """Merge small files, delete those that no version within the retention names, checkpoint.

        Safe beside readers and writers as long as no run takes longer than the retention.

        Args:
            spec: The table.
            retention_hours: How long files stay that the newest version does not name.
            compacts: Off for a table whose files are sorted: merging would mix their rows.
        """
        table = self._open(spec.name)
        if table is None:
            return MaintenanceReport(n_files_compacted=0, n_files_deleted=0)
        with self._translated_errors(spec.name):
            n_compacted = int(table.optimize.compact()["numFilesRemoved"]) if compacts else 0
            deleted = table.vacuum(
                retention_hours,
                dry_run=False,
                enforce_retention_duration=retention_hours >= RETENTION_HOURS,
                full=True,  # also the files of writers that were killed before their commit
            )
            table.create_checkpoint()
            table.cleanup_metadata()
        return MaintenanceReport(n_compacted, len(deleted))

    def _open(self, name: str, version: int | None = None) -> DeltaTable | None:
        """A version of a table (the newest when `None`), or `None` when there is no table."""
        with self._translated_errors(name):
            try:
                return _ReadableTable(
                    f"{self._uri}/{name}", version=version, storage_options=self._options
                )
            except TableNotFoundError:
                return None

    def _table_of(self, snapshot: Snapshot) -> DeltaTable | None:
        """The version that a snapshot remembers."""
        if snapshot.version is None:
            return None
        if isinstance(snapshot.handle, DeltaTable):
            return snapshot.handle
        return self._open(snapshot.spec.name, snapshot.version)

    def _open_or_create(self, spec: TableSpec) -> DeltaTable:
        """The newest version; a table that does not exist is created without rows."""
        table = self._open(spec.name)
        if table is not None:
            return table
        uri = f"{self._uri}/{spec.name}"
        try:
            write_deltalake(
                uri,
                spec.empty_frame(),
                mode="error",
                partition_by=list(spec.partition_by),
                configuration={
                    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),
                    # Only the key: statistics of text columns would bloat every log entry.
                    "delta.dataSkippingStatsColumns": spec.key,
                },
                storage_options=self._options,
            )
        except DeltaError:
            # Somebody else created it first, which is as good; any other cause fails below.
            created = self._open(spec.name)
            if created is None:
                raise
            return created
        return _ReadableTable(uri, storage_options=self._options)

    def _refuse_stale(
        self, snapshot: Snapshot, newest: DeltaTable, keys: Sequence[PartitionKey]
    ) -> None:
        """Raise when one of the partitions was written after the snapshot."""
        if newest.version() == snapshot.version:
            return
        base = self._table_of(snapshot)
        for key in keys:
            before = None if base is None else base.transaction_version(_application_id(key))
            if newest.transaction_version(_application_id(key)) != before:
                raise ConcurrentWriteError(table=snapshot.spec.name, partition=_label([key]))

    @contextmanager
    def _translated_errors(self, name: str) -> Generator[None]:
        """Turn the errors of `deltalake` and Polars about storage into ours."""
        try:
            yield
        except CommitFailedError:
            raise
        except (DeltaError, BaseError, OSError, pl.exceptions.ComputeError) as error:
            raise storage_error(error, f"table {name!r} at {self._uri}") from error


def _commit(
    table: DeltaTable, spec: TableSpec, keys: Sequence[PartitionKey], rows: pl.DataFrame
) -> int:
    """Overwrite the partitions in one commit based on `table`; the version of the commit.

    The number of a transaction is larger than every earlier one of the same partition, because the
    commit that wrote that one is part of `table`.
    """
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        predicate=_predicate(spec, keys),
        schema_mode="merge",
        writer_properties=_writer_properties(spec),
        commit_properties=_commit_properties(table, keys),
    )
    return table.version()


def _append(
    table: DeltaTable, spec: TableSpec, keys: Sequence[PartitionKey], rows: pl.DataFrame
) -> int:
    """Add rows in one commit based on `table`; the version of the commit."""
    write_deltalake(
        table,
        rows,
        mode="append",
        schema_mode="merge",
        writer_properties=_writer_properties(spec),
        commit_properties=_commit_properties(table, keys),
    )
    return table.version()


def _writer_properties(spec: TableSpec) -> WriterProperties:
    # A dictionary of floats is larger than the floats: measured on 256 and 500 vectors of 384
    # dimensions, files grow by half and take up to four times as long to write.
    has_vectors = any(dtype == pl.List(pl.Float32) for dtype in spec.schema.dtypes())
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=spec.row_group_rows,
        default_column_properties=ColumnProperties(dictionary_enabled=not has_vectors),
    )


def _commit_properties(table: DeltaTable, keys: Sequence[PartitionKey]) -> CommitProperties:
    number = table.version() + 1
    return CommitProperties(
        max_commit_retries=MAX_REBASES,
        app_transactions=[Transaction(_application_id(key), number) for key in keys],
    )


def _refuse_other_types(table: DeltaTable, spec: TableSpec) -> None:
    """Refuse to write into a column of another type, which Delta would cast in silence.

    Lists and structs may differ: their new fields are merged.

    Raises:
        StageError: A column of the table has another type than the spec says.
    """
    stored = pl.Schema(table.schema())
    for name, dtype in spec.schema.items():
        if name in stored and stored[name] != dtype and not dtype.is_nested():
            detail = (
                f"column {name!r} is {stored[name]} on disk and {dtype} in this version; name a new"
                " `root`, or go back to the version that wrote the table"
            )
            raise StageError(stage="write", subject=spec.name, detail=detail)


def _with_columns_of(spec: TableSpec, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The columns of the spec in its types; a column that the table lacks is null."""
    stored = rows.collect_schema()
    return rows.select(
        pl.lit(None, dtype=dtype).alias(name)
        if name not in stored
        else pl.col(name)
        if stored[name] == dtype
        else pl.col(name).cast(dtype)
        for name, dtype in spec.schema.items()
    )


def _predicate(spec: TableSpec, keys: Sequence[PartitionKey]) -> str | None:
    """The partitions as SQL; `None` for the one partition of a table without partition columns.

    Keys that differ in one column become one `IN` list, which Delta checks much faster than a long
    chain of `OR`.
    """
    if not spec.partition_by:
        return None
    distinct = [list(dict.fromkeys(values)) for values in zip(*keys, strict=True)]
    is_grid = prod(len(values) for values in distinct) == len(keys)
    groups: list[list[list[str]]] = (
        [distinct] if is_grid else [[[value] for value in key] for key in keys]
    )
    return " OR ".join(
        "("
        + " AND ".join(
            f"{column} IN ({', '.join(map(_quoted, values))})"
            for column, values in zip(spec.partition_by, group, strict=True)
        )
        + ")"
        for group in groups
    )


def _quoted(value: str) -> str:
    """A string literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def _application_id(key: PartitionKey) -> str:
    """The name under which the log remembers the last commit to a partition."""
    return "partition:" + "|".join(part.replace("%", "%25").replace("|", "%7C") for part in key)


def _label(keys: Sequence[PartitionKey]) -> str:
    """Partitions for a message: the first by name, the others as a count."""
    first = "|".join(keys[0])
    return first if len(keys) == 1 else f"{first} and {len(keys) - 1} more"
