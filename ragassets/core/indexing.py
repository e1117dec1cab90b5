"""What a vector collection holds and what a vector store must do; values and pure rules only.

Engines live in `adapters/`, ranking and fusion in `core/searching.py`. One chunk is one point: its
id follows from the chunk id, its named vectors are `dense` and `bm25`, and its payload carries
everything that a search hit shows, so that a query never needs the tables.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragassets.core.access import access_payload
from ragassets.core.collection_config import CollectionConfig, StoreCapabilities
from ragassets.core.embedding import validate_vectors
from ragassets.core.fingerprints import fingerprint
from ragassets.core.searching import SearchHit, SearchRequest
from ragassets.errors import ConfigurationError, InvalidVectorError

DENSE_VECTOR = "dense"
SPARSE_VECTOR = "bm25"

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Collection and alias names: they become directory names, so no separator and no leading dot."""

VERSIONS = "versions"
"""Payload key of what a point was written with."""

VERSION_KEYS = (
    "index_version",
    "chunking",
    "embedding_model_version",
    "pipeline_version",
    "source_version",
)
"""Its keys, named like the columns of `indexed_chunks`; about 200 bytes a point."""

CHUNK_ID_PATTERN = re.compile(r"[0-9a-f]{32}")

Payload = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class PointBatch:
    """Points to write together: parallel `point_ids`, `vectors` (n, dim) float32 and `payloads`."""

    point_ids: Sequence[str]
    vectors: NDArray[np.float32]
    payloads: Sequence[Payload]

    def __post_init__(self) -> None:
        """Refuse parts of different length: a shifted row would give chunks foreign vectors."""
        lengths = {len(self.point_ids), len(self.vectors), len(self.payloads)}
        if len(lengths) != 1:
            message = f"point_ids, vectors and payloads differ in length: {sorted(lengths)}"
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.point_ids)

    def parts(self, size: int) -> Iterator["PointBatch"]:
        """Yield the batch in order, in batches of at most `size` points."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield PointBatch(self.point_ids[rows], self.vectors[rows], self.payloads[rows])


class StoredPoint(NamedTuple):
    """What an audit needs to know of a point."""

    point_id: str
    chunk_id: str
    document_id: str
    payload_hash: str


class VectorStore(Protocol):
    """Named collections of points, and aliases that point at them.

    Opening is cheap. An embedded store takes its lock at the first call that touches points and
    gives it back on `close()`: keep sessions short, so that searches do not starve ingestion.
    Collection calls on a name that does not exist raise `UnknownNameError`.
    """

    @property
    def capabilities(self) -> StoreCapabilities:
        """What the store can do; it refuses the rest by name."""
        ...

    def __enter__(self) -> Self:
        """Return the store itself."""
        ...

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        ...

    def close(self) -> None:
        """Release everything; idempotent. What was not flushed may or may not be kept."""
        ...

    def ensure_collection(
        self,
        name: str,
        config: CollectionConfig,
        *,
        before_create: Callable[[], None] | None = None,
    ) -> None:
        """Create the collection unless it exists.

        Args:
            name: of the collection.
            config: what it is created with, or must have been.
            before_create: called right before it is created, by one process at a time: an embedded
                store holds its lock from here on.

        Raises:
            IndexVersionError: it exists with another configuration.
            ConfigurationError: the store cannot hold such a collection.
        """
        ...

    def list_collections(self) -> list[str]:
        """Return the names of all complete collections, sorted."""
        ...

    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""
        ...

    def drop_collection(self, name: str) -> None:
        """Remove the collection; nothing happens when there is none.

        Raises:
            IndexVersionError: an alias points at it.
        """
        ...

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points, replacing those with the same id; durable after `flush`.

        Raises:
            InvalidVectorError: a vector cannot be stored; nothing of the batch was written.
            SystemResourceError: not enough disk; nothing of the batch was written.
        """
        ...

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points; ids that are not there are ignored."""
        ...

    def flush(self, name: str) -> None:
        """Make everything written so far survive a crash."""
        ...

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those of `point_ids` that exist."""
        ...

    def scroll(self, name: str) -> Iterator[StoredPoint]:
        """Yield every point once, ordered by id."""
        ...

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """Return the exact number of points that match."""
        ...

    def search(self, name: str, request: SearchRequest) -> list[SearchHit]:
        """Return the best hits, best first; equal scores are ordered by point id."""
        ...

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""
        ...

    def optimize(self, name: str) -> bool:
        """Build the approximate index where the collection is large enough; say if it ran."""
        ...

    def problems(self, name: str) -> list[str]:
        """Say in words what keeps the store from serving the collection as it should."""
        ...

    def alias_target(self, alias: str) -> str | None:
        """Return the collection that the alias points at."""
        ...

    def aliases(self) -> dict[str, str]:
        """Return all aliases with their targets."""
        ...

    def switch_alias(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now (None: nowhere).

        Raises:
            IndexVersionError: the target does not exist.
            ConcurrentWriteError: the alias points elsewhere than expected.
        """
        ...


@runtime_checkable
class GivesVectors(Protocol):
    """A vector store that gives back what it was given, so that an audit can compare vectors."""

    def vectors(self, name: str, point_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return point id to (dim,) float32 dense vector for those of `point_ids` that exist.

        Under cosine distance a store may have normalized them.
        """
        ...


@runtime_checkable
class RewritesFiles(Protocol):
    """A vector store whose files are ours: what was deleted can be made to leave them."""

    def rewrite_collection(self, name: str) -> None:
        """Write the collection's files anew, without anything that was deleted.

        Raises:
            SystemResourceError: not enough disk; everything is as before.
        """
        ...


def point_id(chunk_id: str) -> str:
    """Return the point id of a chunk: its 32 hex characters written as a UUID.

    Raises:
        ValueError: it is no such id.
    """
    if not CHUNK_ID_PATTERN.fullmatch(chunk_id):
        message = f"chunk id {chunk_id!r} is not 32 hex characters"
        raise ValueError(message)
    # A third of the time that `uuid.UUID` takes, which counts at a million points.
    h = chunk_id
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def chunk_of_point(point_id: str) -> str:
    """Return the chunk id of a point; empty where a foreign point has another kind of id."""
    chunk_id = point_id.replace("-", "")
    return chunk_id if CHUNK_ID_PATTERN.fullmatch(chunk_id) else ""


def chunk_payload(  # noqa: PLR0913 - one keyword for each payload key
    *,
    chunk_id: str,
    document_id: str,
    uri: str,
    source: str,
    source_shard: str,
    page: int | None,
    text: str,
    title: str | None,
    language: str | None,
    document_type: str | None,
    metadata: Mapping[str, object],
    acl: Sequence[str],
    tenant: str | None = None,
    versions: Mapping[str, str | None] | None = None,
) -> dict[str, object]:
    """Return the payload of a chunk's point, `payload_hash` included.

    `versions` say what the point was written with (`VERSION_KEYS`). The hash leaves them out, so
    that a release of ragassets, which writes other ones, makes no point look stale.

    `acl` is stored under `metadata`, where filters and search results find it; what a search for
    one tenant or some principals asks for has keys of its own (`core/access.py`).
    """
    payload: dict[str, object] = {
        "chunk_id": chunk_id,
        "document_id": document_id,
        "uri": uri,
        "source": source,
        "source_shard": source_shard,
        "page": page,
        "text": text,
        "title": title,
        "language": language,
        "document_type": document_type,
        "metadata": {**metadata, "acl": list(acl)},
        **access_payload(tenant=tenant, acl=acl),
    }
    payload["payload_hash"] = fingerprint(payload)
    if versions is not None:
        payload[VERSIONS] = dict(versions)
    return payload


def hash_payload(payload: Payload) -> str:
    """Return 32 hex characters of the payload but its versions, whatever the order of its keys."""
    content = {
        key: value for key, value in payload.items() if key not in ("payload_hash", VERSIONS)
    }
    return fingerprint(content)


def check_name(kind: str, name: str) -> str:
    """Return a collection or alias name that is safe as a file name.

    Raises:
        ConfigurationError: it is not.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigurationError(
            key=kind,
            value=name,
            problem="is not a usable name",
            fix="Use up to 128 letters, digits, '_', '-' and '.', starting with a letter or digit",
        )
    return name


def check_batch(batch: PointBatch, config: CollectionConfig) -> None:
    """Refuse a batch with a vector that would poison the collection.

    Qdrant stores NaN, infinite and zero vectors without a word, and stores the rest of a batch
    whose one point has a wrong dimension (https://github.com/qdrant/qdrant/issues/9201).

    Raises:
        InvalidVectorError: naming the first offending chunk.
    """
    problems = validate_vectors(batch.vectors, dim=config.dim, is_normalized=False)
    for row, problem in enumerate(problems):
        if problem is not None:
            raise InvalidVectorError(
                stage="index",
                subject=str(batch.payloads[row].get("chunk_id", batch.point_ids[row])),
                detail=f"its vector {problem}; nothing of this batch was written",
            )


def check_request(request: SearchRequest, config: CollectionConfig) -> None:
    """Refuse a search that the collection cannot answer.

    Raises:
        InvalidVectorError: the query vector is unusable or of another dimension.
        ConfigurationError: a sparse search of a collection without sparse vectors.
    """
    if request.mode != "dense" and config.sparse is None:
        raise ConfigurationError(
            key="mode",
            value=request.mode,
            problem="needs an index version with sparse vectors",
            fix="Search with mode dense, or build a version with sparse: bm25",
        )
    if request.mode != "sparse" and request.vector is not None:
        vectors = request.vector.reshape(1, -1)
        problem = validate_vectors(vectors, dim=config.dim, is_normalized=False)[0]
        if problem is not None:
            raise InvalidVectorError(
                stage="search", subject="query", detail=f"its vector {problem}"
            )
