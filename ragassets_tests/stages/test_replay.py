"""Replay of a window: what is fetched again, what that costs, and what it mends."""

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import DagsterInstance

from ragassets.adapters.sources.local_folder import LocalFolder
from ragassets.core.asset_tables import PARSED_DOCUMENTS, RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.periods import Window
from ragassets.core.stages import RunContext, StageReport
from ragassets.core.tables import TableSpec
from ragassets.defs import jobs
from ragassets.defs.graph import build_definitions
from ragassets.defs.replay_job import REPLAY_WINDOW, ReplayRequest, run_config
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.source_sensors import PROCESS_SENSOR
from ragassets.stages.parsed_documents import update_parsed_documents
from ragassets.stages.raw_documents import shards_behind, update_raw_documents
from ragassets.stages.replay import documents_in_window, mark_for_replay
from ragassets.stages.source_objects import discover
from ragassets_tests.scenario import Project, counts, fake_embedder

FIRST_SEEN = datetime(2026, 6, 30, tzinfo=UTC)
SHARDS = ["handbook-000"]
DAYS: Mapping[str, datetime] = {
    "may.txt": datetime(2026, 5, 10, tzinfo=UTC),
    "june.txt": datetime(2026, 6, 10, tzinfo=UTC),
    "late june.txt": datetime(2026, 6, 29, 23, 30, tzinfo=UTC),
}
JUNE = Window(datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 30, tzinfo=UTC))
CONTEXT = RunContext("a-run", lambda: FIRST_SEEN)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One document of May and two of June, listed and processed on the last of June."""
    made = Project(tmp_path / "project")
    made.configure_source(shards=1)
    for name, day in DAYS.items():
        path = made.write(name, f"A text that was written in {name.removesuffix('.txt')}.")
        os.utime(path, (day.timestamp(), day.timestamp()))
    discover(made.workspace, ["handbook"], now=FIRST_SEEN)
    process(made)
    return made


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read, as they are."""
    names: list[str] = []
    original = LocalFolder.fetch

    def fetch(self, wanted):
        names.append(wanted.uri.rpartition("/")[2])
        return original(self, wanted)

    monkeypatch.setattr(LocalFolder, "fetch", fetch)
    return names


def process(project: Project) -> tuple[StageReport, StageReport]:
    """Fetch and parse; the reports of both."""
    workspace = project.workspace
    (raw,) = update_raw_documents(workspace, SHARDS, CONTEXT).values()
    (parsed,) = update_parsed_documents(workspace, SHARDS, CONTEXT).values()
    return raw, parsed


def test_a_window_takes_what_changed_or_was_seen_to_change_in_it(project: Project) -> None:
    """By the source's time and by ours; and only of the sources that are named."""

    def names(window: Window, *sources: str) -> set[str]:
        rows = project.rows(SOURCE_OBJECTS)
        uris = dict(rows.select("document_id", "uri").iter_rows())
        found = documents_in_window(project.workspace, sources or ("handbook",), window)
        return {uris[key].rpartition("/")[2] for key in found}

    assert names(JUNE) == {"june.txt", "late%20june.txt"}
    assert names(Window(JUNE.since, datetime(2026, 6, 10, tzinfo=UTC))) == set()
    everything = {"may.txt", "june.txt", "late%20june.txt"}
    assert names(Window(FIRST_SEEN, None)) == everything
    assert names(Window(FIRST_SEEN + timedelta(seconds=1), None)) == set()
    assert names(Window(FIRST_SEEN, None), "another") == set()
    project.path("june.txt").unlink()
    discover(project.workspace, ["handbook"], now=FIRST_SEEN + timedelta(days=1))
    assert names(JUNE) == {"late%20june.txt"}


def test_a_replay_reads_its_documents_again_and_what_is_as_before_costs_nothing_more(
    project: Project, fetched: list[str]
) -> None:
    """The bytes come from the source once more; no parser looks at them."""
    (before,) = update_raw_documents(project.workspace, SHARDS, CONTEXT).values()
    assert mark_for_replay(project.workspace, ["handbook"], JUNE) == 2
    raw, parsed = process(project)
    assert sorted(fetched) == ["june.txt", "late%20june.txt"]
    assert (raw.n_computed, raw.n_reused, parsed.n_computed) == (2, 1, 0)
    assert raw.data_version == before.data_version
    raw, parsed = process(project)
    assert (raw.n_computed, parsed.n_computed) == (0, 0)


def test_a_replay_finds_what_changed_behind_the_listing_s_back(project: Project) -> None:
    """Same size, same time: no listing tells that these bytes are others."""
    path = project.path("june.txt")
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"written", b"WRITTEN"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    discover(project.workspace, ["handbook"], now=FIRST_SEEN + timedelta(days=1))
    assert process(project)[0].n_computed == 0
    mark_for_replay(project.workspace, ["handbook"], JUNE)
    raw, parsed = process(project)
    assert (raw.n_computed, parsed.n_computed) == (2, 1)
    texts = project.rows(PARSED_DOCUMENTS.outputs)["text"].to_list()
    assert "A text that was WRITTEN in june." in texts


def test_a_replay_tries_again_what_was_parked_and_not_what_failed_for_good(
    project: Project,
) -> None:
    """An outage of a week is over; a broken file is as broken as before."""
    park(project, RAW_DOCUMENTS.outputs, "june.txt", is_transient=True)
    park(project, PARSED_DOCUMENTS.outputs, "late june.txt", is_transient=False)
    raw, parsed = process(project)
    assert (raw.n_failed, raw.n_computed, parsed.n_failed, parsed.n_computed) == (1, 0, 1, 0)
    mark_for_replay(project.workspace, ["handbook"], JUNE)
    raw, parsed = process(project)
    assert (raw.n_failed, raw.n_computed) == (0, 2)
    # The one that was parked while it was fetched had nothing to be parsed until now.
    assert (parsed.n_failed, parsed.n_computed) == (1, 1)


def park(project: Project, spec: TableSpec, name: str, *, is_transient: bool) -> None:
    """Make a document's good row a failed one that nobody tries again."""
    tables = project.workspace.tables
    snapshot = tables.snapshot(spec)
    rows = tables.read_at(snapshot)
    is_meant = pl.col("uri") == project.uri(name)
    values: Mapping[str, pl.Expr] = {
        "failed_input_hash": pl.col("input_hash"),
        "is_transient": pl.lit(is_transient),
        "attempts": pl.lit(MAX_TRANSIENT_ATTEMPTS),
        "first_failed_at": pl.lit(FIRST_SEEN),
        "last_failed_at": pl.lit(FIRST_SEEN),
        "error_category": pl.lit("service"),
        "error_reason": pl.lit("test"),
        "status": pl.lit("failed"),
    }
    gone = {"input_hash", "output_hash", "content_hash", "text"} & set(rows.columns)
    values = {**values, **dict.fromkeys(gone, pl.lit(None))}
    failed = rows.filter(is_meant).with_columns(
        value.cast(rows.schema[name]).alias(name) for name, value in values.items()
    )
    changed = pl.concat([rows.filter(~is_meant), failed.select(rows.columns)])
    tables.replace(snapshot, [{"source_shard": SHARDS[0]}], changed)


def test_a_killed_replay_is_finished_by_the_next_run(
    project: Project, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubt is all that it leaves behind, and doubt is what every run looks for."""

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ragassets.stages.raw_documents._fetch", die)
        mark_for_replay(project.workspace, ["handbook"], JUNE)
        with pytest.raises(KeyboardInterrupt):
            process(project)
    assert fetched == []
    assert project.rows(RAW_DOCUMENTS.outputs)["content_hash"].null_count() == 0
    assert list(shards_behind(project.workspace, SHARDS)) == SHARDS
    assert process(project)[0].n_computed == 2
    assert shards_behind(project.workspace, SHARDS) == {}


def test_a_second_replay_of_an_unchanged_shard_is_another_request(project: Project) -> None:
    """Dagster starts no second run for one key: the daemon would never fetch again."""
    reasons: list[str] = []
    for number in range(2):
        mark_for_replay(project.workspace, ["handbook"], JUNE)
        reasons += shards_behind(project.workspace, SHARDS).values()
        context = RunContext(f"run-{number}", lambda: FIRST_SEEN)
        update_raw_documents(project.workspace, SHARDS, context)
    assert len(set(reasons)) == 2


def start(
    project: Project, instance: DagsterInstance, job: str, config: Mapping[str, object]
) -> dg.ExecuteInProcessResult:
    """Start a job as the UI does, with a run config and no tags."""
    resolved = build_definitions(project.config).resolve_job_def(job)
    return resolved.execute_in_process(
        run_config=dict(config), instance=instance, raise_on_error=False
    )


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance that is forgotten."""
    with DagsterInstance.ephemeral() as opened:
        yield opened


def test_the_job_replays_what_its_run_config_says(
    project: Project, instance: DagsterInstance, fetched: list[str]
) -> None:
    """What the command does, started in the UI: the sensor asks for the rest."""
    request = ReplayRequest(since="2026-06-01..2026-06-29", sources=["handbook"])
    project.write("missed.txt", "An event never told of this one.")
    assert start(project, instance, REPLAY_WINDOW, run_config(request)).success
    assert project.rows(SOURCE_OBJECTS).height == 4
    assert list(shards_behind(project.workspace, SHARDS)) == SHARDS
    definitions = build_definitions(project.config)
    context = dg.build_sensor_context(
        instance,
        definitions=definitions,
        sensor_name=PROCESS_SENSOR,
        resources={"workspace": WorkspaceResource(project.config)},
    )
    asked = definitions.resolve_sensor_def(PROCESS_SENSOR).evaluate_tick(context).run_requests or []
    assert [entry.partition_key for entry in asked] == SHARDS
    process(project)
    assert sorted(fetched) == ["june.txt", "late%20june.txt", "missed.txt"]


def test_the_job_refuses_what_cannot_be_meant(project: Project, instance: DagsterInstance) -> None:
    """Before anything is listed or doubted."""
    for request, says in (
        (ReplayRequest(since="7"), "'7' is no period"),
        (ReplayRequest(since="7d", sources=["handbok"]), "'handbok' is not defined"),
    ):
        result = start(project, instance, REPLAY_WINDOW, run_config(request))
        (failure,) = result.get_step_failure_events()
        assert says in str(failure.event_specific_data)
    assert shards_behind(project.workspace, SHARDS) == {}


@pytest.mark.parametrize("job", [jobs.OBSERVE_SOURCES, REPLAY_WINDOW])
def test_a_mass_deletion_can_be_confirmed_in_the_run_config(
    project: Project, instance: DagsterInstance, job: str
) -> None:
    """Whoever works in the UI has no shell on that machine."""
    for name in DAYS:
        project.path(name).unlink()
    step = {
        jobs.OBSERVE_SOURCES: "source_objects",
        REPLAY_WINDOW: "mark_documents_for_replay",
    }[job]
    base = {"since": "1d"} if job == REPLAY_WINDOW else {}
    assert start(project, instance, job, {"ops": {step: {"config": base}}}).success
    assert not project.rows(SOURCE_OBJECTS)["is_deleted"].any()
    confirmed = {**base, "sources": ["handbook"], "confirm_deletions": ["handbook"]}
    assert start(project, instance, job, {"ops": {step: {"config": confirmed}}}).success
    assert project.rows(SOURCE_OBJECTS)["is_deleted"].all()


@pytest.mark.slow
def test_the_command_replays_up_to_the_index_and_computes_nothing_anew(
    project: Project, fetched: list[str]
) -> None:
    """Fetched again, recognised, and done: no text is parsed, embedded or written once more."""
    with fake_embedder():
        project.ingest()
        before = project.content()
        fetched.clear()
        report = project.ingest(window=Window(JUNE.since, None))
    assert sorted(fetched) == ["june.txt", "late%20june.txt", "may.txt"]
    assert report.n_replayed == 3
    assert report.as_json()["documents"]["replayed"] == 3  # type: ignore[index]
    assert counts(report, "raw_documents") == (3, 0, 0)
    for asset in ("parsed_documents", "chunks", "embeddings", "indexed_chunks"):
        assert counts(report, asset)[0] == 0, asset
    assert before.differences(project.content()) == []
    assert report.problems == ()
