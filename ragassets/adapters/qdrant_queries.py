"""Translates points, filters and searches between ragassets and a Qdrant server."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

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
    from qdrant_client import QdrantClient, models

FLOAT_BYTES, TERM_BYTES = 22, 34
"""Of one number and of one term in JSON, which writes a float32 with up to 20 digits."""

POINT_OVERHEAD_BYTES = 100

Sized = tuple[object, int]
"""A point as the client takes it, and about how many bytes it takes in a request; rather too many
than too few."""


def bounded_batches(
    points: Iterable[Sized], *, max_bytes: int, max_points: int
) -> Iterator[list[object]]:
    """Yield the points in order, in batches that fit into one request each.

    A single point that is larger than `max_bytes` goes alone.
    """
    batch: list[object] = []
    n_bytes = 0
    for point, size in points:
        if batch and (n_bytes + size > max_bytes or len(batch) == max_points):
            yield batch
            batch, n_bytes = [], 0
        batch.append(point)
        n_bytes += size
    if batch:
        yield batch


def grpc_points(points: Iterable[EncodedPoint]) -> Iterator[Sized]:
    """Yield the points as gRPC messages.

    The client makes the same messages of its models, but takes three times as long: more than all
    the rest that the writing of a point costs this process.
    """
    from qdrant_client import grpc
    from qdrant_client.conversions.conversion import RestToGrpc

    for point in points:
        message = grpc.PointStruct(
            id={"uuid": point.point_id}, payload=RestToGrpc.convert_payload(point.payload)
        )
        vectors = message.vectors.vectors.vectors
        vectors[DENSE_VECTOR].dense.data.extend(point.dense)
        if point.sparse is not None:
            sparse = vectors[SPARSE_VECTOR].sparse
            sparse.indices.extend(point.sparse.indices)
            sparse.values.extend(point.sparse.values)
        yield message, POINT_OVERHEAD_BYTES + message.ByteSize()


def upsert_messages(
    client: "QdrantClient", collection: str, points: Sequence[object], timeout_seconds: float
) -> "models.UpdateResult":
    """Send one request with `grpc_points`; the client's own `upsert` is about to refuse them."""
    from qdrant_client import grpc
    from qdrant_client.conversions.conversion import GrpcToRest

    request = grpc.UpsertPoints(
        collection_name=collection, wait=True, points=cast("Sequence[grpc.PointStruct]", points)
    )
    stub = cast("Any", client.grpc_points)  # generated without types
    answer = stub.Upsert(request, timeout=timeout_seconds)
    return GrpcToRest.convert_update_result(answer.result)


def rest_points(points: Iterable[EncodedPoint]) -> Iterator[Sized]:
    """Yield the points as models of the client; checked before, so it checks nothing."""
    from qdrant_client import models

    for point in points:
        vectors: dict[str, object] = {DENSE_VECTOR: point.dense}
        n_terms = 0
        if point.sparse is not None:
            indices = point.sparse.indices
            n_terms = len(indices)
            vectors[SPARSE_VECTOR] = models.SparseVector.model_construct(
                indices=indices, values=point.sparse.values
            )
        model = models.PointStruct.model_construct(
            id=point.point_id, vector=vectors, payload=point.payload
        )
        payload = json.dumps(point.payload, ensure_ascii=False).encode("utf-8", "surrogatepass")
        n_numbers = len(point.dense) * FLOAT_BYTES + n_terms * TERM_BYTES
        yield model, POINT_OVERHEAD_BYTES + n_numbers + len(payload)


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
