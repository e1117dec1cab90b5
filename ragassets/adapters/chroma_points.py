"""Points in a Chroma collection, embedded or on a server: what is written and asked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.flat_points import (
    TERMS,
    flat_metadata,
    id_pages,
    last_of_each,
    read_audited,
    read_payload,
)
from ragassets.adapters.point_encoding import sort_ranking
from ragassets.core.collection_config import CollectionConfig, Distance
from ragassets.core.indexing import PointBatch, StoredPoint, check_batch, check_request
from ragassets.core.searching import (
    Condition,
    SearchHit,
    SearchRequest,
    parse_filters,
    payload_condition_terms,
)
from ragassets.core.vector_scores import score_vectors

Answer = TypeVar("Answer")

PAGE_POINTS = 1_000

SPACES: Mapping[Distance, str] = {"cosine": "cosine", "dot": "ip", "euclid": "l2"}

GRAPH = {"max_neighbors": 32, "ef_construction": 200, "ef_search": 128}
"""As in `faiss_index.py`. Chroma has a graph from the first point on."""


class ChromaPoints(ABC):
    """The calls of `VectorStore` that are about points."""

    @abstractmethod
    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""

    @abstractmethod
    def _call(self, action: str, name: str, ask: Callable[[Any], Answer]) -> Answer:
        """Do something with Chroma's own collection, which has to be there; errors are ours."""

    @abstractmethod
    def _before_write(self, n_points: int, config: CollectionConfig) -> None:
        """Refuse a write that cannot go well."""

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points, replacing those with the same id."""
        config = self.collection_config(name)
        check_batch(batch, config)
        self._before_write(len(batch), config)
        for part in last_of_each(batch).parts(PAGE_POINTS):
            metadatas = [flat_metadata(payload) for payload in part.payloads]
            vectors = np.asarray(part.vectors, np.float32)
            self._call(
                "writing to",
                name,
                lambda c, p=part, v=vectors, m=metadatas: c.upsert([*p.point_ids], v, m),
            )

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points; ids that are not there are ignored."""
        self.collection_config(name)
        for ids in id_pages(point_ids, PAGE_POINTS):
            self._call("deleting from", name, lambda c, i=ids: c.delete(i))

    def flush(self, name: str) -> None:
        """Nothing is left to do: every write is in Chroma's log when it returns."""
        self.collection_config(name)

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those of `point_ids` that exist."""
        return {point.point_id: point.payload_hash for point in self._audited(name, point_ids)}

    def scroll(self, name: str) -> Generator[StoredPoint]:
        """Yield every point once, ordered by id."""
        yield from self._audited(name, sorted(self._ids(name, [])))

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """Return the exact number of points that match."""
        self.collection_config(name)
        if not filters:
            return int(self._call("counting", name, lambda c: c.count()))
        return len(self._ids(name, parse_filters(filters)))

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        config = self.collection_config(name)
        for request in requests:
            check_request(request, config)
        return [self._search(name, request, config) for request in requests]

    def optimize(self, name: str) -> bool:
        """Nothing to do: Chroma builds its graph as it writes."""
        self.collection_config(name)
        return False

    def _search(
        self, name: str, request: SearchRequest, config: CollectionConfig
    ) -> list[SearchHit]:
        vector = request.vector
        if vector is None:  # a sparse request, which no collection of this store answers
            return []
        if request.exact:
            scored = self._every_score(name, request, vector, config)
        else:
            found = self._call(
                "searching",
                name,
                lambda c: c.query(
                    query_embeddings=vector.reshape(1, -1),
                    n_results=request.limit,
                    where=_where(request.conditions),
                    include=["embeddings"],
                ),
            )
            vectors = np.asarray(found["embeddings"][0], np.float32).reshape(-1, config.dim)
            scored = zip(
                found["ids"][0], score_vectors(vectors, vector, config.distance), strict=True
            )
        ranked = sort_ranking(scored, 1)[: request.limit]
        payloads = self._payloads(name, [identifier for identifier, _ in ranked])
        return [
            SearchHit(identifier, score, payloads[identifier])
            for identifier, score in ranked
            if identifier in payloads
        ]

    def _every_score(
        self,
        name: str,
        request: SearchRequest,
        vector: NDArray[np.float32],
        config: CollectionConfig,
    ) -> Iterator[tuple[str, float]]:
        """Compare with every vector: Chroma itself can only search its graph."""
        for ids in id_pages(self._ids(name, request.conditions), PAGE_POINTS):
            found = self._call(
                "reading from", name, lambda c, i=ids: c.get(ids=i, include=["embeddings"])
            )
            vectors = np.asarray(found["embeddings"], np.float32).reshape(-1, config.dim)
            yield from zip(
                found["ids"], score_vectors(vectors, vector, config.distance), strict=True
            )

    def _ids(self, name: str, conditions: Sequence[Condition]) -> list[str]:
        """Return the ids of all points that match, in pages."""
        where = _where(conditions)
        self.collection_config(name)
        ids: dict[str, None] = {}
        offset = 0
        while True:
            found = self._call(
                "reading from",
                name,
                lambda c, start=offset: c.get(
                    where=where, limit=PAGE_POINTS, offset=start, include=[]
                )["ids"],
            )
            ids.update(dict.fromkeys(found))
            if len(found) < PAGE_POINTS:
                return list(ids)
            offset += PAGE_POINTS

    def _audited(self, name: str, point_ids: Sequence[str]) -> Iterator[StoredPoint]:
        for metadatas in self._metadatas(name, point_ids):
            for identifier, metadata in sorted(metadatas.items()):
                yield read_audited(identifier, metadata)

    def _payloads(self, name: str, point_ids: Sequence[str]) -> dict[str, dict[str, object]]:
        return {
            identifier: read_payload(metadata)
            for metadatas in self._metadatas(name, point_ids)
            for identifier, metadata in metadatas.items()
        }

    def _metadatas(
        self, name: str, point_ids: Sequence[str]
    ) -> Iterator[dict[str, Mapping[str, object]]]:
        """Yield the metadata of the points that exist, a page at a time."""
        self.collection_config(name)
        for ids in id_pages(point_ids, PAGE_POINTS):
            found = self._call(
                "reading from", name, lambda c, i=ids: c.get(ids=i, include=["metadatas"])
            )
            yield {
                identifier: metadata or {}
                for identifier, metadata in zip(found["ids"], found["metadatas"], strict=True)
            }


def collection_settings(config: CollectionConfig) -> dict[str, Any]:
    """Return what a Chroma collection is created with; vectors come from us alone."""
    return {
        "embedding_function": None,
        "configuration": {"hnsw": {"space": SPACES[config.distance], **GRAPH}},
    }


def _where(conditions: Sequence[Condition]) -> dict[str, Any] | None:
    parts = [
        _combined("$or", [{TERMS: {"$contains": term}} for term in payload_condition_terms(part)])
        for part in conditions
    ]
    return _combined("$and", parts) if parts else None


def _combined(operator: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one condition; Chroma refuses a combination of one."""
    return parts[0] if len(parts) == 1 else {operator: [*parts]}
