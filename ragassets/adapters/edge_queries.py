"""Translates points, filters and searches between ragassets and one open Qdrant Edge shard."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.core.indexing import (
    DENSE_VECTOR,
    SPARSE_VECTOR,
    CollectionConfig,
    Payload,
    PointBatch,
)
from ragassets.core.searching import (
    FilterCondition,
    SearchHit,
    SearchRequest,
    condition_terms,
    fuse,
    fusion_depth,
    metadata_terms,
    parse_filters,
)

if TYPE_CHECKING:
    from qdrant_edge import (
        EdgeShard,
        FieldCondition,
        Filter,
        Point,
        Query,
        QueryRequest,
        SparseVector,
    )

    NamedVector = list[float] | SparseVector | list[list[float]]

METADATA_TERMS = "metadata_terms"
"""Payload key of our own for filters on metadata; no hit shows it. Direct conditions would scan all
payloads (120 ms at 20,000 points), and the engine's Python binding takes the booleans of an exact
match for integers, so that they never match."""

MAX_LANGUAGES = 64


def edge_points(batch: PointBatch, config: CollectionConfig) -> "list[Point]":
    """Return the points with their named vectors; BM25 weights come from `payload["text"]`."""
    from qdrant_edge import Point, SparseVector

    encoder = Bm25Encoder(default_language=config.language) if config.sparse else None
    points: list[Point] = []
    for identifier, vector, payload in zip(
        batch.point_ids, batch.vectors.tolist(), batch.payloads, strict=True
    ):
        vectors: dict[str, NamedVector] = {DENSE_VECTOR: vector}
        if encoder is not None:
            language = payload.get("language")
            indices, values = encoder.encode_document(
                str(payload.get("text", "")), language if isinstance(language, str) else None
            )
            if indices:
                vectors[SPARSE_VECTOR] = SparseVector(indices=indices, values=values)
        points.append(Point(identifier, vectors, _stored_payload(payload)))
    return points


def edge_filter(conditions: Sequence[FilterCondition]) -> "Filter | None":
    """Return the engine's filter; None when everything matches."""
    from qdrant_edge import Filter

    if not conditions:
        return None
    return Filter(must=[_edge_condition(condition) for condition in conditions])


def search_shard(
    shard: "EdgeShard", request: SearchRequest, config: CollectionConfig
) -> list[SearchHit]:
    """Return the best hits, best first; equal scores are ordered by point id."""
    from qdrant_edge import QueryRequest

    is_hybrid = request.mode == "hybrid"
    depth = fusion_depth(request.limit) if is_hybrid else request.limit
    selection = edge_filter(parse_filters(request.filters))
    rankings = [
        _rank(shard, QueryRequest(limit=depth, query=query, filter=selection), sign)
        for query, sign in _queries(shard, request, config)
    ]
    if is_hybrid:
        ids = [[identifier for identifier, _ in ranking] for ranking in rankings]
        return _with_payloads(shard, fuse(ids, limit=request.limit))
    return _with_payloads(shard, [hit for ranking in rankings for hit in ranking])


def _stored_payload(payload: Payload) -> dict[str, object]:
    metadata = payload.get("metadata")
    known = cast("dict[str, object]", metadata) if isinstance(metadata, dict) else {}
    return {**payload, METADATA_TERMS: metadata_terms(known)}


def _shown_payload(stored: Payload | None) -> Payload:
    return {key: value for key, value in (stored or {}).items() if key != METADATA_TERMS}


def _queries(
    shard: "EdgeShard", request: SearchRequest, config: CollectionConfig
) -> "list[tuple[Query, int]]":
    """Return the engine's queries, each with the sign that makes its scores "higher is better"."""
    from qdrant_edge import Query, SparseVector

    queries: list[tuple[Query, int]] = []
    if request.mode != "sparse" and request.vector is not None:
        sign = -1 if config.distance == "euclid" else 1
        queries.append((Query.Nearest(request.vector.tolist(), using=DENSE_VECTOR), sign))
    if request.mode != "dense" and request.text is not None:
        encoder = Bm25Encoder(default_language=config.language)
        terms = encoder.encode_query(request.text, _language_shares(shard))
        if terms:
            sparse = SparseVector(indices=terms, values=[1.0] * len(terms))
            queries.append((Query.Nearest(sparse, using=SPARSE_VECTOR), 1))
    return queries


def _rank(shard: "EdgeShard", query: "QueryRequest", sign: int) -> list[tuple[str, float]]:
    ranked = [(str(point.id), sign * point.score) for point in shard.query(query)]
    return sorted(ranked, key=lambda hit: (-hit[1], hit[0]))


def _with_payloads(shard: "EdgeShard", ranked: list[tuple[str, float]]) -> list[SearchHit]:
    records = shard.retrieve(
        [identifier for identifier, _ in ranked], with_payload=True, with_vector=False
    )
    payloads = {str(record.id): _shown_payload(record.payload) for record in records}
    return [SearchHit(identifier, score, payloads[identifier]) for identifier, score in ranked]


def _language_shares(shard: "EdgeShard") -> dict[str, float]:
    from qdrant_edge import FacetRequest

    hits = shard.facet(FacetRequest("language", limit=MAX_LANGUAGES)).hits
    total = sum(hit.count for hit in hits)
    return {str(hit.value): hit.count / total for hit in hits}


def _edge_condition(condition: FilterCondition) -> "FieldCondition | Filter":
    from qdrant_edge import FieldCondition, Filter, MatchAny, MatchValue, RangeFloat

    if condition.path[0] == "metadata":
        return FieldCondition(METADATA_TERMS, match=MatchAny(condition_terms(condition)))
    key = condition.path[0]
    text = FieldCondition(key, match=MatchValue(condition.text))
    if condition.number is None:
        return text
    # A range, because an exact match on 3 does not find 3.0.
    number = float(condition.number)
    return Filter(should=[text, FieldCondition(key, range=RangeFloat(gte=number, lte=number))])
