"""A Qdrant server or cluster as vector store: the same collections as the embedded engine's.

Nothing is held open between calls and nothing is locked: searches run while others write. Who
writes points of an index version takes its lock first (`Workspace.index_writer`). A write is done
when the server says COMPLETED; it then has it in its write-ahead log and in its answers.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.adapters.look_ahead import one_ahead
from ragassets.adapters.point_encoding import (
    MAX_LANGUAGES,
    METADATA_TERMS,
    Ranking,
    VectorQuery,
    combine_rankings,
    encode_points,
    shares_of,
    shown_payload,
    sort_ranking,
    vector_queries,
)
from ragassets.adapters.qdrant_aliases import QdrantAliases
from ragassets.adapters.qdrant_collections import QdrantCollections
from ragassets.adapters.qdrant_connection import QdrantConnection
from ragassets.adapters.qdrant_queries import (
    bounded_batches,
    grpc_points,
    rest_points,
    server_filter,
    server_query,
    upsert_messages,
)
from ragassets.adapters.store_session import StoreSession
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import (
    DENSE_VECTOR,
    Payload,
    PointBatch,
    StoredPoint,
    check_batch,
    check_name,
    check_request,
)
from ragassets.core.searching import SearchHit, SearchRequest, parse_filters
from ragassets.core.settings import QdrantConfig
from ragassets.core.store_locations import CAPABILITIES
from ragassets.errors import StorageUnavailableError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import ReadConsistencyType, UpdateResult

UPSERT_POINTS = 250
"""In one request. A batch of the stage is four of them: while the server writes one, the terms and
the message of the next are made."""

DELETE_POINTS = 1_000
SCROLL_POINTS = 2_000
RETRIEVE_POINTS = 1_000
BATCH_QUERIES = 64


def _nothing() -> None:
    """Do nothing before a creation."""


class QdrantServerStore(StoreSession):
    """Collections on a server, by URL. See `VectorStore`."""

    capabilities = CAPABILITIES["qdrant"]

    def __init__(self, url: str, settings: QdrantConfig, *, timeout_seconds: float) -> None:
        """Describe the store; nothing is sent yet.

        Raises:
            ConfigurationError: the URL holds a password.
        """
        self._connection = QdrantConnection(url, settings, timeout_seconds=timeout_seconds)
        super().__init__(QdrantAliases(self._connection))
        self._collections = QdrantCollections(self._connection)
        self._settings = settings
        self._configs: dict[str, CollectionConfig] = {}

    def close(self) -> None:
        """Forget what was read; the client stays with the process for the next session."""
        self._configs.clear()

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
        self._collections.ensure(name, config, before_create or _nothing)

    def list_collections(self) -> list[str]:
        """Return the names of all complete collections, sorted."""
        return self._collections.names()

    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""
        if name not in self._configs:
            self._configs[name] = self._collections.ready(name).config
        return self._configs[name]

    def drop_collection(self, name: str) -> None:
        """Remove the collection; nothing happens when there is none."""
        check_name("index version", name)
        self._refuse_if_served(name)
        self._configs.pop(name, None)
        self._collections.drop(name)

    # Points

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points, replacing those with the same id; what is written may be sent twice."""
        config = self.collection_config(name)
        check_batch(batch, config)
        encoded = encode_points(batch, config)
        parts = bounded_batches(
            grpc_points(encoded) if self._settings.prefer_grpc else rest_points(encoded),
            max_bytes=self._settings.batch_bytes,
            max_points=UPSERT_POINTS,
        )
        for part in one_ahead(parts):
            self._write(name, "writing to", partial(self._send, part))

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points; ids that are not there are ignored."""
        from qdrant_client import models

        self.collection_config(name)
        for start in range(0, len(point_ids), DELETE_POINTS):
            selector = models.PointIdsList(points=[*point_ids[start : start + DELETE_POINTS]])
            self._write(name, "deleting from", lambda c, n, s=selector: c.delete(n, s, wait=True))

    def flush(self, name: str) -> None:
        """Nothing is left to do: every write waited until the server had it."""
        self.collection_config(name)

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those of `point_ids` that exist."""
        payloads = self._payloads(name, point_ids, ["payload_hash"])
        return {key: str(payload.get("payload_hash") or "") for key, payload in payloads.items()}

    def vectors(self, name: str, point_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return point id to dense vector for those of `point_ids` that exist."""
        full = self._full_name(name)
        found: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(point_ids), RETRIEVE_POINTS):
            part = [*point_ids[start : start + RETRIEVE_POINTS]]
            records = self._connection.call(
                f"reading from {name!r}",
                lambda c, ids=part: c.retrieve(
                    full,
                    ids,
                    with_payload=False,
                    with_vectors=[DENSE_VECTOR],
                    consistency=self._consistency,
                ),
                index_version=name,
            )
            for record in records:
                named = cast("dict[str, list[float]]", record.vector or {})
                found[str(record.id)] = np.asarray(named.get(DENSE_VECTOR, []), np.float32)
        return found

    def scroll(self, name: str) -> Generator[StoredPoint]:
        """Yield every point once, ordered by id."""
        keys = ["chunk_id", "document_id", "payload_hash"]
        full = self._full_name(name)
        offset: Any = None
        while True:
            records, offset = self._connection.call(
                f"reading from {name!r}",
                lambda c, start=offset: c.scroll(
                    full,
                    limit=SCROLL_POINTS,
                    offset=start,
                    with_payload=keys,
                    consistency=self._consistency,
                ),
                index_version=name,
            )
            for record in records:
                payload = record.payload or {}
                # A point that somebody else wrote has none of our keys; an audit must see it.
                yield StoredPoint(str(record.id), *(str(payload.get(key, "")) for key in keys))
            if offset is None:
                return

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """Return the exact number of points that match."""
        selection = server_filter(parse_filters(filters or {}))
        full = self._full_name(name)
        return self._connection.call(
            f"counting {name!r}",
            lambda c: c.count(full, count_filter=selection, exact=True),
            index_version=name,
        ).count

    # Search

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        config = self.collection_config(name)
        for request in requests:
            check_request(request, config)
        shares: dict[str, float] = {}
        if any(request.mode != "dense" for request in requests):
            shares = self._language_shares(name)
        queries = [
            (number, query)
            for number, request in enumerate(requests)
            for query in vector_queries(request, config, lambda: shares)
        ]
        rankings: list[list[Ranking]] = [[] for _ in requests]
        for start in range(0, len(queries), BATCH_QUERIES):
            part = queries[start : start + BATCH_QUERIES]
            found = self._rank(name, [(query, requests[number]) for number, query in part], config)
            for (number, _), ranking in zip(part, found, strict=True):
                rankings[number].append(ranking)
        ranked = [
            combine_rankings(request, own) for request, own in zip(requests, rankings, strict=True)
        ]
        return self._with_payloads(name, ranked)

    def optimize(self, name: str) -> bool:
        """Let the server build its approximate index; wait for it, and say if it got larger."""
        return self._collections.optimize(name)

    def problems(self, name: str) -> list[str]:
        """Say what keeps the server from serving the collection as it should."""
        return self._collections.problems(name)

    # What the calls above share

    @property
    def _consistency(self) -> "ReadConsistencyType | None":
        """Reads that judge ask most replicas: one that lags would call written points missing."""
        from qdrant_client.models import ReadConsistencyType

        has_replicas = (self._settings.replication_factor or 1) > 1
        return ReadConsistencyType.MAJORITY if has_replicas else None

    def _full_name(self, name: str) -> str:
        """Return the name that the server knows, of a collection that has to be there."""
        self.collection_config(name)
        return self._collections.full_name(name)

    def _write(self, name: str, verb: str, send: "Callable[[Any, str], UpdateResult]") -> None:
        """Send a write and make sure that the server has done it, not only queued it."""
        full = self._collections.full_name(name)
        result = self._connection.call(
            f"{verb} {name!r}", lambda c: send(c, full), index_version=name
        )
        if result.status != "completed":
            raise StorageUnavailableError(
                service=f"vector store {self._connection.url}",
                detail=f"{verb} {name!r} was {result.status}, not completed",
                fix="Raise qdrant.timeout_seconds, or run again when the server is less busy",
            )

    def _send(self, points: "list[Any]", client: "QdrantClient", collection: str) -> "UpdateResult":
        if self._settings.prefer_grpc:
            return upsert_messages(client, collection, points, self._settings.timeout_seconds)
        return client.upsert(collection, points=points, wait=True)

    def _rank(
        self,
        name: str,
        queries: Sequence[tuple[VectorQuery, SearchRequest]],
        config: CollectionConfig,
    ) -> list[Ranking]:
        """Return one ranking for each query, in order."""
        full = self._collections.full_name(name)
        asked = [
            server_query(query, request, config, server_filter(request.conditions))
            for query, request in queries
        ]
        answers = self._connection.call(
            f"searching {name!r}", lambda c: c.query_batch_points(full, asked), index_version=name
        )
        return [
            sort_ranking(((str(point.id), point.score) for point in answer.points), query.sign)
            for (query, _), answer in zip(queries, answers, strict=True)
        ]

    def _with_payloads(self, name: str, ranked: Sequence[Ranking]) -> list[list[SearchHit]]:
        """Return the hits with all of their payload; what was deleted meanwhile is left out."""
        wanted = sorted({identifier for ranking in ranked for identifier, _ in ranking})
        payloads = self._payloads(name, wanted, None)
        return [
            [
                SearchHit(identifier, score, shown_payload(payloads[identifier]))
                for identifier, score in ranking
                if identifier in payloads
            ]
            for ranking in ranked
        ]

    def _payloads(
        self, name: str, point_ids: Sequence[str], keys: list[str] | None
    ) -> dict[str, Payload]:
        """Return the payloads of the points that exist, or some keys of them."""
        from qdrant_client import models

        full = self._full_name(name)
        selector = keys or models.PayloadSelectorExclude(exclude=[METADATA_TERMS])
        found: dict[str, Payload] = {}
        for start in range(0, len(point_ids), RETRIEVE_POINTS):
            part = [*point_ids[start : start + RETRIEVE_POINTS]]
            records = self._connection.call(
                f"reading from {name!r}",
                lambda c, ids=part: c.retrieve(
                    full, ids, with_payload=selector, consistency=self._consistency
                ),
                index_version=name,
            )
            found.update({str(record.id): record.payload or {} for record in records})
        return found

    def _language_shares(self, name: str) -> dict[str, float]:
        full = self._full_name(name)
        answer = self._connection.call(
            f"counting the languages of {name!r}",
            lambda c: c.facet(full, "language", limit=MAX_LANGUAGES, exact=True),
            index_version=name,
        )
        return shares_of((str(hit.value), hit.count) for hit in answer.hits)
