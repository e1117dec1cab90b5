"""Translates points, filters and searches between ragassets and one open Qdrant Edge shard."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.core.indexing import DENSE_VECTOR, SPARSE_VECTOR, CollectionConfig, PointBatch
from ragassets.core.searching import (
    FilterCondition,
    SearchHit,
    SearchRequest,
    fuse,
    fusion_depth,
    parse_filters,
)

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard, FieldCondition, Filter, Point, Query, SparseVector

    NamedVector = list[float] | SparseVector | list[list[float]]

MAX_LANGUAGES = 64
PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


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
        points.append(Point(identifier, vectors, dict(payload)))
    return points


def edge_filter(conditions: Sequence[FilterCondition]) -> "Filter | None":
    """Return the engine's filter; None when everything matches."""
    from qdrant_edge import Filter

    if not conditions:
        return None
    return Filter(must=[Filter(should=[*_readings(condition)]) for condition in conditions])


def search_shard(
    shard: "EdgeShard", request: SearchRequest, config: CollectionConfig
) -> list[SearchHit]:
    """Return the best hits, best first; equal scores are ordered by point id."""
    is_hybrid = request.mode == "hybrid"
    depth = fusion_depth(request.limit) if is_hybrid else request.limit
    rankings = [
        _rank(shard, query, depth, request.filters) for query in _queries(shard, request, config)
    ]
    if is_hybrid:
        ids = [[identifier for identifier, _ in ranking] for ranking in rankings]
        ranked = fuse(ids, limit=request.limit)
    else:
        ranked = [hit for ranking in rankings for hit in ranking]
    return _with_payloads(shard, ranked)


def _queries(shard: "EdgeShard", request: SearchRequest, config: CollectionConfig) -> "list[Query]":
    from qdrant_edge import Query, SparseVector

    queries: list[Query] = []
    if request.mode != "sparse" and request.vector is not None:
        queries.append(Query.Nearest(request.vector.tolist(), using=DENSE_VECTOR))
    if request.mode != "dense" and request.text is not None:
        encoder = Bm25Encoder(default_language=config.language)
        terms = encoder.encode_query(request.text, _language_shares(shard))
        if terms:
            sparse = SparseVector(indices=terms, values=[1.0] * len(terms))
            queries.append(Query.Nearest(sparse, using=SPARSE_VECTOR))
    return queries


def _rank(
    shard: "EdgeShard", query: "Query", limit: int, filters: Mapping[str, str]
) -> list[tuple[str, float]]:
    from qdrant_edge import QueryRequest

    selection = edge_filter(parse_filters(filters))
    found = shard.query(QueryRequest(limit=limit, query=query, filter=selection))
    ranked = [(str(point.id), point.score) for point in found]
    return sorted(ranked, key=lambda hit: (-hit[1], hit[0]))


def _with_payloads(shard: "EdgeShard", ranked: list[tuple[str, float]]) -> list[SearchHit]:
    records = shard.retrieve(
        [identifier for identifier, _ in ranked], with_payload=True, with_vector=False
    )
    payloads = {str(record.id): record.payload or {} for record in records}
    return [SearchHit(identifier, score, payloads[identifier]) for identifier, score in ranked]


def _language_shares(shard: "EdgeShard") -> dict[str, float]:
    from qdrant_edge import FacetRequest

    hits = shard.facet(FacetRequest("language", limit=MAX_LANGUAGES)).hits
    total = sum(hit.count for hit in hits)
    return {str(hit.value): hit.count / total for hit in hits}


def _readings(condition: FilterCondition) -> "list[FieldCondition]":
    from qdrant_edge import FieldCondition, MatchValue, RangeFloat

    key = ".".join(name if PLAIN_KEY.fullmatch(name) else f'"{name}"' for name in condition.path)
    readings = [FieldCondition(key, match=MatchValue(condition.text))]
    if condition.boolean is not None:
        readings.append(FieldCondition(key, match=MatchValue(condition.boolean)))
    if condition.number is not None:
        # A range, because an exact match on 3 does not find 3.0.
        number = float(condition.number)
        readings.append(FieldCondition(key, range=RangeFloat(gte=number, lte=number)))
    return readings
