"""Chroma inside this process.

    <store>/collections/<name>/chroma/  a database of Chroma's own with one collection

See `local_store.py` for the rest of the directory. One database for each collection: it is created
and dropped by a rename like those of the other embedded stores, and names and settings are read
without loading Chroma. Chroma writes ahead: what a call has written survives `kill -9`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ragassets.adapters.chroma_points import ChromaPoints, collection_settings
from ragassets.adapters.extras import import_untyped
from ragassets.adapters.local_store import MIN_FREE_BYTES, LocalStore
from ragassets.core.collection_config import CollectionConfig, check_supported
from ragassets.core.store_locations import CAPABILITIES, STORE_NAMES

Answer = TypeVar("Answer")

COLLECTION = "points"


class ChromaStore(ChromaPoints, LocalStore):
    """A directory of collections, opened by one process at a time. See `VectorStore`."""

    capabilities = CAPABILITIES["chroma"]

    def __init__(
        self, directory: Path, *, timeout_seconds: float, min_free_bytes: int = MIN_FREE_BYTES
    ) -> None:
        """Describe the store; nothing is created or locked yet."""
        super().__init__(directory, timeout_seconds=timeout_seconds, min_free_bytes=min_free_bytes)
        self._clients: dict[str, Any] = {}

    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""
        return LocalStore.collection_config(self, name)

    def _call(self, action: str, name: str, ask: Callable[[Any], Answer]) -> Answer:
        self._require_collection(name)
        self._own()
        with self._translated(f"{action} {name!r}"):
            if name not in self._clients:
                self._clients[name] = _open_client(self._collections / name / "chroma")
            return ask(self._clients[name].get_collection(COLLECTION, embedding_function=None))

    def _before_write(self, n_points: int, config: CollectionConfig) -> None:
        self._own()
        self._require_free_disk(n_points, config)

    def _check_config(self, config: CollectionConfig) -> None:
        check_supported(STORE_NAMES["chroma"], self.capabilities, config)

    def _create(self, folder: Path, config: CollectionConfig) -> None:
        (folder / "chroma").mkdir(parents=True)
        client = _open_client(folder / "chroma")
        client.create_collection(COLLECTION, **collection_settings(config))
        client.close()

    def _open_collections(self) -> list[str]:
        return list(self._clients)

    def _close_collection(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            with self._translated(f"closing collection {name!r}"):
                client.close()


def _open_client(folder: Path) -> Any:
    chromadb = import_untyped("chromadb")
    settings = import_untyped("chromadb.config").Settings(anonymized_telemetry=False)
    return chromadb.PersistentClient(path=str(folder), settings=settings)
