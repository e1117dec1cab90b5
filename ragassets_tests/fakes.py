"""In-memory stand-ins for outside systems; deterministic, and they pass the contract tests."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.core.collection_config import CollectionConfig, StoreCapabilities, check_same_config
from ragassets.core.indexing import (
    Payload,
    PointBatch,
    StoredPoint,
    check_batch,
    check_name,
    check_request,
)
from ragassets.core.searching import (
    Condition,
    SearchHit,
    SearchRequest,
    fuse,
    fusion_depth,
    matches,
    parse_filters,
)
from ragassets.core.tables import (
    Partition,
    Snapshot,
    TableSpec,
    conform,
    partition_keys,
    rows_inside,
)
from ragassets.errors import ConcurrentWriteError, IndexVersionError, UnknownNameError


class InMemoryTables:
    """`Tables` in a dictionary, with the same conflicts as the real store."""

    def __init__(self) -> None:
        """Start without tables."""
        self._versions: dict[str, list[dict[tuple[str, ...], pl.DataFrame]]] = {}
        self._last_writes: dict[str, dict[tuple[str, ...], int]] = {}

    def read(
        self,
        spec: TableSpec,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the newest version."""
        return self.read_at(self.snapshot(spec), partitions, columns=columns, where=where)

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """The newest version, counted per table from 0."""
        n_versions = len(self._versions.get(spec.name, []))
        return Snapshot(spec, n_versions - 1 if n_versions else None)

    def read_at(
        self,
        snapshot: Snapshot,
        partitions: Sequence[Partition] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of the snapshot's version."""
        spec = snapshot.spec
        if snapshot.version is None:
            return spec.empty_frame(columns)
        stored = self._versions[spec.name][snapshot.version]
        frames = [
            conform(frame, spec)
            for key, frame in stored.items()
            if partitions is None
            or any(
                all(key[spec.partition_by.index(c)] == v for c, v in partition.items())
                for partition in partitions
            )
        ]
        found = pl.concat([spec.empty_frame(), *frames])
        found = found if where is None else found.filter(where)
        return found if columns is None else found.select(columns)

    def replace(
        self, snapshot: Snapshot, partitions: Sequence[Partition], frame: pl.DataFrame
    ) -> int:
        """Replace partitions unless one of them changed after the snapshot."""
        spec = snapshot.spec
        keys = partition_keys(spec, partitions)
        frame = rows_inside(spec, keys, conform(frame, spec))
        last_writes = self._last_writes.setdefault(spec.name, {})
        base = -1 if snapshot.version is None else snapshot.version
        for key in keys:
            if last_writes.get(key, -1) > base:
                raise ConcurrentWriteError(table=spec.name, partition="|".join(key))
        history = self._versions.setdefault(spec.name, [])
        current = dict(history[-1]) if history else {}
        for key in keys:
            of_key = [pl.col(c) == v for c, v in zip(spec.partition_by, key, strict=True)]
            current[key] = frame.filter(*of_key)
            last_writes[key] = len(history)
        history.append(current)
        return len(history) - 1

    def tables(self) -> list[str]:
        """The names of the tables, sorted."""
        return sorted(self._versions)


class FakeEmbedder:
    """`Embedder` whose vectors are unit vectors seeded by a hash of prompt and text."""

    def __init__(self, name: str = "fake", dim: int = 8, *, seed: str = "") -> None:
        """Make a model; another `seed` is another model."""
        self.name = name
        self.dim = dim
        self.seed = seed
        self.max_tokens = 256
        self.window_texts = 512
        self.fingerprint = hashlib.sha256(f"{dim} {seed}".encode()).hexdigest()[:32]
        self.n_embedded = 0

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n_texts, dim) float32, L2-normalized; counts the texts."""
        self.n_embedded += len(texts)
        return self._embed(texts)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same vectors as those of documents."""
        return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            digest = hashlib.sha256(f"{self.seed}|{text}".encode()).digest()
            vector = np.random.default_rng(list(digest)).normal(size=self.dim)
            vectors[row] = vector / np.linalg.norm(vector)
        return vectors


class InMemoryCollection:
    """Points of one collection by id."""

    def __init__(self, config: CollectionConfig) -> None:
        """Start empty."""
        self.config = config
        self.points: dict[str, tuple[NDArray[np.float32], Payload]] = {}


class InMemoryVectorStore:
    """`VectorStore` in a dictionary: exact search, and BM25 without stemming."""

    capabilities = StoreCapabilities()

    def __init__(self) -> None:
        """Start without collections and aliases."""
        self._collections: dict[str, InMemoryCollection] = {}
        self._aliases: dict[str, str] = {}

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep everything: the next session goes on with it."""
        self.close()

    def close(self) -> None:
        """Nothing to release."""

    def ensure_collection(
        self,
        name: str,
        config: CollectionConfig,
        *,
        before_create: Callable[[], None] | None = None,
    ) -> None:
        """Create the collection unless it exists."""
        check_name("index version", name)
        if name in self._collections:
            existing = self._collections[name].config
            check_same_config(name, existing=existing, wanted=config)
        else:
            if before_create is not None:
                before_create()
            self._collections[name] = InMemoryCollection(config)

    def list_collections(self) -> list[str]:
        """Names, sorted."""
        return sorted(self._collections)

    def collection_config(self, name: str) -> CollectionConfig:
        """The configuration that the collection was created with."""
        return self._collection(name).config

    def drop_collection(self, name: str) -> None:
        """Remove the collection, if any."""
        if name in self._aliases.values():
            problem = "is what an alias points at"
            raise IndexVersionError(index_version=name, problem=problem, fix="Promote another")
        self._collections.pop(name, None)

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points."""
        collection = self._collection(name)
        check_batch(batch, collection.config)
        for identifier, vector, payload in zip(
            batch.point_ids, batch.vectors, batch.payloads, strict=True
        ):
            collection.points[identifier] = (vector.copy(), dict(payload))

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points."""
        for identifier in point_ids:
            self._collection(name).points.pop(identifier, None)

    def flush(self, name: str) -> None:
        """Nothing is ever lost while the process lives."""
        self._collection(name)

    def retrieve(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Point id to payload hash of those that exist."""
        points = self._collection(name).points
        return {i: str(points[i][1]["payload_hash"]) for i in point_ids if i in points}

    def scroll(self, name: str) -> Generator[StoredPoint]:
        """Every point, ordered by id."""
        for identifier, (_, payload) in sorted(self._collection(name).points.items()):
            yield StoredPoint(
                identifier,
                str(payload["chunk_id"]),
                str(payload["document_id"]),
                str(payload["payload_hash"]),
            )

    def count(self, name: str, filters: Mapping[str, str] | None = None) -> int:
        """How many points match."""
        return len(self._matching(name, parse_filters(filters or {})))

    def search(self, name: str, request: SearchRequest) -> list[SearchHit]:
        """The best hits, best first."""
        collection = self._collection(name)
        check_request(request, collection.config)
        rankings: list[list[tuple[str, float]]] = []
        if request.mode != "sparse" and request.vector is not None:
            rankings.append(self._rank_dense(name, request, request.vector))
        if request.mode != "dense" and request.text is not None:
            rankings.append(self._rank_sparse(name, request, request.text))
        if request.mode == "hybrid":
            depth = fusion_depth(request.limit)
            ids = [[identifier for identifier, _ in ranking[:depth]] for ranking in rankings]
            ranked = fuse(ids, limit=request.limit)
        else:
            ranked = rankings[0][: request.limit]
        return [SearchHit(i, score, dict(collection.points[i][1])) for i, score in ranked]

    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """One list of hits a request."""
        return [self.search(name, request) for request in requests]

    def optimize(self, name: str) -> bool:
        """Never needed."""
        self._collection(name)
        return False

    def problems(self, name: str) -> list[str]:
        """Nothing ever is."""
        self._collection(name)
        return []

    def alias_target(self, alias: str) -> str | None:
        """What the alias points at."""
        return self._aliases.get(alias)

    def aliases(self) -> dict[str, str]:
        """All aliases."""
        return dict(self._aliases)

    def switch_alias(self, alias: str, target: str, *, expected: str | None) -> None:
        """Compare and set."""
        check_name("alias", alias)
        if target not in self._collections:
            problem = "has no collection"
            raise IndexVersionError(index_version=target, problem=problem, fix="Build it first")
        if self._aliases.get(alias) != expected:
            raise ConcurrentWriteError(table="aliases", partition=alias)
        self._aliases[alias] = target

    def _collection(self, name: str) -> InMemoryCollection:
        if name not in self._collections:
            raise UnknownNameError(kind="collection", name=name, known=self.list_collections())
        return self._collections[name]

    def _matching(
        self, name: str, conditions: Sequence[Condition]
    ) -> dict[str, tuple[NDArray[np.float32], Payload]]:
        points = self._collection(name).points
        return {i: point for i, point in points.items() if matches(point[1], conditions)}

    def _rank_dense(
        self, name: str, request: SearchRequest, vector: NDArray[np.float32]
    ) -> list[tuple[str, float]]:
        def score(stored: NDArray[np.float32]) -> float:
            match self._collection(name).config.distance:
                case "cosine":
                    lengths = np.linalg.norm(stored) * np.linalg.norm(vector)
                    return float(stored @ vector / lengths)
                case "dot":
                    return float(stored @ vector)
                case "euclid":
                    return -float(np.linalg.norm(stored - vector))

        found = self._matching(name, request.conditions)
        return _best_first({i: score(stored) for i, (stored, _) in found.items()})

    def _rank_sparse(self, name: str, request: SearchRequest, text: str) -> list[tuple[str, float]]:
        counts = {
            i: Counter(re.findall(r"\w+", str(payload["text"]).lower()))
            for i, (_, payload) in self._collection(name).points.items()
        }
        scores: dict[str, float] = {}
        for word in set(re.findall(r"\w+", text.lower())):
            n_holding = sum(word in words for words in counts.values())
            weight = math.log(1 + (len(counts) - n_holding + 0.5) / (n_holding + 0.5))
            for i in self._matching(name, request.conditions):
                if counts[i][word]:
                    saturated = counts[i][word] * 2.2 / (counts[i][word] + 1.2)
                    scores[i] = scores.get(i, 0) + weight * saturated
        return _best_first(scores)


def _best_first(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
