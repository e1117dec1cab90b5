"""What both Qdrant engines, the embedded one and the server, store in a point and ask for.

Their Python types differ, their behaviour must not: BM25 weights, the payload key for filters on
metadata, the queries of a search and the fusion of its rankings are decided here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.core.access import READERS, TENANT
from ragassets.core.collection_config import CollectionConfig, Quantization
from ragassets.core.indexing import DENSE_VECTOR, SPARSE_VECTOR, Payload, PointBatch
from ragassets.core.searching import SearchRequest, fuse, fusion_depth, metadata_terms

if TYPE_CHECKING:
    from qdrant_edge import SparseVector

METADATA_TERMS = "metadata_terms"
"""Payload key of our own for filters on metadata; no hit shows it. Direct conditions would scan all
payloads (120 ms at 20,000 points), and the engine's Python binding takes the booleans of an exact
match for integers, so that they never match."""

INDEXED_FIELDS = (
    "document_id",
    "source",
    "document_type",
    "language",
    METADATA_TERMS,
    TENANT,
    READERS,
)
"""Filters on these take 0.2 ms at 20,000 points, others 120 ms. Created before any point."""

MAX_LANGUAGES = 64

OVERSAMPLING: Mapping[Quantization, float] = {"int8": 1.5, "binary": 4.0}
"""How many times the wanted hits are taken by their quantized vectors, to be rescored by the
original ones. See docs/vector-stores.md for the recall that was measured with these."""

Ranking = list[tuple[str, float]]
"""Point ids with their scores, best first."""


class EncodedPoint(NamedTuple):
    """One point as both engines take it."""

    point_id: str
    dense: list[float]
    sparse: "SparseVector | None"
    """Term ids and BM25 weights; None without any term."""
    payload: dict[str, object]


class VectorQuery(NamedTuple):
    """One ranking that a search asks for, by one named vector."""

    using: str
    dense: list[float]
    terms: list[int]
    """Term ids of a sparse query, each of weight 1."""
    sign: int
    """Makes the engine's scores "higher is better"."""


def encode_points(batch: PointBatch, config: CollectionConfig) -> Iterator[EncodedPoint]:
    """Yield the points with their named vectors; BM25 weights come from `payload["text"]`."""
    encoder = Bm25Encoder(default_language=config.language) if config.sparse else None
    for identifier, vector, payload in zip(
        batch.point_ids, batch.vectors.tolist(), batch.payloads, strict=True
    ):
        sparse = None
        if encoder is not None:
            language = payload.get("language")
            sparse = encoder.encode_document(
                str(payload.get("text", "")), language if isinstance(language, str) else None
            )
        yield EncodedPoint(identifier, vector, sparse, _stored_payload(payload))


def shown_payload(stored: Payload | None) -> Payload:
    """Return a stored payload without the keys that are ours alone."""
    return {key: value for key, value in (stored or {}).items() if key != METADATA_TERMS}


def vector_queries(
    request: SearchRequest,
    config: CollectionConfig,
    language_shares: Callable[[], Mapping[str, float]],
) -> list[VectorQuery]:
    """Return the rankings that a search needs.

    Args:
        request: the search.
        config: of the collection.
        language_shares: asks the collection for its languages and their shares of its chunks.
    """
    queries: list[VectorQuery] = []
    if request.mode != "sparse" and request.vector is not None:
        sign = -1 if config.distance == "euclid" else 1
        queries.append(VectorQuery(DENSE_VECTOR, request.vector.tolist(), [], sign))
    if request.mode != "dense" and request.text is not None:
        encoder = Bm25Encoder(default_language=config.language)
        terms = encoder.encode_query(request.text, language_shares())
        if terms:
            queries.append(VectorQuery(SPARSE_VECTOR, [], terms, 1))
    return queries


def ranking_depth(request: SearchRequest) -> int:
    """Return how many hits each ranking of a search has to bring."""
    return fusion_depth(request.limit) if request.mode == "hybrid" else request.limit


def sort_ranking(scored: Iterable[tuple[str, float]], sign: int) -> Ranking:
    """Return a ranking, best first; equal scores are ordered by point id."""
    ranked = [(identifier, sign * score) for identifier, score in scored]
    return sorted(ranked, key=lambda hit: (-hit[1], hit[0]))


def combine_rankings(request: SearchRequest, rankings: Sequence[Ranking]) -> Ranking:
    """Return the hits of a search: the fused rankings, or the only one."""
    if request.mode == "hybrid":
        ids = [[identifier for identifier, _ in ranking] for ranking in rankings]
        return fuse(ids, limit=request.limit)
    return [hit for ranking in rankings for hit in ranking]


def shares_of(counts: Iterable[tuple[str, int]]) -> dict[str, float]:
    """Return each value's share of all that were counted."""
    known = list(counts)
    total = sum(count for _, count in known)
    return {value: count / total for value, count in known}


def _stored_payload(payload: Payload) -> dict[str, object]:
    metadata = payload.get("metadata")
    known = cast("dict[str, object]", metadata) if isinstance(metadata, dict) else {}
    terms = metadata_terms(known)
    return {**payload, METADATA_TERMS: terms} if terms else dict(payload)
