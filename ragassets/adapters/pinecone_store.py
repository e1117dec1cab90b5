"""Pinecone as vector store.

    pinecone://PROJECT    one serverless index for each index version, see `pinecone_indexes.py`

A write that was accepted is not readable at once. So `upsert` and `delete` read back what they
wrote, until it is there or the time is up: whoever asks next sees it. Counts are counts of listed
ids, because Pinecone's own statistics lag behind. Aliases are a table of the project.
"""

import json
import math
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
from ragassets.adapters.pinecone_connection import PineconeConnection
from ragassets.adapters.pinecone_indexes import PineconeIndex, PineconeIndexes, project_of
from ragassets.adapters.point_encoding import sort_ranking
from ragassets.adapters.service_calls import sleep_until
from ragassets.adapters.store_session import AliasBook, StoreSession
from ragassets.core.collection_config import CollectionConfig, check_same_config, check_supported
from ragassets.core.indexing import PointBatch, StoredPoint, check_batch, check_name, check_request
from ragassets.core.searching import (
    Condition,
    SearchHit,
    SearchRequest,
    parse_filters,
    payload_condition_terms,
)
from ragassets.core.settings import PineconeConfig
from ragassets.core.store_locations import CAPABILITIES, STORE_NAMES
from ragassets.core.vector_scores import score_vectors
from ragassets.errors import StageError, StorageUnavailableError

Answer = TypeVar("Answer")

MAX_METADATA_BYTES = 40 * 1024
MAX_UPSERT_BYTES, MAX_UPSERT_POINTS = 2 * 1024**2, 1_000
"""Source: https://docs.pinecone.io/reference/api/database-limits#operation-limits"""

MAX_DELETE_POINTS = 1_000
MAX_HITS = 10_000
LIST_POINTS = 100
"""Ids of one listing, by Pinecone's limit; of one fetch, because they travel in its address."""

FLOAT_TEXT_BYTES = 24
"""Of a number in JSON: a float32 as float64 has up to 17 digits, sign, exponent and comma."""


class PineconeStore(StoreSession):
    """Serverless indexes of one account. See `VectorStore`."""

    capabilities = CAPABILITIES["pinecone"]

    def __init__(
        self,
        location: str,
        settings: PineconeConfig,
        aliases: AliasBook,
        *,
        timeout_seconds: float,
    ) -> None:
        """Describe the store; nothing is sent yet.

        Raises:
            ConfigurationError: there is no key, or `location` is not `pinecone://PROJECT`.
        """
        super().__init__(aliases)
        self._connection = PineconeConnection(settings, timeout_seconds=timeout_seconds)
        self._indexes = PineconeIndexes(self._connection, project_of(location))
        self._namespace = settings.namespace
        self._known: dict[str, PineconeIndex] = {}

    def close(self) -> None:
        """Forget what was read; the client stays with the process for the next session."""
        self._known.clear()

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
        check_supported(STORE_NAMES["pinecone"], self.capabilities, config)
        index = self._indexes.ensure(name, config, before_create)
        check_same_config(name, existing=index.config, wanted=config)

    def list_collections(self) -> list[str]:
        """Return the names of all collections of this project, sorted."""
        return sorted(self._indexes.all())

    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""
        return self._index(name).config

    def drop_collection(self, name: str) -> None:
        """Remove the collection; nothing happens when there is none."""
        check_name("index version", name)
        self._refuse_if_served(name)
        self._known.pop(name, None)
        self._indexes.drop(name)

    def problems(self, name: str) -> list[str]:
        """Nothing: an index that is not ready is waited for."""
        self._index(name)
        return []

    # Points

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points and wait until they can be read back."""
        check_batch(batch, self._index(name).config)
        points = _as_vectors(last_of_each(batch))
        for part in _upsert_parts(points):
            self._ask(
                "writing to",
                name,
                lambda i, vectors=part: i.upsert(vectors=vectors, namespace=self._namespace),
            )
        wanted = {str(p["id"]): p["metadata"]["payload_hash"] for p in points}
        self._wait_until(
            name, "written", wanted, lambda found: {k: found.get(k) for k in wanted} == wanted
        )

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points and wait until nobody can read them; absent ids are ignored."""
        self._index(name)
        for ids in id_pages(point_ids, MAX_DELETE_POINTS):
            self._ask(
                "deleting from",
                name,
                lambda i, gone=ids: i.delete(ids=gone, namespace=self._namespace),
            )
        self._wait_until(name, "deleted", point_ids, lambda found: not found)

    def flush(self, name: str) -> None:
        """Nothing is left to do: every write was waited for."""
        self._index(name)

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those of `point_ids` that exist."""
        return {
            identifier: read_audited(identifier, vector.metadata).payload_hash
            for identifier, vector in self._fetch(name, point_ids)
        }

    def scroll(self, name: str) -> Generator[StoredPoint]:
        """Yield every point once, ordered by id."""
        for ids in id_pages(sorted(self._listed(name)), LIST_POINTS):
            for identifier, vector in sorted(self._fetch(name, ids)):
                yield read_audited(identifier, vector.metadata)

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """Return the exact number of points that match; a request for every hundred."""
        if not filters:
            return len(self._listed(name))
        return sum(1 for _ in self._matching(name, parse_filters(filters)))

    # Search

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        config = self.collection_config(name)
        for request in requests:
            check_request(request, config)
        return [self._search(name, request, config) for request in requests]

    def optimize(self, name: str) -> bool:
        """Nothing to do: Pinecone indexes by itself."""
        self._index(name)
        return False

    def _search(
        self, name: str, request: SearchRequest, config: CollectionConfig
    ) -> list[SearchHit]:
        asked = request.vector
        if asked is None:  # a sparse request, which no collection of this store answers
            return []
        if request.exact:
            return self._compare_all(name, request, asked, config)
        found = self._ask(
            "searching",
            name,
            lambda i: i.query(
                top_k=min(request.limit, MAX_HITS),
                vector=asked.tolist(),
                namespace=self._namespace,
                filter=_filter(request.conditions),
                include_metadata=True,
            ),
        ).matches
        # Pinecone says the square of a euclidean distance.
        is_square = config.distance == "euclid"
        hits = [
            SearchHit(
                match.id,
                -math.sqrt(max(match.score, 0.0)) if is_square else match.score,
                read_payload(match.metadata),
            )
            for match in found
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.point_id))

    def _compare_all(
        self,
        name: str,
        request: SearchRequest,
        asked: NDArray[np.float32],
        config: CollectionConfig,
    ) -> list[SearchHit]:
        """Compare with every vector: Pinecone itself can only search its index."""
        found = dict(self._matching(name, request.conditions))
        vectors = np.array([v.values for v in found.values()], np.float32).reshape(-1, config.dim)
        scores = score_vectors(vectors, asked, config.distance)
        ranked = sort_ranking(zip(found, scores, strict=True), 1)[: request.limit]
        return [SearchHit(key, score, read_payload(found[key].metadata)) for key, score in ranked]

    # What the calls above share

    def _index(self, name: str) -> PineconeIndex:
        if name not in self._known:
            self._known[name] = self._indexes.ready(name)
        return self._known[name]

    def _ask(self, action: str, name: str, send: Callable[[Any], Answer]) -> Answer:
        return self._connection.data(action, name, self._index(name).host, send)

    def _listed(self, name: str) -> list[str]:
        """Return the ids of all points."""
        ids: dict[str, None] = {}
        token: str | None = None
        while True:
            page = self._ask(
                "listing",
                name,
                lambda i, t=token: i.list_paginated(
                    namespace=self._namespace, limit=LIST_POINTS, pagination_token=t
                ),
            )
            ids.update(dict.fromkeys(str(item.id) for item in page.vectors))
            token = page.pagination.next if page.pagination else None
            if not token:
                return list(ids)

    def _fetch(self, name: str, point_ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield the points that exist, with vectors and metadata."""
        self._index(name)
        for ids in id_pages(point_ids, LIST_POINTS):
            found = self._ask(
                "reading from",
                name,
                lambda i, wanted=ids: i.fetch(ids=wanted, namespace=self._namespace),
            )
            yield from found.vectors.items()

    def _matching(self, name: str, conditions: Sequence[Condition]) -> Iterator[tuple[str, Any]]:
        """Yield the points that satisfy all conditions."""
        if not conditions:
            yield from self._fetch(name, self._listed(name))
            return
        token: str | None = None
        while True:
            page = self._ask(
                "reading from",
                name,
                lambda i, t=token: i.fetch_by_metadata(
                    filter=_filter(conditions),
                    namespace=self._namespace,
                    limit=LIST_POINTS,
                    pagination_token=t,
                ),
            )
            yield from page.vectors.items()
            token = page.pagination.next if page.pagination else None
            if not token:
                return

    def _wait_until(
        self,
        name: str,
        what: str,
        point_ids: Sequence[str] | Mapping[str, str],
        is_done: Callable[[dict[str, str]], bool],
    ) -> None:
        patience = self._connection.settings.visibility_timeout_seconds
        ids = list(point_ids)
        if ids and not sleep_until(
            lambda: is_done(self.retrieve(name, ids)), timeout_seconds=patience
        ):
            raise StorageUnavailableError(
                service="vector store Pinecone",
                detail=f"what was {what} in {name!r} cannot be seen after {patience:g} s",
                fix="The next run writes it again; or raise pinecone.visibility_timeout_seconds",
            )


def _filter(conditions: Sequence[Condition]) -> dict[str, Any] | None:
    parts = [{TERMS: {"$in": payload_condition_terms(condition)}} for condition in conditions]
    return {"$and": parts} if parts else None


def _as_vectors(batch: PointBatch) -> list[dict[str, Any]]:
    """Return the points as the SDK takes them.

    Raises:
        StageError: the payload of one is more than Pinecone holds.
    """
    points: list[dict[str, Any]] = []
    for identifier, vector, payload in zip(
        batch.point_ids, batch.vectors.tolist(), batch.payloads, strict=True
    ):
        metadata = flat_metadata(payload)
        n_bytes = _n_bytes(metadata)
        if n_bytes > MAX_METADATA_BYTES:
            raise StageError(
                stage="index",
                subject=str(payload.get("chunk_id", identifier)),
                detail=f"its payload has {n_bytes} bytes, and Pinecone holds {MAX_METADATA_BYTES};"
                " nothing of this batch was written. Lower max_tokens, or shorten the metadata",
            )
        points.append({"id": identifier, "values": vector, "metadata": metadata})
    return points


def _n_bytes(metadata: Mapping[str, object]) -> int:
    return len(json.dumps(metadata, ensure_ascii=False).encode())


def _upsert_parts(points: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the points in requests that Pinecone takes."""
    part: list[dict[str, Any]] = []
    n_bytes = 0
    for point in points:
        size = _n_bytes(point["metadata"]) + FLOAT_TEXT_BYTES * len(point["values"]) + 128
        if part and (n_bytes + size > MAX_UPSERT_BYTES or len(part) == MAX_UPSERT_POINTS):
            yield part
            part, n_bytes = [], 0
        part.append(point)
        n_bytes += size
    if part:
        yield part
