"""The graph as Dagster sees it, pinned by hand: keys, groups and partitions are an interface."""

import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest

from ragassets.config import AuditConfig, Config, IndexVersionConfig, SourceConfig
from ragassets.core.settings import ChunkingConfig, EmbeddingModelConfig
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs.graph import build_definitions
from ragassets_tests.corpora import REPOSITORY_ROOT

GROUPS = {
    "source_objects": "ingestion",
    "raw_documents": "ingestion",
    "parsed_documents": "ingestion",
    "valid_documents": "ingestion",
    "clean_documents": "ingestion",
    "_document_signatures": "ingestion",
    "unique_documents": "ingestion",
    "chunks": "ingestion",
    "embeddings": "embedding",
    "indexed_chunks": "indexing",
    "index_versions": "indexing",
    "live_index": "indexing",
    "dead_letters": "operations",
    "document_catalog": "operations",
    "audit": "operations",
    "forgotten_documents": "operations",
}

KINDS = {
    "source_objects": {"deltalake"},
    "raw_documents": {"deltalake"},
    "parsed_documents": {"python", "deltalake"},
    "valid_documents": {"python", "deltalake"},
    "clean_documents": {"python", "deltalake"},
    "_document_signatures": {"python", "deltalake"},
    "unique_documents": {"python", "deltalake"},
    "chunks": {"python", "deltalake"},
    "embeddings": {"python", "huggingface", "deltalake"},
    "indexed_chunks": {"qdrant", "deltalake"},
    "index_versions": {"qdrant", "deltalake"},
    "live_index": {"qdrant"},
    "dead_letters": {"deltalake"},
    "document_catalog": {"sql"},
    "audit": {"deltalake", "qdrant", "sql"},
    "forgotten_documents": {"deltalake"},
}

PARENTS = {
    "source_objects": set[str](),
    "raw_documents": {"source_objects"},
    "parsed_documents": {"raw_documents"},
    "valid_documents": {"parsed_documents"},
    "clean_documents": {"valid_documents", "parsed_documents"},
    "_document_signatures": {"clean_documents"},
    "unique_documents": {"clean_documents", "_document_signatures"},
    "chunks": {"unique_documents", "clean_documents"},
    "embeddings": {"chunks"},
    "indexed_chunks": {"embeddings"},
    "index_versions": {"indexed_chunks"},
    "live_index": {"index_versions"},
    "dead_letters": {
        "raw_documents",
        "parsed_documents",
        "valid_documents",
        "clean_documents",
        "unique_documents",
        "chunks",
        "embeddings",
        "indexed_chunks",
    },
    "document_catalog": {"unique_documents", "dead_letters", "indexed_chunks"},
    "audit": {"document_catalog", "index_versions"},
    "forgotten_documents": set[str](),
}

POOLS = {
    "embeddings": {"embedding"},
    "indexed_chunks": {"vector_store"},
    "index_versions": {"vector_store"},
    "live_index": {"vector_store"},
}

JOBS = {
    "observe_sources": {"source_objects"},
    "process_documents": {
        "raw_documents",
        "parsed_documents",
        "valid_documents",
        "clean_documents",
        "_document_signatures",
    },
    "decide_duplicates": {"unique_documents"},
    "chunk_documents": {"chunks"},
    "embed_chunks": {"embeddings"},
    "index_chunks": {"indexed_chunks"},
    "seal_index_versions": {"index_versions"},
    "move_aliases": {"live_index"},
    "update_catalog": {"dead_letters", "document_catalog"},
    "drop_index_versions": set[str](),
    "replay_window": set[str](),
    "audit_everything": {"audit"},
    "forget_documents": {"forgotten_documents"},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    """Those of the built-in defaults."""
    return build_definitions(Config())


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    """Asset name to what its author said of it."""
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_assets_are_these(specs: dict[str, dg.AssetSpec]) -> None:
    """A renamed asset loses its history and breaks who reads its table."""
    assert set(specs) == set(GROUPS)


def test_groups_name_the_layers(specs: dict[str, dg.AssetSpec]) -> None:
    """The graph in the UI folds by them."""
    assert {name: spec.group_name for name, spec in specs.items()} == GROUPS


def test_kinds_say_what_an_asset_is_made_with(specs: dict[str, dg.AssetSpec]) -> None:
    """The UI draws an icon for each."""
    assert {name: set(spec.kinds) for name, spec in specs.items()} == KINDS


def test_every_asset_says_what_it_is_whose_it_is_and_which_code_made_it(
    specs: dict[str, dg.AssetSpec],
) -> None:
    """A person who meets an asset in the UI for the first time reads nothing else."""
    for name, spec in specs.items():
        assert spec.description, name
        assert len(spec.description) > 40, name
        assert list(spec.owners) == ["team:data-platform"], name
        assert spec.code_version == STAGE_VERSIONS[name]


def test_the_lineage_is_that_of_the_design(definitions: dg.Definitions) -> None:
    """What is downstream of a change follows from it."""
    graph = definitions.resolve_asset_graph()

    parents = {
        name: {parent.to_user_string() for parent in graph.get(dg.AssetKey(name)).parent_keys}
        for name in GROUPS
    }

    assert parents == PARENTS


def test_only_the_model_and_the_vector_store_are_limited_by_pools(
    definitions: dg.Definitions,
) -> None:
    """One model in memory, one owner of the embedded engine, across all runs."""
    graph = definitions.resolve_asset_graph()
    pools = {name: set(graph.get(dg.AssetKey(name)).pools or ()) for name in GROUPS}

    assert {name: found for name, found in pools.items() if found} == POOLS


def test_jobs_are_the_phases_of_an_ingestion_and_a_drop(definitions: dg.Definitions) -> None:
    """One run targets one partitions definition, so the phases are runs of their own."""
    jobs = {
        job.name: {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
        for job in definitions.resolve_all_job_defs()
        if not job.name.startswith("__")
    }

    assert jobs == JOBS
    assert all(definitions.resolve_job_def(name).description for name in JOBS)


def test_checks_are_few(definitions: dg.Definitions) -> None:
    """One check per document would swamp the event log (dagster #34101)."""
    keys = definitions.resolve_asset_graph().asset_check_keys

    assert {(key.asset_key.to_user_string(), key.name) for key in keys} == {
        ("index_versions", "every_shard_is_complete"),
        ("index_versions", "counts_are_equal"),
        ("index_versions", "vectors_are_sound"),
        ("index_versions", "gates_are_kept"),
        ("dead_letters", "most_documents_are_readable"),
        ("audit", "collections_are_true"),
        ("audit", "tables_agree"),
        ("audit", "catalog_is_true"),
        ("audit", "landing_zone_is_whole"),
    }


def test_no_other_run_runs_the_audit(definitions: dg.Definitions) -> None:
    """Checks run with the assets that they are of: an audit after every run would starve all."""
    audits = {"collections_are_true", "tables_agree", "catalog_is_true", "landing_zone_is_whole"}
    for name in JOBS.keys() - {"audit_everything"}:
        keys = definitions.resolve_job_def(name).asset_layer.asset_graph.asset_check_keys
        assert not audits & {key.name for key in keys}, name


def test_the_audit_is_scheduled_nightly_and_repairs_only_where_that_is_configured() -> None:
    """Behind everything else; damage has a cause that somebody should see before it is mended."""

    def schedule(**audit: object) -> list[dg.ScheduleDefinition]:
        found = build_definitions(Config(audit=AuditConfig(**audit))).schedules or ()
        return [entry for entry in found if entry.name == "audit_schedule"]

    (nightly,) = schedule()
    assert (nightly.cron_schedule, nightly.job_name) == ("0 3 * * *", "audit_everything")
    assert nightly.default_status == dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context()
    (request,) = nightly.evaluate_tick(context).run_requests or []
    assert request.run_config == {"ops": {"audit": {"config": {"repair": False}}}}
    assert request.tags["dagster/priority"] == "-20"
    (mending,) = schedule(repair=True)
    (request,) = mending.evaluate_tick(context).run_requests or []
    assert request.run_config == {"ops": {"audit": {"config": {"repair": True}}}}
    assert schedule(schedule=None) == []


def test_building_the_definitions_warns_of_nothing() -> None:
    """Dagster's notes about its beta classes are ours to read, not the user's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_definitions(Config())

    assert [str(warning.message) for warning in caught] == []


def test_partitions_follow_from_the_configuration() -> None:
    """Two sources, two chunkings, two models, three versions."""
    graph = build_definitions(rich_config()).resolve_asset_graph()

    def keys(name: str) -> set[str]:
        partitions = graph.get(dg.AssetKey(name)).partitions_def
        assert partitions is not None
        return set(partitions.get_partition_keys())

    shards = {"handbook-000", "handbook-001", "tickets-000"}
    assert keys("source_objects") == keys("unique_documents") == keys("dead_letters") == shards
    assert keys("chunks") == {f"{c}|{s}" for c in ("short", "long") for s in shards}
    sets = ("short.minilm", "long.minilm", "short.other")
    assert keys("embeddings") == {f"{name}|{s}" for name in sets for s in shards}
    assert keys("indexed_chunks") == {f"{v}|{s}" for v in ("v1", "v2", "v3") for s in shards}
    assert keys("index_versions") == {"v1", "v2", "v3"}


def rich_config() -> Config:
    """Two sources, two chunkings, two models, three index versions."""
    return Config(
        sources={
            "handbook": SourceConfig(uri="./handbook", shards=2),
            "tickets": SourceConfig(uri="./tickets", shards=1),
        },
        chunkings={
            "short": ChunkingConfig(max_tokens=64, overlap_tokens=8),
            "long": ChunkingConfig(),
        },
        embedding_models={
            "minilm": EmbeddingModelConfig(model="all-MiniLM-L6-v2", dim=384),
            "other": EmbeddingModelConfig(model="other", dim=16),
        },
        index_versions={
            "v1": IndexVersionConfig(chunking="short", embedding_model="minilm"),
            "v2": IndexVersionConfig(chunking="long", embedding_model="minilm"),
            "v3": IndexVersionConfig(chunking="short", embedding_model="other"),
        },
        aliases={},
    )


@pytest.mark.slow
@pytest.mark.integration
def test_dagster_validates_the_workspace_without_a_warning_of_ours(tmp_path: Path) -> None:
    """What CI and `dagster dev` load, from the repository's own `workspace.yaml`."""
    validated = subprocess.run(
        [
            sys.executable,
            "-m",
            "dagster",
            "definitions",
            "validate",
            "-w",
            str(REPOSITORY_ROOT / "workspace.yaml"),
        ],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY_ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = validated.stdout + validated.stderr

    assert validated.returncode == 0, said
    assert "Validation successful for code location ragassets" in said
    assert "BetaWarning" not in said
    assert "DeprecationWarning" not in said
