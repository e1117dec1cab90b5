"""Opens, creates and optimizes one shard of the embedded Qdrant engine; turns its errors into ours.

The engine raises bare `Exception` for everything and Rust panics outside of it, so the translation
lives at one place. Qdrant Edge has no type for "somebody else has it open" but the text
`WouldBlock`.
"""

import multiprocessing
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ragassets.adapters.point_encoding import INDEXED_FIELDS
from ragassets.adapters.store_lock import POLL_SECONDS
from ragassets.core.access import TENANT
from ragassets.core.collection_config import CollectionConfig, Distance
from ragassets.core.indexing import DENSE_VECTOR, SPARSE_VECTOR
from ragassets.errors import (
    StorageUnavailableError,
    SystemResourceError,
    VectorStoreLockedError,
)

if TYPE_CHECKING:
    from qdrant_edge import (
        BinaryQuantizationConfig,
        EdgeConfig,
        EdgeShard,
        ScalarQuantizationConfig,
    )

EXACT_SEARCH_POINTS = 100_000
"""Up to here exact search is the better index: 9 ms a query, no build, nothing missed."""

FLOAT_BYTES = 4

COPIED_POINTS = 1_000
"""Points in memory while a shard is copied: 4 MB at 384 dimensions."""


def create_shard(path: Path, config: CollectionConfig) -> None:
    """Create an empty shard with its payload indexes, and close it."""
    from qdrant_edge import EdgeShard

    path.mkdir(parents=True)
    shard = EdgeShard.create(str(path), _edge_config(config))
    index_fields(shard)
    shard.flush()
    shard.close()


def index_fields(shard: "EdgeShard") -> None:
    """Create the payload indexes that the shard lacks: older ones were made with fewer."""
    from qdrant_edge import KeywordIndexParams, UpdateOperation

    for field in INDEXED_FIELDS:
        if field not in shard.info().payload_schema:
            # A tenant's points are stored side by side.
            params = KeywordIndexParams(is_tenant=field == TENANT)
            shard.update(UpdateOperation.create_field_index(field, params))


def load_shard(path: Path, *, timeout_seconds: float) -> "EdgeShard":
    """Open a shard, waiting for an orphaned optimizer that may still hold it.

    Raises:
        VectorStoreLockedError: another process keeps it open.
    """
    from qdrant_edge import EdgeShard

    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            shard = EdgeShard.load(str(path))
        except Exception as error:  # the engine raises nothing narrower; the rest goes on as it is
            if "WouldBlock" not in str(error):
                raise
            if time.monotonic() >= deadline:
                raise VectorStoreLockedError(
                    path=str(path),
                    holder="another process that has its files open",
                    waited_seconds=timeout_seconds,
                ) from error
        else:
            index_fields(shard)
            return shard
        time.sleep(POLL_SECONDS)


def copy_points(source: "EdgeShard", target: Path) -> None:
    """Write all points of an open shard, as they are, into an empty one; durable on return."""
    from qdrant_edge import EdgeShard, Point, ScrollRequest, UpdateOperation

    copy = EdgeShard.load(str(target))
    try:
        offset = None
        while True:
            request = ScrollRequest(
                offset=offset, limit=COPIED_POINTS, with_payload=True, with_vector=True
            )
            records, offset = source.scroll(request)
            points = [Point(r.id, r.vector or {}, r.payload or {}) for r in records]
            if points:
                copy.update(UpdateOperation.upsert_points(points))
            if offset is None:
                break
        copy.flush()
    finally:
        copy.close()


def optimize_in_child(path: Path) -> None:
    """Build the approximate index of a closed shard in a child process.

    The engine keeps the interpreter lock while it builds, for minutes on a large shard.

    Raises:
        SystemResourceError: the child was killed, as by the kernel for its memory.
        StorageUnavailableError: the engine could not do it.
    """
    child = multiprocessing.get_context("spawn").Process(target=_optimize_shard, args=(str(path),))
    child.start()
    child.join()
    code = child.exitcode or 0
    if code < 0:
        raise SystemResourceError(
            resource="index optimizer",
            detail=f"it was killed by signal {-code}; the collection is as before",
            fix="Give it more memory or disk",
        )
    if code > 0:
        raise StorageUnavailableError(
            service=f"vector store {path}", detail=f"optimizing failed with exit code {code}"
        )


def _optimize_shard(path: str) -> None:
    from qdrant_edge import EdgeShard

    shard = EdgeShard.load(path)
    shard.optimize()
    shard.close()


def _edge_config(config: CollectionConfig) -> "EdgeConfig":
    from qdrant_edge import Distance as EdgeDistance
    from qdrant_edge import (
        EdgeConfig,
        EdgeOptimizersConfig,
        EdgeSparseVectorParams,
        EdgeVectorParams,
        Modifier,
    )

    distances: dict[Distance, EdgeDistance] = {
        "cosine": EdgeDistance.Cosine,
        "dot": EdgeDistance.Dot,
        "euclid": EdgeDistance.Euclid,
    }
    dense = EdgeVectorParams(
        size=config.dim,
        distance=distances[config.distance],
        quantization_config=_quantization(config),
    )
    sparse = {SPARSE_VECTOR: EdgeSparseVectorParams(modifier=Modifier.Idf)}
    threshold_kib = EXACT_SEARCH_POINTS * config.dim * FLOAT_BYTES // 1024
    return EdgeConfig(
        vectors={DENSE_VECTOR: dense},
        sparse_vectors=sparse if config.sparse else None,
        optimizers=EdgeOptimizersConfig(indexing_threshold=threshold_kib),
    )


def _quantization(
    config: CollectionConfig,
) -> "ScalarQuantizationConfig | BinaryQuantizationConfig | None":
    from qdrant_edge import BinaryQuantizationConfig, Memory, ScalarQuantizationConfig, ScalarType

    match config.quantization:
        case "none":
            return None
        case "int8":
            return ScalarQuantizationConfig(type=ScalarType.Int8, memory=Memory.Pinned)
        case "binary":
            return BinaryQuantizationConfig(memory=Memory.Pinned)
