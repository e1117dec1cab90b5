"""Which partition feeds which, in both directions."""

from typing import Any

import dagster as dg
import pytest

from ragassets.config import Config, IndexVersionConfig
from ragassets.defs.graph import build_definitions
from ragassets_tests.defs.test_definitions import rich_config

SHARDS = ("handbook-000", "handbook-001", "tickets-000")


def partitions_of(node: Any) -> dg.PartitionsDefinition[str]:
    """The partitions of an asset that has some."""
    assert node.partitions_def is not None
    return node.partitions_def


def downstream(config: Config, parent: str, child: str, *partitions: str) -> set[str]:
    """The child's partitions that these partitions of the parent feed."""
    graph = build_definitions(config).resolve_asset_graph()
    child_node = graph.get(dg.AssetKey(child))
    parent_node = graph.get(dg.AssetKey(parent))
    mapping = graph.get_partition_mapping(child_node.key, parent_node.key)
    subset = partitions_of(parent_node).empty_subset().with_partition_keys(partitions)
    return set(
        mapping.get_downstream_partitions_for_partitions(
            subset,
            partitions_of(parent_node),
            downstream_partitions_def=partitions_of(child_node),
        ).get_partition_keys()
    )


def upstream(config: Config, child: str, parent: str, *partitions: str) -> set[str]:
    """The parent's partitions that these partitions of the child need."""
    graph = build_definitions(config).resolve_asset_graph()
    child_node = graph.get(dg.AssetKey(child))
    parent_node = graph.get(dg.AssetKey(parent))
    mapping = graph.get_partition_mapping(child_node.key, parent_node.key)
    subset = partitions_of(child_node).empty_subset().with_partition_keys(partitions)
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        subset, partitions_of(child_node), partitions_of(parent_node)
    )
    assert not found.required_but_nonexistent_subset.get_partition_keys()
    return set(found.partitions_subset.get_partition_keys())


@pytest.mark.parametrize(
    ("parent", "child", "partition", "fed"),
    [
        ("raw_documents", "parsed_documents", "tickets-000", {"tickets-000"}),
        (
            "unique_documents",
            "chunks",
            "handbook-001",
            {"short|handbook-001", "long|handbook-001"},
        ),
        (
            "chunks",
            "embeddings",
            "short|handbook-001",
            {"short.minilm|handbook-001", "short.other|handbook-001"},
        ),
        ("chunks", "embeddings", "long|handbook-001", {"long.minilm|handbook-001"}),
        ("embeddings", "indexed_chunks", "short.other|tickets-000", {"v3|tickets-000"}),
        ("indexed_chunks", "index_versions", "v2|handbook-000", {"v2"}),
        ("indexed_chunks", "dead_letters", "v2|handbook-000", {"handbook-000"}),
        ("embeddings", "dead_letters", "short.other|tickets-000", {"tickets-000"}),
        ("indexed_chunks", "document_catalog", "v3|handbook-001", {"handbook-001"}),
    ],
)
def test_a_partition_feeds(parent: str, child: str, partition: str, fed: set[str]) -> None:
    """One changed shard must not ask for the work of another shard, chunking or model."""
    assert downstream(rich_config(), parent, child, partition) == fed


@pytest.mark.parametrize(
    ("child", "parent", "partition", "needed"),
    [
        ("parsed_documents", "raw_documents", "tickets-000", {"tickets-000"}),
        ("chunks", "unique_documents", "long|handbook-001", {"handbook-001"}),
        ("chunks", "clean_documents", "long|handbook-001", {"handbook-001"}),
        ("embeddings", "chunks", "short.other|tickets-000", {"short|tickets-000"}),
        ("indexed_chunks", "embeddings", "v2|handbook-000", {"long.minilm|handbook-000"}),
        ("index_versions", "indexed_chunks", "v2", {f"v2|{shard}" for shard in SHARDS}),
        (
            "dead_letters",
            "chunks",
            "tickets-000",
            {"short|tickets-000", "long|tickets-000"},
        ),
    ],
)
def test_a_partition_needs(child: str, parent: str, partition: str, needed: set[str]) -> None:
    """A build computes what its version needs and nothing else."""
    assert upstream(rich_config(), child, parent, partition) == needed


def test_a_duplicate_decision_looks_at_all_shards() -> None:
    """A copy may lie in any shard, so a new signature anywhere may change any decision."""
    config = rich_config()

    assert upstream(config, "unique_documents", "_document_signatures", "tickets-000") == set(
        SHARDS
    )
    assert downstream(config, "_document_signatures", "unique_documents", "tickets-000") == set(
        SHARDS
    )


def test_a_new_index_version_is_missing_partitions_and_nothing_else() -> None:
    """The backfill of a new version: its own points, no chunk and no vector that is there."""
    before = rich_config()
    v4 = IndexVersionConfig(chunking="long", embedding_model="minilm", distance="dot")
    after = before.model_copy(update={"index_versions": {**before.index_versions, "v4": v4}})
    new = {
        name: _keys(after, name) - _keys(before, name)
        for name in ("chunks", "embeddings", "indexed_chunks", "index_versions")
    }

    assert new == {
        "chunks": set(),
        "embeddings": set(),
        "indexed_chunks": {f"v4|{shard}" for shard in SHARDS},
        "index_versions": {"v4"},
    }
    assert upstream(after, "indexed_chunks", "embeddings", "v4|tickets-000") == {
        "long.minilm|tickets-000"
    }


def _keys(config: Config, name: str) -> set[str]:
    node = build_definitions(config).resolve_asset_graph().get(dg.AssetKey(name))
    return set(partitions_of(node).get_partition_keys())
