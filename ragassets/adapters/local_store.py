"""A vector store that is a directory of this machine, opened by one process at a time.

    <store>/.lock  .queue  holder.json  one owner at a time
    <store>/aliases.json                embedded engines have no aliases
    <store>/collections/<name>/collection.json
    <store>/collections/<name>/…        the engine's files

A collection appears and disappears by one rename, so a crash leaves it whole or not there. Do not
fork while a store is open.
"""

import shutil
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ragassets.adapters.alias_file import FileAliases
from ragassets.adapters.durable_files import replace_file, sync_directory
from ragassets.adapters.store_lock import StoreLock
from ragassets.adapters.store_session import StoreSession
from ragassets.core.collection_config import CollectionConfig, check_same_config
from ragassets.core.indexing import check_name
from ragassets.errors import (
    ConfigurationError,
    RagAssetsError,
    StorageUnavailableError,
    SystemResourceError,
    UnknownNameError,
)

MIN_FREE_BYTES = 256 * 1024**2
"""The Qdrant engine's files are sparse memory maps (180 MB of address space for the first point),
and writing to one on a full disk kills the process with SIGBUS instead of raising an error. The
others get the same: a disk that is nearly full is no place for an index."""

POINT_BYTES = 8 * 1024
"""Payload, term weights and write-ahead log of one point, generously; its vector comes on top."""

STAGING_PREFIX = "."
"""Collections under creation or removal; a valid name never starts with a dot."""


class LocalStore(StoreSession):
    """The parts of `VectorStore` that follow from being a directory."""

    def __init__(
        self, directory: Path, *, timeout_seconds: float, min_free_bytes: int = MIN_FREE_BYTES
    ) -> None:
        """Describe the store; nothing is created or locked yet."""
        super().__init__(FileAliases(directory / "aliases.json"))
        self._directory = directory
        self._collections = directory / "collections"
        self._timeout_seconds = timeout_seconds
        self._min_free_bytes = min_free_bytes
        self._lock = StoreLock(directory, timeout_seconds=timeout_seconds)

    # What an engine adds

    @abstractmethod
    def _check_config(self, config: CollectionConfig) -> None:
        """Refuse a collection that the engine cannot hold."""

    @abstractmethod
    def _create(self, folder: Path, config: CollectionConfig) -> None:
        """Make the engine's files of an empty collection, durably, in a folder yet to be made."""

    @abstractmethod
    def _close_collection(self, name: str) -> None:
        """Close the engine's files of a collection; nothing happens when they are closed."""

    @abstractmethod
    def _open_collections(self) -> list[str]:
        """Return the collections whose files are open."""

    # Sessions and collections

    def close(self) -> None:
        """Close the engine's files and give the lock back."""
        try:
            for name in self._open_collections():
                self._close_collection(name)
        finally:
            self._lock.release()

    def ensure_collection(
        self,
        name: str,
        config: CollectionConfig,
        *,
        before_create: Callable[[], None] | None = None,
    ) -> None:
        """Create the collection unless it exists with this very configuration."""
        check_name("index version", name)
        self._check_config(config)
        self._own()
        if name in self.list_collections():
            check_same_config(name, existing=self.collection_config(name), wanted=config)
            return
        self._require_free_disk()
        if before_create is not None:
            before_create()
        staging = self._collections / f"{STAGING_PREFIX}creating-{name}"
        with self._translated(f"creating collection {name!r}"):
            self._create(staging, config)
            replace_file(staging / "collection.json", config.model_dump_json())
            staging.rename(self._collections / name)
            sync_directory(self._collections)

    def list_collections(self) -> list[str]:
        """Return the names of all complete collections, sorted."""
        if not self._collections.is_dir():
            return []
        names = [path.name for path in self._collections.iterdir()]
        return sorted(name for name in names if not name.startswith(STAGING_PREFIX))

    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""
        self._require_collection(name)
        try:
            content = (self._collections / name / "collection.json").read_text(encoding="utf-8")
        except FileNotFoundError:  # dropped meanwhile: reading takes no lock
            raise self._unknown(name) from None
        return CollectionConfig.model_validate_json(content)

    def drop_collection(self, name: str) -> None:
        """Remove the collection; nothing happens when there is none."""
        check_name("index version", name)
        self._own()
        self._refuse_if_served(name)
        if name in self.list_collections():
            self._close_collection(name)
            doomed = self._collections / f"{STAGING_PREFIX}dropping-{name}"
            with self._translated(f"dropping collection {name!r}"):
                (self._collections / name).rename(doomed)
                sync_directory(self._collections)
                shutil.rmtree(doomed)

    def problems(self, name: str) -> list[str]:
        """Nothing: what an embedded engine has written, it serves."""
        self._require_collection(name)
        return []

    def switch_alias(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now."""
        self._own()
        with self._translated(f"switching alias {alias!r}"):
            super().switch_alias(alias, target, expected=expected)

    # What the calls of engines share

    def _translated(self, action: str) -> AbstractContextManager[None]:
        return translated_errors(self._directory, action)

    def _own(self) -> None:
        """Take the lock, and clear what a crash left half created or half dropped."""
        if self._lock.is_held:
            return
        try:
            self._collections.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            for path in self._collections.iterdir():
                if path.name.startswith(STAGING_PREFIX):
                    shutil.rmtree(path)
        except OSError as error:
            raise ConfigurationError(
                key="vector_store",
                value=str(self._directory),
                problem=f"cannot be written ({error.strerror or error})",
                fix="Name a directory that this user may create and write",
            ) from error

    def _require_collection(self, name: str) -> None:
        if name not in self.list_collections():
            raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownNameError:
        return UnknownNameError(kind="collection", name=name, known=self.list_collections())

    def _require_free_disk(self, n_points: int = 0, config: CollectionConfig | None = None) -> None:
        vector_bytes = 8 * config.dim if config else 0
        needed = self._min_free_bytes + n_points * (POINT_BYTES + vector_bytes)
        free = shutil.disk_usage(self._collections).free
        if free < needed:
            raise SystemResourceError(
                resource=f"disk of vector store {self._directory}",
                detail=f"{free / 1024**2:.0f} MiB are free, {needed / 1024**2:.0f} MiB are needed",
                fix="Nothing was written; free some space and run again",
            )


@contextmanager
def translated_errors(store: Path, action: str) -> Generator[None]:
    """Turn whatever the engine raises during `action` into `StorageUnavailableError`.

    Raises:
        SystemResourceError: the disk is full.
        StorageUnavailableError: anything else.
    """
    try:
        yield
    except RagAssetsError:
        raise
    except BaseException as error:
        # Qdrant's own errors are bare `Exception`s and its panics not even that; all of them would
        # otherwise end a run with a Rust stack trace instead of a line that says what to do.
        is_panic = type(error).__name__ == "PanicException"
        if not isinstance(error, Exception) and not is_panic:
            raise
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise SystemResourceError(
                resource=f"disk of vector store {store}",
                detail=f"{action} failed ({error})",
                fix="Nothing was written; free some space and run again",
            ) from error
        raise StorageUnavailableError(
            service=f"vector store {store}",
            detail=f"{action} failed ({error})",
            fix="Try again; if it stays, configure a new index version and build it from the tables"
            " with `ragassets index build`",
        ) from error
