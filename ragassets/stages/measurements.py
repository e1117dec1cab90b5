"""How good a version is: golden queries, search latency, approximate against exact search.

The vector store is opened for a part of the queries at a time, so that others get their turn.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.collection_config import check_same_embedding
from ragassets.core.evaluation import (
    CUTOFF,
    GoldenQuery,
    QueryScore,
    rank_documents,
    recall_against_exact,
    score_rankings,
)
from ragassets.core.gates import SearchLatency
from ragassets.core.indexing import VectorStore
from ragassets.core.searching import SearchRequest

HITS_PER_QUERY = 50
"""Chunks fetched to rank ten documents: a document of five chunks may fill five ranks."""

SEARCHES_PER_SESSION = 50
"""About a second of a store that others wait for."""

N_SAMPLES = 100
"""Vectors that are searched for both ways: the recall is then known to about 0.01."""

SAMPLE_SEED = 20_260_102

TIED_HITS = 40
"""Exact hits beyond the ten: equal texts in many documents are equally near."""


@dataclass(frozen=True)
class GoldenRun:
    """The golden queries, answered by one version."""

    scores: tuple[QueryScore, ...]
    latency: SearchLatency | None
    """None without queries."""


@dataclass(frozen=True)
class RecallSample:
    """Approximate search measured against exact search."""

    recall: float
    """Mean recall of the ten nearest neighbours, in [0, 1]."""
    n_samples: int


def run_golden_queries(
    workspace: Workspace,
    index_version: str,
    golden: Sequence[GoldenQuery],
    timer: Callable[[], float] = time.perf_counter,
) -> GoldenRun:
    """Ask a version all golden queries, the way that `ragassets search` asks.

    Args:
        workspace: Where the version is.
        index_version: Its name; its collection exists.
        golden: The queries.
        timer: Seconds, for the latency of each search in the store.

    Raises:
        IndexVersionError: The collection was built with another model than the one of that name.
    """
    version = workspace.config.index_version(index_version)
    embedder = workspace.embedder(version.embedding_model)
    with workspace.vector_store() as store:
        existing = store.collection_config(index_version)
    check_same_embedding(index_version, existing=existing, fingerprint=embedder.fingerprint)
    # Before the store is opened: loading a model takes seconds, and searches would wait.
    vectors = embedder.embed_queries([query.query for query in golden])
    requests = [
        SearchRequest(
            vector=vector,
            text=query.query,
            mode="hybrid" if version.sparse else "dense",
            limit=HITS_PER_QUERY,
        )
        for query, vector in zip(golden, vectors, strict=True)
    ]
    rankings: list[list[str]] = []
    seconds: list[float] = []
    for store, part in _sessions(workspace, requests):
        store.search(index_version, part[0])  # opens the collection: not a latency of searching
        for request in part:
            started = timer()
            hits = store.search(index_version, request)
            seconds.append(timer() - started)
            rankings.append(rank_documents([str(hit.payload["uri"]) for hit in hits]))
    return GoldenRun(tuple(score_rankings(golden, rankings)), _latency(seconds))


def _sessions(
    workspace: Workspace, requests: Sequence[SearchRequest]
) -> Iterator[tuple[VectorStore, Sequence[SearchRequest]]]:
    for start in range(0, len(requests), SEARCHES_PER_SESSION):
        with workspace.vector_store() as store:
            yield store, requests[start : start + SEARCHES_PER_SESSION]


def _latency(seconds: Sequence[float]) -> SearchLatency | None:
    if not seconds:
        return None
    p50, p95 = np.quantile(np.array(seconds) * 1000, [0.5, 0.95])
    return SearchLatency(p50_ms=round(float(p50), 3), p95_ms=round(float(p95), 3))


def sample_chunks(chunk_ids: Sequence[str]) -> frozenset[str]:
    """The chunks whose vectors are searched for: the same ones for the same version."""
    ordered = sorted(chunk_ids)
    random = np.random.default_rng(SAMPLE_SEED)
    size = min(N_SAMPLES, len(ordered))
    chosen: list[int] = random.choice(len(ordered), size, replace=False).tolist()
    return frozenset(ordered[i] for i in chosen)


def measure_recall(
    workspace: Workspace, index_version: str, sample: Mapping[str, NDArray[np.float32]]
) -> RecallSample | None:
    """Search for the neighbours of the version's own vectors, as usual and exactly.

    A vector's own point is no neighbour: every index finds that one.

    Args:
        workspace: Where the version is.
        index_version: Its name; its collection exists.
        sample: (dim,) float32 vectors by point id.

    Returns:
        None without vectors.
    """
    if not sample:
        return None
    points = sorted(sample)
    requests = [
        SearchRequest(mode="dense", limit=CUTOFF + TIED_HITS, vector=sample[point], exact=True)
        for point in points
    ]
    recalls: list[float] = []
    for store, part in _sessions(workspace, requests):
        for point, request in zip(points[len(recalls) :], part, strict=False):
            recalls.append(_recall(store, index_version, point, request))
    return RecallSample(fmean(recalls), len(recalls))


def _recall(store: VectorStore, index_version: str, point: str, request: SearchRequest) -> float:
    # As many as a search asks for that wants ten: a larger limit would make the search better.
    usual = SearchRequest(mode="dense", limit=CUTOFF + 1, vector=request.vector)
    found = [hit.point_id for hit in store.search(index_version, usual)]
    exact = [(hit.point_id, hit.score) for hit in store.search(index_version, request)]
    return recall_against_exact(
        [name for name in found if name != point],
        [(name, score) for name, score in exact if name != point],
    )
