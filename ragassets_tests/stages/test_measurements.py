"""Approximate against exact search, on the real engine."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ragassets.adapters import edge_engine, qdrant_edge_store
from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.gates import Measurements, apply_gates, failed_gates
from ragassets.core.indexing import DENSE_VECTOR, PointBatch, point_id
from ragassets.core.settings import GatesConfig
from ragassets.stages.measurements import N_SAMPLES, measure_recall, sample_chunks

DIM, N_POINTS = 32, 1500
CONFIG = CollectionConfig(dim=DIM, sparse=None)
CHUNKS = [f"{number:032x}" for number in range(N_POINTS)]


def few_links(config: CollectionConfig) -> object:
    """A graph of two links a point, indexed from the first point on."""
    from qdrant_edge import (
        Distance,
        EdgeConfig,
        EdgeOptimizersConfig,
        EdgeVectorParams,
        HnswIndexConfig,
    )

    graph = HnswIndexConfig(m=2, ef_construct=4, full_scan_threshold=1)
    vectors = EdgeVectorParams(size=config.dim, distance=Distance.Cosine, hnsw_config=graph)
    return EdgeConfig(
        vectors={DENSE_VECTOR: vectors}, optimizers=EdgeOptimizersConfig(indexing_threshold=1)
    )


def test_a_graph_with_too_few_links_fails_the_gate_that_exact_search_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and every count is right; only a comparison with the truth notices."""
    monkeypatch.setattr(edge_engine, "_edge_config", few_links)
    monkeypatch.setattr(qdrant_edge_store, "EXACT_SEARCH_POINTS", N_POINTS)
    workspace = SimpleNamespace(
        vector_store=lambda: QdrantEdgeStore(tmp_path / "qdrant", timeout_seconds=30)
    )
    vectors = np.random.default_rng(0).normal(size=(N_POINTS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [point_id(chunk) for chunk in CHUNKS]
    chosen = sample_chunks(CHUNKS)
    sample = {ids[i]: vectors[i] for i, chunk in enumerate(CHUNKS) if chunk in chosen}
    recalls = []
    with workspace.vector_store() as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", PointBatch(ids, vectors, [{"chunk_id": chunk} for chunk in CHUNKS]))
        store.flush("v1")
    recalls.append(measure_recall(workspace, "v1", sample))
    with workspace.vector_store() as store:
        assert store.optimize("v1")
    recalls.append(measure_recall(workspace, "v1", sample))
    exact, graph = recalls
    assert exact is not None
    assert graph is not None
    assert (exact.recall, exact.n_samples) == (1, N_SAMPLES)
    assert graph.recall < 0.5
    measured = Measurements(recall_vs_exact=graph.recall)
    (failed,) = failed_gates(apply_gates(GatesConfig(), measured))
    assert failed.startswith("min_recall_vs_exact is 0.9, found ")


def test_the_sample_is_seeded_and_does_not_depend_on_the_order() -> None:
    """The same version gives the same number."""
    assert sample_chunks(CHUNKS) == sample_chunks(CHUNKS[::-1])
    assert len(sample_chunks(CHUNKS)) == N_SAMPLES
    assert sample_chunks(CHUNKS[:3]) == set(CHUNKS[:3])
    assert sample_chunks([]) == frozenset()
