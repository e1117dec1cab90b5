"""Translates points, filters and searches between ragassets and one open Qdrant Edge shard."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ragassets.adapters.point_encoding import (
    MAX_LANGUAGES,
    METADATA_TERMS,
    OVERSAMPLING,
    Ranking,
    VectorQuery,
    combine_rankings,
    encode_points,
    ranking_depth,
    shares_of,
    shown_payload,
    sort_ranking,
    vector_queries,
)
from ragassets.core.access import AnyOf
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import DENSE_VECTOR, SPARSE_VECTOR, PointBatch
from ragassets.core.searching import (
    Condition,
    SearchHit,
    SearchRequest,
    condition_terms,
)

if TYPE_CHECKING:
    from qdrant_edge import (
        EdgeShard,
        FieldCondition,
        Filter,
        Point,
        QueryRequest,
        SearchParams,
        SparseVector,
    )

    NamedVector = list[float] | SparseVector | list[list[float]]


def edge_points(batch: PointBatch, config: CollectionConfig) -> "list[Point]":
    """Return the points as the engine takes them."""
    from qdrant_edge import Point

    points: list[Point] = []
    for point in encode_points(batch, config):
        vectors: dict[str, NamedVector] = {DENSE_VECTOR: point.dense}
        if point.sparse is not None:
            vectors[SPARSE_VECTOR] = point.sparse
        points.append(Point(point.point_id, vectors, point.payload))
    return points


def edge_filter(conditions: Sequence[Condition]) -> "Filter | None":
    """Return the engine's filter; None when everything matches."""
    from qdrant_edge import Filter

    if not conditions:
        return None
    return Filter(must=[_edge_condition(condition) for condition in conditions])


def search_shard(
    shard: "EdgeShard", request: SearchRequest, config: CollectionConfig
) -> list[SearchHit]:
    """Return the best hits, best first; equal scores are ordered by point id."""
    selection = edge_filter(request.conditions)
    rankings = [
        _rank(shard, _query_request(query, request, config, selection), query.sign)
        for query in vector_queries(request, config, partial(_language_shares, shard))
    ]
    return _with_payloads(shard, combine_rankings(request, rankings))


def _query_request(
    query: VectorQuery,
    request: SearchRequest,
    config: CollectionConfig,
    selection: "Filter | None",
) -> "QueryRequest":
    from qdrant_edge import Query, QueryRequest, SparseVector

    is_sparse = query.using == SPARSE_VECTOR
    vector = (
        SparseVector(indices=query.terms, values=[1.0] * len(query.terms))
        if is_sparse
        else query.dense
    )
    return QueryRequest(
        limit=ranking_depth(request),
        query=Query.Nearest(vector, using=query.using),
        filter=selection,
        params=None if is_sparse else _search_params(request, config),
    )


def _search_params(request: SearchRequest, config: CollectionConfig) -> "SearchParams | None":
    from qdrant_edge import QuantizationSearchParams, SearchParams

    if request.exact:
        return SearchParams(exact=True, quantization=QuantizationSearchParams(ignore=True))
    if config.quantization == "none":
        return None
    oversampling = OVERSAMPLING[config.quantization]
    return SearchParams(
        quantization=QuantizationSearchParams(rescore=True, oversampling=oversampling)
    )


def _rank(shard: "EdgeShard", request: "QueryRequest", sign: int) -> Ranking:
    return sort_ranking(((str(point.id), point.score) for point in shard.query(request)), sign)


def _with_payloads(shard: "EdgeShard", ranked: Ranking) -> list[SearchHit]:
    records = shard.retrieve(
        [identifier for identifier, _ in ranked], with_payload=True, with_vector=False
    )
    payloads = {str(record.id): shown_payload(record.payload) for record in records}
    return [SearchHit(identifier, score, payloads[identifier]) for identifier, score in ranked]


def _language_shares(shard: "EdgeShard") -> dict[str, float]:
    from qdrant_edge import FacetRequest

    hits = shard.facet(FacetRequest("language", limit=MAX_LANGUAGES)).hits
    return shares_of((str(hit.value), hit.count) for hit in hits)


def _edge_condition(condition: Condition) -> "FieldCondition | Filter":
    from qdrant_edge import FieldCondition, Filter, MatchAny, MatchValue, RangeFloat

    if isinstance(condition, AnyOf):
        return FieldCondition(condition.key, match=MatchAny([*condition.values]))
    if condition.path[0] == "metadata":
        return FieldCondition(METADATA_TERMS, match=MatchAny(condition_terms(condition)))
    key = condition.path[0]
    text = FieldCondition(key, match=MatchValue(condition.text))
    if condition.number is None:
        return text
    # A range, because an exact match on 3 does not find 3.0.
    number = float(condition.number)
    return Filter(should=[text, FieldCondition(key, range=RangeFloat(gte=number, lte=number))])
