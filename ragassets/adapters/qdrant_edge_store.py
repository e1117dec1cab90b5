"""The embedded vector store: Qdrant's own engine inside this process.

    <store>/.lock  .queue  holder.json  one owner at a time
    <store>/aliases.json                the engine has no aliases
    <store>/collections/<name>/collection.json
    <store>/collections/<name>/shard/   the engine's files

A collection appears and disappears by one rename, so a crash leaves it whole or not there. The
engine writes ahead: what `flush` acknowledged survives `kill -9`. Do not fork while a store is
open.
"""

import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ragassets.adapters.alias_file import read_aliases, switch_alias
from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.adapters.durable_files import replace_file, sync_directory
from ragassets.adapters.edge_engine import (
    EXACT_SEARCH_POINTS,
    create_shard,
    load_shard,
    optimize_in_child,
    translated_errors,
)
from ragassets.adapters.edge_queries import edge_filter, edge_points, search_shard
from ragassets.adapters.store_lock import StoreLock
from ragassets.core.indexing import (
    CollectionConfig,
    PointBatch,
    StoreCapabilities,
    StoredPoint,
    check_batch,
    check_name,
    check_request,
    check_same_config,
)
from ragassets.core.searching import SearchHit, SearchRequest, parse_filters
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    SystemResourceError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

MIN_FREE_BYTES = 256 * 1024**2
"""The engine's files are sparse memory maps (180 MB of address space for the first point), and
writing to one on a full disk kills the process with SIGBUS instead of raising an error."""

POINT_BYTES = 8 * 1024
"""Payload, term weights and write-ahead log of one point, generously; its vector comes on top."""

UPSERT_POINTS = 1_000
SCROLL_POINTS = 2_000

STAGING_PREFIX = "."
"""Collections under creation or removal; a valid name never starts with a dot."""


class QdrantEdgeStore:
    """A directory of collections, opened by one process at a time. See `VectorStore`."""

    capabilities = StoreCapabilities()

    def __init__(
        self, directory: Path, *, timeout_seconds: float, min_free_bytes: int = MIN_FREE_BYTES
    ) -> None:
        """Describe the store; nothing is created or locked yet."""
        self._directory = directory
        self._collections = directory / "collections"
        self._aliases_file = directory / "aliases.json"
        self._timeout_seconds = timeout_seconds
        self._min_free_bytes = min_free_bytes
        self._lock = StoreLock(directory, timeout_seconds=timeout_seconds)
        self._shards: dict[str, EdgeShard] = {}

    def __enter__(self) -> Self:
        """Return the store; the lock is taken by the first call that needs it."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the engine's files and give the lock back."""
        try:
            for name in list(self._shards):
                self._close_shard(name)
        finally:
            self._lock.release()

    # Collections

    def ensure_collection(
        self,
        name: str,
        config: CollectionConfig,
        *,
        before_create: Callable[[], None] | None = None,
    ) -> None:
        """Create the collection unless it exists with this very configuration."""
        check_name("index version", name)
        Bm25Encoder(default_language=config.language)  # refuses a language it does not know
        self._own()
        if name in self.list_collections():
            check_same_config(name, existing=self.collection_config(name), wanted=config)
            return
        self._require_free_disk()
        if before_create is not None:
            before_create()
        staging = self._collections / f"{STAGING_PREFIX}creating-{name}"
        with self._translated(f"creating collection {name!r}"):
            create_shard(staging / "shard", config)
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
        content = (self._collections / name / "collection.json").read_text(encoding="utf-8")
        return CollectionConfig.model_validate_json(content)

    def drop_collection(self, name: str) -> None:
        """Remove the collection; nothing happens when there is none."""
        check_name("index version", name)
        self._own()
        for alias, target in self.aliases().items():
            if target == name:
                raise IndexVersionError(
                    index_version=name,
                    problem=f"is what alias {alias!r} points at",
                    fix="Promote another version first",
                )
        if name in self.list_collections():
            self._close_shard(name)
            doomed = self._collections / f"{STAGING_PREFIX}dropping-{name}"
            with self._translated(f"dropping collection {name!r}"):
                (self._collections / name).rename(doomed)
                sync_directory(self._collections)
                shutil.rmtree(doomed)

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

    def search(self, name: str, request: SearchRequest) -> list[SearchHit]:
        """Return the best hits, best first; equal scores are ordered by point id."""
        config = self.collection_config(name)
        check_request(request, config)
        shard = self._shard(name)
        with self._translated(f"searching {name!r}"):
            return search_shard(shard, request, config)

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        return [self.search(name, request) for request in requests]

    def optimize(self, name: str) -> bool:
        """Build the approximate index where the collection is large enough; say if it ran.

        The build happens in a child process, while this one keeps the store's lock.
        """
        n_points = self.count(name)
        if n_points < EXACT_SEARCH_POINTS:
            return False
        self._require_free_disk(n_points, self.collection_config(name))
        self._close_shard(name)
        optimize_in_child(self._collections / name / "shard")
        return True

    def problems(self, name: str) -> list[str]:
        """Nothing: what this engine has written, it serves."""
        self._require_collection(name)
        return []

    # Aliases

    def alias_target(self, alias: str) -> str | None:
        """Return the collection that the alias points at."""
        return self.aliases().get(alias)

    def aliases(self) -> dict[str, str]:
        """Return all aliases with their targets."""
        return read_aliases(self._aliases_file)

    def switch_alias(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now."""
        check_name("alias", alias)
        self._own()
        if target not in self.list_collections():
            raise IndexVersionError(
                index_version=target,
                problem=f"has no collection that alias {alias!r} could point at",
                fix=f"Build it first: ragassets index build {target}",
            )
        with self._translated(f"switching alias {alias!r}"):
            switch_alias(self._aliases_file, alias, target, expected=expected)

    # What the calls above share

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
        known = self.list_collections()
        if name not in known:
            raise UnknownNameError(kind="collection", name=name, known=known)

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

    def _shard(self, name: str) -> "EdgeShard":
        self._require_collection(name)
        self._own()
        if name not in self._shards:
            self._require_free_disk()
            with self._translated(f"opening collection {name!r}"):
                path = self._collections / name / "shard"
                self._shards[name] = load_shard(path, timeout_seconds=self._timeout_seconds)
        return self._shards[name]

    def _close_shard(self, name: str) -> None:
        shard = self._shards.pop(name, None)
        if shard is not None:
            with self._translated(f"closing collection {name!r}"):
                shard.close()
