"""The embedded vector store: Qdrant's own engine inside this process.

The engine keeps `<store>/collections/<name>/shard/`, or the folder that `current` beside it names
once it was rewritten; see `local_store.py` for the rest. It writes ahead: what `flush` acknowledged
survives `kill -9`.
"""

import shutil
import uuid
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.adapters.durable_files import replace_file
from ragassets.adapters.edge_engine import (
    EXACT_SEARCH_POINTS,
    copy_points,
    create_shard,
    load_shard,
    optimize_in_child,
)
from ragassets.adapters.edge_queries import edge_filter, edge_points, search_shard
from ragassets.adapters.local_store import MIN_FREE_BYTES, LocalStore
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import (
    DENSE_VECTOR,
    PointBatch,
    StoredPoint,
    check_batch,
    check_request,
)
from ragassets.core.searching import SearchHit, SearchRequest, parse_filters
from ragassets.core.store_locations import CAPABILITIES

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

UPSERT_POINTS = 1_000
SCROLL_POINTS = 2_000

SHARD_FOLDER = "shard"
CURRENT_FILE = "current"


class QdrantEdgeStore(LocalStore):
    """A directory of collections, opened by one process at a time. See `VectorStore`."""

    capabilities = CAPABILITIES["edge"]

    def __init__(
        self, directory: Path, *, timeout_seconds: float, min_free_bytes: int = MIN_FREE_BYTES
    ) -> None:
        """Describe the store; nothing is created or locked yet."""
        super().__init__(directory, timeout_seconds=timeout_seconds, min_free_bytes=min_free_bytes)
        self._shards: dict[str, EdgeShard] = {}

    # Points

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points, replacing those with the same id; durable after `flush`."""
        from qdrant_edge import UpdateOperation

        config = self.collection_config(name)
        check_batch(batch, config)
        shard = self._shard(name)
        self._require_free_disk(len(batch), config)
        with self._translated(f"writing to {name!r}"):
            for part in batch.parts(UPSERT_POINTS):
                shard.update(UpdateOperation.upsert_points(edge_points(part, config)))

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points; ids that are not there are ignored."""
        from qdrant_edge import UpdateOperation

        shard = self._shard(name)
        if point_ids:
            self._require_free_disk()
            with self._translated(f"deleting from {name!r}"):
                shard.update(UpdateOperation.delete_points([*point_ids]))

    def flush(self, name: str) -> None:
        """Make everything written so far survive a crash."""
        shard = self._shard(name)
        with self._translated(f"flushing {name!r}"):
            shard.flush()

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those of `point_ids` that exist."""
        shard = self._shard(name)
        with self._translated(f"reading from {name!r}"):
            records = shard.retrieve([*point_ids], with_payload=["payload_hash"], with_vector=False)
        hashes = {str(record.id): (record.payload or {}).get("payload_hash") for record in records}
        return {name: str(payload_hash or "") for name, payload_hash in hashes.items()}

    def vectors(self, name: str, point_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return point id to dense vector for those of `point_ids` that exist."""
        shard = self._shard(name)
        with self._translated(f"reading from {name!r}"):
            records = shard.retrieve([*point_ids], with_payload=False, with_vector=True)
        named = {str(r.id): cast("dict[str, list[float]]", r.vector or {}) for r in records}
        return {
            key: np.asarray(vectors.get(DENSE_VECTOR, []), np.float32)
            for key, vectors in named.items()
        }

    def scroll(self, name: str) -> Generator[StoredPoint]:
        """Yield every point once, ordered by id."""
        from qdrant_edge import ScrollRequest

        shard = self._shard(name)
        keys = ["chunk_id", "document_id", "payload_hash"]
        offset = None
        while True:
            request = ScrollRequest(offset=offset, limit=SCROLL_POINTS, with_payload=keys)
            with self._translated(f"reading from {name!r}"):
                records, offset = shard.scroll(request)
            for record in records:
                payload = record.payload or {}
                # A point that somebody else wrote has none of our keys; an audit must see it.
                yield StoredPoint(str(record.id), *(str(payload.get(key, "")) for key in keys))
            if offset is None:
                return

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """Return the exact number of points that match."""
        from qdrant_edge import CountRequest

        selection = edge_filter(parse_filters(filters or {}))
        shard = self._shard(name)
        with self._translated(f"counting {name!r}"):
            return shard.count(CountRequest(exact=True, filter=selection))

    # Search

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        config = self.collection_config(name)
        for request in requests:
            check_request(request, config)
        shard = self._shard(name)
        with self._translated(f"searching {name!r}"):
            return [search_shard(shard, request, config) for request in requests]

    def optimize(self, name: str) -> bool:
        """Build the approximate index where the collection is large enough; say if it ran.

        The build happens in a child process, while this one keeps the store's lock.
        """
        n_points = self.count(name)
        if n_points < EXACT_SEARCH_POINTS:
            return False
        self._require_free_disk(n_points, self.collection_config(name))
        self._close_collection(name)
        optimize_in_child(self._shard_path(name))
        return True

    def rewrite_collection(self, name: str) -> None:
        """Copy the points into new files and remove the old ones, with all that was ever deleted.

        The engine keeps deleted payloads in its segments and in its log. Killed anywhere, either
        the old files count or the new ones; what is left of the others goes when the collection is
        opened next.
        """
        config = self.collection_config(name)
        source = self._shard(name)
        self._require_free_disk(self.count(name), config)
        folder = self._collections / name
        fresh = folder / f"{SHARD_FOLDER}-{uuid.uuid4().hex[:8]}"
        with self._translated(f"rewriting {name!r}"):
            create_shard(fresh, config)
            copy_points(source, fresh)
            self._close_collection(name)
            replace_file(folder / CURRENT_FILE, fresh.name)
            self._clear_old_shards(folder)

    # The engine

    def _check_config(self, config: CollectionConfig) -> None:
        Bm25Encoder(default_language=config.language)  # refuses a language it does not know

    def _create(self, folder: Path, config: CollectionConfig) -> None:
        create_shard(folder / SHARD_FOLDER, config)

    def _open_collections(self) -> list[str]:
        return list(self._shards)

    def _shard(self, name: str) -> "EdgeShard":
        self._require_collection(name)
        self._own()
        if name not in self._shards:
            self._require_collection(name)  # whoever held the lock may have dropped it
            self._require_free_disk()
            with self._translated(f"opening collection {name!r}"):
                path = self._shard_path(name)
                self._clear_old_shards(path.parent)
                self._shards[name] = load_shard(path, timeout_seconds=self._timeout_seconds)
        return self._shards[name]

    def _shard_path(self, name: str) -> Path:
        """Where the engine's files of a collection are."""
        folder = self._collections / name
        return folder / _current_shard(folder)

    @staticmethod
    def _clear_old_shards(folder: Path) -> None:
        """Remove the engine's files that a rewriting replaced, or never finished."""
        current = _current_shard(folder)
        for path in folder.glob(f"{SHARD_FOLDER}*"):
            if path.name != current:
                shutil.rmtree(path)

    def _close_collection(self, name: str) -> None:
        shard = self._shards.pop(name, None)
        if shard is not None:
            with self._translated(f"closing collection {name!r}"):
                shard.close()


def _current_shard(folder: Path) -> str:
    """The name of the folder in a collection's folder that counts."""
    file = folder / CURRENT_FILE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else SHARD_FOLDER
