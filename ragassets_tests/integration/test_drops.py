"""`ragassets index drop` as a person meets it: the command, Dagster's history, and coming back."""

import json
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, AssetRecordsFilter, DagsterInstance

from ragassets.core.asset_tables import EMBEDDINGS, INDEXED_CHUNKS
from ragassets.defs.drop_job import DROP_INDEX_VERSIONS, DropRequest, run_config
from ragassets.defs.graph import build_definitions
from ragassets.defs.ingest import build
from ragassets.defs.instance import open_instance
from ragassets.defs.resources import WorkspaceResource
from ragassets.stages.dropped_versions import dropped_names
from ragassets_tests.scenario import CLEAN, Project, counts, fake_embedder
from ragassets_tests.small_project import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
    pytest.mark.usefixtures("model"),
]

V1 = {"chunking": "recursive-256", "embedding_model": "minilm"}
V2 = {"chunking": "small", "embedding_model": "other"}
SETTINGS = {
    "sources": {"handbook": {"uri": "./documents", "shards": 2}},
    "chunkings": {"recursive-256": {}, "small": {"max_tokens": 32, "overlap_tokens": 4}},
    "embedding_models": {
        "minilm": {"model": "all-MiniLM-L6-v2", "dim": 16},
        "other": {"model": "all-MiniLM-L6-v2", "dim": 8},
    },
    "index_versions": {"v1": V1, "v2": V2},
}


@pytest.fixture
def model() -> object:
    """These tests are not about meaning."""
    with fake_embedder():
        yield


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Seven documents under two automatic versions; `v1` is served."""
    project = Project(tmp_path_factory.mktemp("drops") / "project", CLEAN)
    project.configure(**SETTINGS)
    with fake_embedder(), open_instance(project.folder) as instance:
        assert project.ingest(instance=instance).problems == ()
    project.save()
    return project


@pytest.fixture
def project(ingested: Project) -> Project:
    """The ingested project, as if nothing had happened since."""
    return ingested.restore()


def drop(project: Project, *arguments: str) -> dict[str, Any]:
    """What the command writes with --json; it must succeed."""
    config = str(project.config_file)
    result = run("index", "drop", *arguments, "--config", config, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def states(project: Project) -> dict[str, str]:
    """The state of every version, as `index list` tells it."""
    listed = json.loads(run("index", "list", "--config", str(project.config_file), "--json").stdout)
    return {name: entry["state"] for name, entry in listed["index_versions"].items()}


def n_indexed(project: Project) -> dict[str, int]:
    """Rows of `indexed_chunks` by version."""
    rows = project.rows(INDEXED_CHUNKS.outputs)["index_version"]
    return {str(name): int(count) for name, count in rows.value_counts().iter_rows()}


def test_dropped_it_stays_away_until_somebody_builds_it(project: Project) -> None:
    """`backfill: auto` and an ingestion do not bring it back; a build does, for nothing."""
    before = n_indexed(project)
    planned = drop(project, "v2", "--dry-run")
    assert planned["dry_run"]
    assert n_indexed(project) == before
    done = drop(project, "v2", "--reason", "too dear")
    assert done["dropped"] == planned["dropped"]
    (gone,) = done["dropped"]
    assert gone["points"] == gone["embeddings"] == gone["chunks"] == before["v2"]
    assert states(project) == {"v1": "sealed", "v2": "dropped"}
    assert drop(project, "v2") == {"dry_run": False, "dropped": [], "kept": []}

    project.write("new.txt", "The bicycle shed is locked at nine; its code is on the intranet.")
    assert project.ingest().problems == ()
    assert n_indexed(project) == {"v1": before["v1"] + 1}
    assert set(project.rows(EMBEDDINGS.outputs)["embedding_set"]) == {"recursive-256.minilm"}
    refused = run("index", "promote", "v2", "--config", str(project.config_file))
    assert refused.exit_code == 1
    assert "ragassets index build v2" in refused.stderr
    assert project.disagreements() == []
    assert project.audit() == []

    with open_instance(project.folder) as instance:
        report = build(WorkspaceResource(project.config), instance, "v2", progress=lambda *_: None)
    assert counts(report, "embeddings")[0] == 1  # the document that came meanwhile
    assert states(project) == {"v1": "sealed", "v2": "sealed"}
    assert project.audit() == []


def test_the_history_of_the_version_says_who_and_why(project: Project) -> None:
    """In the UI the drop stands among the seals, and every partition says that it is empty."""
    drop(project, "v2", "--reason", "too dear")
    with open_instance(project.folder) as instance:
        (sealed,) = _last(instance, "index_versions", "v2")
        assert sealed["state"] == "dropped"
        assert sealed["reason"] == "too dear"
        assert sealed["dropped_by"]
        for asset, key in (
            ("indexed_chunks", "v2"),
            ("embeddings", "small.other"),
            ("chunks", "small"),
        ):
            for shard in ("handbook-000", "handbook-001"):
                (event,) = _last(instance, asset, f"{key}|{shard}")
                assert event["state"] == "dropped", asset
        (untouched,) = _last(instance, "index_versions", "v1")
        assert untouched["state"] == "sealed"


def test_a_version_in_use_is_refused_and_no_run_starts(project: Project) -> None:
    with open_instance(project.folder) as instance:
        n_runs = instance.get_runs_count()
    result = run("index", "drop", "v1", "v2", "--config", str(project.config_file))
    assert result.exit_code == 1
    assert "index promote OTHER --alias documents" in result.stderr
    assert set(n_indexed(project)) == {"v1", "v2"}
    with open_instance(project.folder) as instance:
        assert instance.get_runs_count() == n_runs


@pytest.mark.parametrize("arguments", [(), ("v2", "--expired")])
def test_one_says_what_to_drop(project: Project, arguments: tuple[str, ...]) -> None:
    result = run("index", "drop", *arguments, "--config", str(project.config_file))
    assert result.exit_code == 2
    assert "name what to drop, or use --expired" in result.stderr


def test_what_nothing_names_any_more_goes_with_expired(project: Project) -> None:
    assert drop(project, "--expired")["dropped"] == []
    project.configure(index_versions={"v1": V1})
    (gone,) = drop(project, "--expired", "--dry-run")["dropped"]
    assert gone["index_version"] == "v2"
    (gone,) = drop(project, "--expired")["dropped"]
    assert gone["index_version"] == "v2"
    assert set(n_indexed(project)) == {"v1"}
    assert project.audit() == []


def test_the_nightly_job_drops_the_same(project: Project) -> None:
    """It is off by default; somebody may turn it on in the UI."""
    project.configure(index_versions={"v1": V1})
    definitions = build_definitions(project.config)
    with DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def(DROP_INDEX_VERSIONS).execute_in_process(
            run_config=run_config(DropRequest(is_expired=True)), instance=instance
        )
    assert result.success
    assert dropped_names(project.workspace.tables) == {"v2"}
    schedule = definitions.resolve_schedule_def("drop_expired_index_versions")
    assert schedule.default_status.value == "STOPPED"


def test_a_backfill_of_a_person_begins_it_anew_and_one_of_the_sensor_does_not(
    project: Project, tmp_path: Path
) -> None:
    """A run of the sensor may have waited in the queue while somebody dropped the version."""
    drop(project, "v2")
    job = build_definitions(project.config).resolve_job_def("index_chunks")
    with DagsterInstance.ephemeral() as instance:
        queued = job.execute_in_process(
            instance=instance,
            partition_key="v2|handbook-000",
            tags={"ragassets/automatic": "fill"},
            raise_on_error=False,
        )
        assert not queued.success
        assert set(n_indexed(project)) == {"v1"}
        assert dropped_names(project.workspace.tables) == {"v2"}
        for name, key in (("chunk_documents", "small"), ("embed_chunks", "small.other")):
            upstream = build_definitions(project.config).resolve_job_def(name)
            for shard in ("handbook-000", "handbook-001"):
                upstream.execute_in_process(instance=instance, partition_key=f"{key}|{shard}")
        assert job.execute_in_process(instance=instance, partition_key="v2|handbook-000").success
    assert dropped_names(project.workspace.tables) == frozenset()


def _last(instance: DagsterInstance, asset: str, partition: str) -> list[dict[str, object]]:
    """Metadata of the newest event of a partition."""
    wanted = AssetRecordsFilter(asset_key=AssetKey(asset), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    found = [record.asset_materialization for record in records]
    return [{name: v.value for name, v in made.metadata.items()} for made in found if made]
