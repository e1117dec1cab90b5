"""Finished rows of a stage that has not committed yet, as Parquet objects below the root.

A part is written once and never changed, so a killed writer leaves whole parts only. Parts of
different runs do not collide: their names are unique.
"""

import io
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from urllib.parse import quote

import polars as pl
from obstore.exceptions import BaseError

from ragassets.adapters.object_storage import open_root, storage_error
from ragassets.core.stages import SHARD


class ObjectCheckpoints:
    """Checkpoints at `<root>/checkpoints/<stage>/…/<part>.parquet`."""

    def __init__(self, root: str) -> None:
        """Open the checkpoints below a root (see `open_root`)."""
        opened = open_root(root)
        self._store = opened.store
        self._service = f"checkpoints {opened.uri}"

    def load(self, name: str) -> pl.DataFrame | None:
        """All finished rows under this name, or `None`.

        Raises:
            StorageUnavailableError: The store cannot be read.
        """
        with self._translated_errors():
            read = [self._read(path) for path in self._paths(name)]
        parts = [part for part in read if part is not None]
        # A release since may have added columns.
        return pl.concat(parts, how="diagonal") if parts else None

    def append(self, name: str, rows: pl.DataFrame) -> None:
        """Keep these rows, durably.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The store cannot be written.
        """
        with self._translated_errors():
            self._store.put(f"{_folder(name)}{uuid.uuid4().hex}.parquet", _parquet(rows))

    def replace(self, name: str, rows: pl.DataFrame) -> None:
        """Keep these rows instead of those of the last call, whole or not at all.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The store cannot be written.
        """
        with self._translated_errors():
            self._store.put(f"{_folder(name)}state.parquet", _parquet(rows))

    def clear(self, name: str, partitions: Collection[str]) -> None:
        """Forget the parts that hold rows of these source shards and of no other.

        Raises:
            StorageUnavailableError: The store cannot be written.
        """
        with self._translated_errors():
            for path in self._paths(name):
                part = self._read(path)
                if part is not None and set(part[SHARD]) <= set(partitions):
                    self._store.delete(path)

    def forget(self, document_ids: Collection[str], uris: Collection[str] = ()) -> int:
        """Take the rows of these documents out of every part; how many rows.

        Parts of an unfinished listing name documents by their URI alone.

        Raises:
            StorageUnavailableError: The store cannot be written.
        """
        n_rows = 0
        with self._translated_errors():
            listed = [meta["path"] for page in self._store.list("checkpoints") for meta in page]
            for path in sorted(listed):
                part = self._read(path)
                if part is None:
                    continue
                kept = part
                for column, values in (("document_id", document_ids), ("uri", uris)):
                    if column in part.columns:
                        kept = kept.filter(~pl.col(column).is_in(sorted(values)))
                if kept.is_empty() and part.height:
                    self._store.delete(path)
                elif kept.height < part.height:
                    self._store.put(path, _parquet(kept))
                n_rows += part.height - kept.height
        return n_rows

    def holds(self, document_ids: Collection[str]) -> bool:
        """Whether any part has a row of one of these documents."""
        with self._translated_errors():
            listed = [meta["path"] for page in self._store.list("checkpoints") for meta in page]
            parts = [part for path in listed if (part := self._read(path)) is not None]
        return any(
            part["document_id"].is_in(sorted(document_ids)).any()
            for part in parts
            if "document_id" in part.columns
        )

    def _paths(self, name: str) -> list[str]:
        return sorted(meta["path"] for page in self._store.list(_folder(name)) for meta in page)

    def _read(self, path: str) -> pl.DataFrame | None:
        """A part; None where another run cleared it after it was listed."""
        try:
            content = self._store.get(path).bytes()
        except FileNotFoundError:
            return None
        return pl.read_parquet(io.BytesIO(bytes(content)))

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise storage_error(error, self._service) from error


def _folder(name: str) -> str:
    return f"checkpoints/{quote(name)}/"


def _parquet(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="lz4")
    return buffer.getvalue()
