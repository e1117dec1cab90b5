"""The landing zone: the bytes of every document as fetched, stored by their content hash.

Content addressing makes a write idempotent and a corrupt object detectable. The module knows
nothing about documents: which hashes are still needed is decided by whoever holds the tables.
"""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from ragassets.adapters.object_storage import open_root, storage_error
from ragassets.core.fingerprints import content_hash as content_hash_of
from ragassets.errors import MissingRawBytesError

_CONTENT_HASH = re.compile(r"[0-9a-f]{64}")


class LandingZone:
    """Bytes by sha256 under `<root>/landing/<first two digits>/<hash>`.

    An object is visible whole or not at all: object stores guarantee it, and the local store writes
    to a temporary name and renames.
    """

    def __init__(self, root: str) -> None:
        """Open the landing zone below a root (see `open_root`)."""
        opened = open_root(root)
        self._root = root.rstrip("/")
        self._store: ObjectStore = opened.store
        self._service = f"landing zone {opened.uri}"

    def put(self, data: bytes) -> str:
        """Store bytes and return their content hash.

        An object that is there with the right size is not written again; one of another size is a
        leftover of a crash of the machine, and is replaced.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The store cannot be written.
        """
        content_hash = content_hash_of(data)
        if self._size_bytes(content_hash) != len(data):
            self.put_object(_path(content_hash), data)
        return content_hash

    def location(self, content_hash: str) -> str:
        """The path or URI of the bytes with this hash, for a person; they need not be there."""
        return f"{self._root}/{_path(content_hash)}"

    def get(self, content_hash: str) -> bytes:
        """The bytes with this hash, verified.

        Raises:
            MissingRawBytesError: The object is missing or holds other bytes.
            StorageUnavailableError: The store cannot be read.
        """
        path = _path(content_hash)
        try:
            with self._translated_errors():
                data = bytes(self._store.get(path).bytes())
        except FileNotFoundError as error:
            raise self._broken(content_hash, "is missing") from error
        if content_hash_of(data) != content_hash:
            raise self._broken(content_hash, "is corrupt: its bytes have another hash")
        return data

    def holds(self, content_hash: str) -> bool:
        """Whether `get` would give the bytes; they are read and checked."""
        try:
            self.get(content_hash)
        except MissingRawBytesError:
            return False
        return True

    def exists(self, content_hash: str) -> bool:
        """Whether an object is stored under this hash; its bytes are not checked."""
        return self._size_bytes(content_hash) is not None

    def delete(self, content_hash: str) -> None:
        """Remove the bytes with this hash; it is no error when there are none."""
        try:
            with self._translated_errors():
                self._store.delete(_path(content_hash))
        except FileNotFoundError:
            return

    def content_hashes(self) -> Iterator[str]:
        """All hashes in store, in no particular order; listed in pages, never all at once."""
        with self._translated_errors():
            for page in self._store.list("landing"):
                for meta in page:
                    name = meta["path"].rpartition("/")[2]
                    if _CONTENT_HASH.fullmatch(name):
                        yield name

    def put_object(self, path: str, data: bytes) -> None:
        """Store bytes under a path relative to the root, replacing what is there.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The store cannot be written.
        """
        with self._translated_errors():
            self._store.put(path, data)

    def object_paths(self, folder: str) -> list[str]:
        """Paths, relative to the root, of all objects below a folder."""
        with self._translated_errors():
            return sorted(meta["path"] for page in self._store.list(folder) for meta in page)

    def delete_object(self, path: str) -> None:
        """Remove the object at a path relative to the root; it is no error when there is none."""
        try:
            with self._translated_errors():
                self._store.delete(path)
        except FileNotFoundError:
            return

    def _size_bytes(self, content_hash: str) -> int | None:
        """The size of a stored object, or `None` when there is none."""
        try:
            with self._translated_errors():
                return self._store.head(_path(content_hash))["size"]
        except FileNotFoundError:
            return None

    def _broken(self, content_hash: str, problem: str) -> MissingRawBytesError:
        """The error for an object that should be there."""
        return MissingRawBytesError(
            service=self._service, content_hash=content_hash, problem=problem
        )

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        """Turn the errors of the store into ours; a missing object stays `FileNotFoundError`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise storage_error(error, self._service) from error


def _path(content_hash: str) -> str:
    """Where an object lies.

    Raises:
        ValueError: Not a content hash, so it could name anything below the root.
    """
    if not _CONTENT_HASH.fullmatch(content_hash):
        msg = f"{content_hash!r} is not a sha256 in hexadecimal digits"
        raise ValueError(msg)
    return f"landing/{content_hash[:2]}/{content_hash}"
