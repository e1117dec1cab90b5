"""Translates points, filters and searches between ragassets and a Qdrant server."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ragassets.adapters.point_encoding import (
    METADATA_TERMS,
    OVERSAMPLING,
    EncodedPoint,
    VectorQuery,
    ranking_depth,
)
from ragassets.core.access import AnyOf
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import DENSE_VECTOR, SPARSE_VECTOR
from ragassets.core.searching import Condition, SearchRequest, condition_terms

if TYPE_CHECKING:
    from qdrant_client import models

FLOAT_BYTES = {"grpc": 4, "rest": 22}
"""Of one number in a message; JSON writes a float32 with up to 20 digits, a comma and a sign."""

TERM_BYTES = {"grpc": 9, "rest": 34}

POINT_OVERHEAD_BYTES = 100


def bounded_batches(
    points: Iterable[EncodedPoint], *, max_bytes: int, max_points: int, protocol: str
) -> Iterator[list[EncodedPoint]]:
    """Yield the points in order, in batches that fit into one request each.

    A single point that is larger than `max_bytes` goes alone.
    """
    batch: list[EncodedPoint] = []
    n_bytes = 0
    for point in points:
        size = request_bytes(point, protocol)
        if batch and (n_bytes + size > max_bytes or len(batch) == max_points):
            yield batch
            batch, n_bytes = [], 0
        batch.append(point)
        n_bytes += size
    if batch:
        yield batch


def request_bytes(point: EncodedPoint, protocol: str) -> int:
    """Return about how many bytes a point takes in a request; rather too many than too few."""
    n_terms = len(point.sparse.indices) if point.sparse is not None else 0
    payload = len(json.dumps(point.payload, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return (
        POINT_OVERHEAD_BYTES
        + len(point.dense) * FLOAT_BYTES[protocol]
        + n_terms * TERM_BYTES[protocol]
        + payload
    )


def server_points(points: Sequence[EncodedPoint]) -> "list[models.PointStruct]":
    """Return the points as the client takes them; checked before, so it checks nothing."""
    from qdrant_client import models

    found: list[models.PointStruct] = []
    for point in points:
        vectors: dict[str, object] = {DENSE_VECTOR: point.dense}
        if point.sparse is not None:
            vectors[SPARSE_VECTOR] = models.SparseVector.model_construct(
                indices=point.sparse.indices, values=point.sparse.values
            )
        found.append(
            models.PointStruct.model_construct(
                id=point.point_id, vector=vectors, payload=point.payload
            )
        )
    return found


def server_filter(conditions: Sequence[Condition]) -> "models.Filter | None":
    """Return the server's filter; None when everything matches."""
    from qdrant_client import models

    if not conditions:
        return None
    return models.Filter(must=[_server_condition(condition) for condition in conditions])


def server_query(
    query: VectorQuery,
    request: SearchRequest,
    config: CollectionConfig,
    selection: "models.Filter | None",
) -> "models.QueryRequest":
    """Return one ranking of a search as the server takes it; payloads are fetched afterwards."""
    from qdrant_client import models

    is_sparse = query.using == SPARSE_VECTOR
    vector = (
        models.SparseVector(indices=query.terms, values=[1.0] * len(query.terms))
        if is_sparse
        else query.dense
    )
    return models.QueryRequest(
        query=models.NearestQuery(nearest=vector),
        using=query.using,
        filter=selection,
        params=None if is_sparse else _search_params(request, config),
        limit=ranking_depth(request),
        with_payload=False,
    )


def _search_params(
    request: SearchRequest, config: CollectionConfig
) -> "models.SearchParams | None":
    from qdrant_client import models

    if request.exact:
        ignored = models.QuantizationSearchParams(ignore=True)
        return models.SearchParams(exact=True, quantization=ignored)
    if config.quantization == "none":
        return None
    return models.SearchParams(
        quantization=models.QuantizationSearchParams(
            rescore=True, oversampling=OVERSAMPLING[config.quantization]
        )
    )


def _server_condition(condition: Condition) -> "models.FieldCondition | models.Filter":
    from qdrant_client import models

    if isinstance(condition, AnyOf):
        values = models.MatchAny(any=[*condition.values])
        return models.FieldCondition(key=condition.key, match=values)
    key = condition.path[0]
    if key == "metadata":
        terms = models.MatchAny(any=condition_terms(condition))
        return models.FieldCondition(key=METADATA_TERMS, match=terms)
    text = models.FieldCondition(key=key, match=models.MatchValue(value=condition.text))
    if condition.number is None:
        return text
    # A range, because an exact match on 3 does not find 3.0.
    number = float(condition.number)
    is_equal = models.FieldCondition(key=key, range=models.Range(gte=number, lte=number))
    return models.Filter(should=[text, is_equal])
