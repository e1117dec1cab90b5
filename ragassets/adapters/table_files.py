"""The data files of the tables, also those that no version of now names.

A Delta table keeps the files of earlier versions until they are vacuumed, and writers that were
killed leave files that no version ever named. Whoever has to prove that something is gone looks
into all of them.
"""

import io
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import polars as pl
from obstore.exceptions import BaseError

from ragassets.adapters.object_storage import open_root, storage_error
from ragassets.adapters.tables import DeltaTables

LOG_FOLDER = "/_delta_log/"


class Holding(NamedTuple):
    """A file with rows that were looked for."""

    path: str
    """Below the root."""
    is_current: bool
    """Whether the newest version of the table names it."""
    rows: pl.DataFrame


class TableFiles:
    """Every data file below `<root>/tables`."""

    def __init__(self, root: str, tables: DeltaTables) -> None:
        """Open the files of these tables below a root (see `open_root`)."""
        opened = open_root(root)
        self._store, self._tables = opened.store, tables
        self._service = f"tables at {opened.uri}"

    def holding(
        self, table: str, key: str, values: Collection[str], *, columns: Sequence[str] = ()
    ) -> Iterator[Holding]:
        """Files of a table that have rows with one of these values; the rows themselves.

        Files without the column are left out, and so are files that are not whole: nobody can
        read them, and `remove_history` removes them.

        Args:
            table: Its name.
            key: A column that is no partition column.
            values: What to look for.
            columns: Other columns that are wanted, as far as a file has them.
        """
        current = self._tables.file_names(table)
        wanted = sorted(values)
        for path in self._paths(table):
            content = self._read(path)
            found = _rows_with(content, key, wanted, columns) if content is not None else None
            if found is not None and found.height:
                yield Holding(path, path.rpartition("/")[2] in current, found)

    def count(self, table: str) -> int:
        """How many data files a table has, those of earlier versions included."""
        return len(self._paths(table))

    def remove_history(self, table: str, key: str, values: Collection[str]) -> int:
        """Remove the files with rows of these values that the newest version does not name.

        Commit what takes the rows out before: then a writer that began earlier loses its commit,
        and no version of now or later names the files. Readers of an earlier version may miss
        them; they fail, and read the newest version when they are tried again.

        Returns:
            How many files were removed.
        """
        doomed = [
            holding.path for holding in self.holding(table, key, values) if not holding.is_current
        ]
        current = self._tables.file_names(table)
        doomed += [
            path
            for path in self._paths(table)
            if path.rpartition("/")[2] not in current and self._is_broken(path)
        ]
        with self._translated_errors():
            for path in dict.fromkeys(doomed):
                self._store.delete(path)
        return len(set(doomed))

    def _paths(self, table: str) -> list[str]:
        with self._translated_errors():
            listed = [meta["path"] for page in self._store.list(f"tables/{table}") for meta in page]
        return sorted(path for path in listed if LOG_FOLDER not in path)

    def _read(self, path: str) -> bytes | None:
        """A file; None where somebody else removed it after it was listed."""
        with self._translated_errors():
            try:
                return bytes(self._store.get(path).bytes())
            except FileNotFoundError:
                return None

    def _is_broken(self, path: str) -> bool:
        content = self._read(path)
        if content is None:
            return False
        try:
            pl.read_parquet_schema(io.BytesIO(content))
        except (pl.exceptions.PolarsError, OSError):
            return True
        return False

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise storage_error(error, self._service) from error


def _rows_with(
    content: bytes, key: str, values: list[str], columns: Sequence[str]
) -> pl.DataFrame | None:
    """The rows of a file with one of the values; None where it has no such column."""
    try:
        stored = pl.read_parquet_schema(io.BytesIO(content))
        if key not in stored:
            return None
        keys = pl.read_parquet(io.BytesIO(content), columns=[key])[key]
        if not keys.is_in(values).any():
            return None
        wanted = [name for name in dict.fromkeys([key, *columns]) if name in stored]
        rows = pl.read_parquet(io.BytesIO(content), columns=wanted)
    except (pl.exceptions.PolarsError, OSError):
        return None
    return rows.filter(pl.col(key).is_in(values))
