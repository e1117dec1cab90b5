"""FAISS as vector store: points in SQLite, which is the truth, and indexes made of them.

    <store>/collections/<name>/points.db    ids, payloads, filter terms and vectors
    <store>/collections/<name>/graph.faiss  the approximate index of a large collection

See `local_store.py` for the rest of the directory. FAISS has neither payloads nor a write-ahead
log, and its graphs forget nothing; so no write ever touches one. See `point_rows.py` for why the
two cannot contradict each other, whenever a process dies.
"""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ragassets.adapters.faiss_index import (
    EXACT_SEARCH_POINTS,
    FaissIndex,
    build_graph,
    is_behind,
    load_graph,
    save_graph,
)
from ragassets.adapters.local_store import MIN_FREE_BYTES, LocalStore
from ragassets.adapters.point_rows import PointRows
from ragassets.core.collection_config import CollectionConfig, check_supported
from ragassets.core.indexing import PointBatch, StoredPoint, check_batch, check_request
from ragassets.core.searching import SearchHit, SearchRequest
from ragassets.core.store_locations import CAPABILITIES, STORE_NAMES
from ragassets.core.vector_scores import score_vectors

DATABASE, GRAPH = "points.db", "graph.faiss"


class FaissStore(LocalStore):
    """A directory of collections, opened by one process at a time. See `VectorStore`."""

    capabilities = CAPABILITIES["faiss"]

    def __init__(
        self, directory: Path, *, timeout_seconds: float, min_free_bytes: int = MIN_FREE_BYTES
    ) -> None:
        """Describe the store; nothing is created or locked yet."""
        super().__init__(directory, timeout_seconds=timeout_seconds, min_free_bytes=min_free_bytes)
        self._points: dict[str, PointRows] = {}
        self._indexes: dict[str, FaissIndex] = {}

    # Points

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points, replacing those with the same id; they survive a crash at once."""
        config = self.collection_config(name)
        check_batch(batch, config)
        points = self._rows(name)
        self._require_free_disk(len(batch), config)
        self._indexes.pop(name, None)
        with self._translated(f"writing to {name!r}"):
            points.write(batch)

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points; ids that are not there are ignored."""
        points = self._rows(name)
        if point_ids:
            self._require_free_disk()
            self._indexes.pop(name, None)
            with self._translated(f"deleting from {name!r}"):
                points.delete(point_ids)

    def flush(self, name: str) -> None:
        """Nothing is left to do: every write waited for the disk."""
        self._require_collection(name)

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those of `point_ids` that exist."""
        points = self._rows(name)
        with self._translated(f"reading from {name!r}"):
            return points.hashes(point_ids)

    def scroll(self, name: str) -> Generator[StoredPoint]:
        """Yield every point once, ordered by id."""
        points = self._rows(name)
        with self._translated(f"reading from {name!r}"):
            yield from points.scroll()

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """Return the exact number of points that match."""
        points = self._rows(name)
        with self._translated(f"counting {name!r}"):
            return points.count(filters or {})

    # Search

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        config = self.collection_config(name)
        for request in requests:
            check_request(request, config)
        with self._translated(f"searching {name!r}"):
            return [self._search(name, request, config) for request in requests]

    def optimize(self, name: str) -> bool:
        """Make the graph where the collection is large enough and has no recent one; say if."""
        config, points = self.collection_config(name), self._rows(name)
        if points.count({}) < EXACT_SEARCH_POINTS:
            return False
        path = self._collections / name / GRAPH
        with self._translated(f"indexing {name!r}"):
            graph = load_graph(path, points)
            if graph is not None and not is_behind(graph, points.numbers()):
                return False
            self._require_free_disk(points.count({}), config)
            self._indexes.pop(name, None)
            save_graph(build_graph(points, config), path)
        return True

    # The engine

    def _search(
        self, name: str, request: SearchRequest, config: CollectionConfig
    ) -> list[SearchHit]:
        """Rank by the stored vectors, whatever the index made of them."""
        points, vector = self._rows(name), request.vector
        if vector is None:  # a sparse request, which no collection of this store answers
            return []
        conditions = request.conditions
        allowed = points.matching(conditions) if conditions else None
        found = self._index(name).nearest(
            vector, request.limit, allowed=allowed, exact=request.exact
        )
        rows = points.read(found)
        vectors = np.array([row.vector for row in rows], np.float32).reshape(-1, config.dim)
        scores = score_vectors(vectors, vector, config.distance)
        hits = [
            SearchHit(row.point_id, score, row.payload)
            for row, score in zip(rows, scores, strict=True)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.point_id))[: request.limit]

    def _index(self, name: str) -> FaissIndex:
        if name not in self._indexes:
            points = self._rows(name)
            graph = load_graph(self._collections / name / GRAPH, points)
            self._indexes[name] = FaissIndex(points, self.collection_config(name), graph)
        return self._indexes[name]

    def _check_config(self, config: CollectionConfig) -> None:
        check_supported(STORE_NAMES["faiss"], self.capabilities, config)

    def _create(self, folder: Path, config: CollectionConfig) -> None:
        del config  # every collection has the same tables
        folder.mkdir(parents=True)
        PointRows.create(folder / DATABASE)

    def _rows(self, name: str) -> PointRows:
        config = self.collection_config(name)
        self._own()
        if name not in self._points:
            self._require_collection(name)  # whoever held the lock may have dropped it
            with self._translated(f"opening collection {name!r}"):
                path = self._collections / name / DATABASE
                self._points[name] = PointRows(path, dim=config.dim)
        return self._points[name]

    def _open_collections(self) -> list[str]:
        return list(self._points)

    def _close_collection(self, name: str) -> None:
        self._indexes.pop(name, None)
        points = self._points.pop(name, None)
        if points is not None:
            with self._translated(f"closing collection {name!r}"):
                points.close()
