"""Records of searches as small objects below the root: written once, folded into tables later.

One object a call, whatever number of searches it made, under a name of its own: so searches never
wait for one another or for a commit, on a local disk and on an object store alike.
"""

import uuid
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime

from obstore.exceptions import BaseError

from ragassets.adapters.object_storage import open_root, storage_error

FOLDER = "search_log"

READERS = 16
"""Objects that are read at once: of an object store, each is a round trip of some 20 ms."""


class SearchLog:
    """Objects at `<root>/search_log/<time>-<unique>.jsonl`."""

    def __init__(self, root: str) -> None:
        """Open the log below a root (see `open_root`)."""
        opened = open_root(root)
        self._store = opened.store
        self._service = f"search log {opened.uri}/{FOLDER}"

    @staticmethod
    def new_name(now: datetime) -> str:
        """A name that nobody else has; names sort by time."""
        return f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"

    def write(self, name: str, data: bytes) -> None:
        """Keep the records of one call.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The store cannot be written.
        """
        with self._translated_errors():
            self._store.put(_path(name), data)

    def names(self, limit: int) -> list[str]:
        """The oldest names, at most `limit`.

        Raises:
            StorageUnavailableError: The store cannot be read.
        """
        with self._translated_errors():
            paths = [meta["path"] for page in self._store.list(FOLDER) for meta in page]
        return sorted(path.rpartition("/")[2].removesuffix(".jsonl") for path in paths)[:limit]

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The records under these names; those that somebody folded meanwhile are left out.

        Raises:
            StorageUnavailableError: The store cannot be read.
        """
        with self._translated_errors(), ThreadPoolExecutor(READERS) as readers:
            found = list(readers.map(self._read, names))
        return [data for data in found if data is not None]

    def delete(self, names: Sequence[str]) -> None:
        """Forget these records; names that are not there are ignored.

        Raises:
            StorageUnavailableError: The store cannot be written.
        """
        with self._translated_errors():
            for name in names:
                with suppress(FileNotFoundError):
                    self._store.delete(_path(name))

    def _read(self, name: str) -> bytes | None:
        try:
            return bytes(self._store.get(_path(name)).bytes())
        except FileNotFoundError:
            return None

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise storage_error(error, self._service) from error


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.jsonl"
