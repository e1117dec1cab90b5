"""What is served is brought up to date before anything is filled."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import (
    QueuedRunCoordinatorDaemon,
)

from ragassets.adapters.workspace import Workspace
from ragassets.core.stages import RunContext
from ragassets.defs.automation import SENSOR
from ragassets.defs.events import DATA_VERSION_TAG
from ragassets.defs.graph import build_definitions
from ragassets.defs.instance import open_instance
from ragassets.defs.live_first import FILL_TAGS, LIVE_TAGS, LiveFirstSensor
from ragassets.stages.alias_history import AliasSwitch, record_event
from ragassets_tests.corpora import REPOSITORY_ROOT
from ragassets_tests.defs.test_automation import AUTO, SHARDS, UPSTREAM, V1, config, of
from ragassets_tests.stage_runs import NOW

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # Dagster's own check of a sensor's backfills calls it.
    pytest.mark.filterwarnings("ignore:Function `AssetSelection.keys`:DeprecationWarning"),
]


class Ticks:
    """Ticks of the sensor as the code server evaluates them."""

    def __init__(self, instance: DagsterInstance, root: Path) -> None:
        """Two automatic versions over documents that are there; the alias starts at `v1`."""
        self.instance = instance
        self.config = config(root, v1=V1, v2=AUTO)
        self.repository = build_definitions(self.config).get_repository_def()
        self.cursor: str | None = None
        self.make("1", *((asset, shard) for asset in UPSTREAM for shard in SHARDS))

    def make(self, version: str, *partitions: tuple[str, str | None]) -> None:
        """Report that partitions stand, with a data version."""
        for asset, partition in partitions:
            tags = {DATA_VERSION_TAG: version}
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset, partition=partition, tags=tags)
            )

    def tick(self) -> list[tuple[str, set[tuple[str, str | None]]]]:
        """What is asked for, and whether as `live` or as `fill`; made at once."""
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.repository
        )
        data = self.repository.get_sensor_def(SENSOR).evaluate_tick(context)
        self.cursor = data.cursor
        found: list[tuple[str, set[tuple[str, str | None]]]] = []
        for request in data.run_requests or ():
            kind = request.tags["ragassets/automatic"]
            own = LIVE_TAGS if kind == "live" else FILL_TAGS
            others = (LIVE_TAGS | FILL_TAGS).keys() - own.keys()
            assert own.items() <= request.tags.items()
            assert not others & request.tags.keys()
            found.append((kind, _partitions(request)))
        for _, partitions in found:
            self.make("1", *partitions)
        return found

    def settle(self) -> list[tuple[str, set[tuple[str, str | None]]]]:
        """Tick until nothing is asked for."""
        found: list[tuple[str, set[tuple[str, str | None]]]] = []
        for _ in range(12):
            asked = self.tick()
            if not asked:
                return found
            found += asked
        pytest.fail("it never comes to rest")


def _partitions(request: dg.RunRequest) -> set[tuple[str, str | None]]:
    subset = request.asset_graph_subset
    if subset is not None:
        entries = subset.iterate_asset_partitions()
        return {(entry.asset_key.to_user_string(), entry.partition_key) for entry in entries}
    return {(key.to_user_string(), request.partition_key) for key in request.asset_selection or ()}


@pytest.fixture
def ticks(tmp_path: Path) -> Iterator[Ticks]:
    """A sensor that never ran."""
    with DagsterInstance.ephemeral() as instance:
        yield Ticks(instance, tmp_path)


def everything(asked: list[tuple[str, set[tuple[str, str | None]]]], kind: str) -> set[object]:
    """All partitions that were asked for as `live` or as `fill`."""
    return {partition for name, partitions in asked if name == kind for partition in partitions}


def test_a_tick_asks_for_updates_of_what_is_served_and_for_fills_apart(ticks: Ticks) -> None:
    """They are due in the same tick; in one backfill they would have one priority."""
    asked = ticks.tick()
    assert ("live", {("chunks", key) for key in of("big")}) in asked
    assert ("fill", {("chunks", key) for key in of("small")}) in asked
    asked = ticks.settle()
    live, fills = everything(asked, "live"), everything(asked, "fill")
    assert {("indexed_chunks", key) for key in of("v1")} | {("index_versions", "v1")} <= live
    assert {("indexed_chunks", key) for key in of("v2")} | {("index_versions", "v2")} <= fills
    assert ("live_index", None) in live
    assert not live & fills


def test_a_promotion_changes_what_comes_first(ticks: Ticks) -> None:
    ticks.settle()
    _record(ticks, "promote", "v1", "v2")
    ticks.make("2", *(("unique_documents", shard) for shard in SHARDS))
    asked = ticks.tick()
    assert everything(asked, "live") >= {("chunks", key) for key in of("small")}
    assert everything(asked, "fill") == {("chunks", key) for key in of("big")}


def test_a_canary_comes_first_too(ticks: Ticks) -> None:
    """A share of the users is searching it."""
    ticks.settle()
    _record(ticks, "start", None, "v1")
    _record(ticks, "canary", "v1", "v2")
    ticks.make("2", *(("unique_documents", shard) for shard in SHARDS))
    asked = ticks.tick()
    assert everything(asked, "live") >= {("chunks", key) for key in of("small") | of("big")}
    assert everything(asked, "fill") == set()


def test_the_sensor_keeps_its_kind_where_dagster_copies_definitions(ticks: Ticks) -> None:
    assert isinstance(ticks.repository.get_sensor_def(SENSOR), LiveFirstSensor)


def test_the_queue_launches_updates_first_and_leaves_them_room(tmp_path: Path) -> None:
    """Ten fills wait since yesterday; an edited document must not wait for them."""
    shutil.copy(REPOSITORY_ROOT / "dagster.yaml", tmp_path)
    with open_instance(tmp_path) as instance:
        for number in range(10):
            _queue(instance, f"fill-{number}", FILL_TAGS)
        _queue(instance, "a person's", {})
        for number in range(2):
            _queue(instance, f"live-{number}", LIVE_TAGS)
        first = _dequeue(instance)
        assert first == ["live-0", "live-1", "a person's", "fill-0"]

        _start(instance, "fill-0", "fill-1")
        assert _dequeue(instance) == ["live-0", "live-1"]
        _start(instance, "live-0", "live-1", "a person's")
        assert _dequeue(instance) == []


def test_fills_alone_never_take_all_places(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY_ROOT / "dagster.yaml", tmp_path)
    with open_instance(tmp_path) as instance:
        for number in range(10):
            _queue(instance, f"fill-{number}", FILL_TAGS)
        assert _dequeue(instance) == ["fill-0", "fill-1"]
        _start(instance, "fill-0", "fill-1")
        assert _dequeue(instance) == []
        _queue(instance, "live-0", LIVE_TAGS)
        assert _dequeue(instance) == ["live-0"]


def _record(ticks: Ticks, action: str, before: str | None, after: str) -> None:
    event = AliasSwitch("documents", before, after, action, "", "a test")  # type: ignore[arg-type]
    record_event(Workspace(ticks.config).tables, event, RunContext("a-run", lambda: NOW))


def _queue(instance: DagsterInstance, name: str, tags: dict[str, str]) -> None:
    location = RegisteredCodeLocationOrigin("ragassets")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "chunk_documents")
    create_run_for_test(
        instance,
        job_name="chunk_documents",
        status=DagsterRunStatus.QUEUED,
        tags={**tags, "name": name},
        remote_job_origin=origin,
    )


def _dequeue(instance: DagsterInstance) -> list[str]:
    """What the queue would launch now, in its order."""
    with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        config = instance.get_concurrency_config()
        runs = daemon._get_runs_to_dequeue(instance, config, fixed_iteration_time=None)
    return [run.tags["name"] for run in runs]


def _start(instance: DagsterInstance, *names: str) -> None:
    for run in instance.get_runs():
        if run.tags["name"] in names:
            instance.handle_new_event(_started(run))


def _started(run: dg.DagsterRun) -> object:
    from dagster._core.events import DagsterEvent, DagsterEventType
    from dagster._core.events.log import EventLogEntry

    event = DagsterEvent(DagsterEventType.PIPELINE_START.value, run.job_name)
    return EventLogEntry(
        None, "info", "", run.run_id, 0.0, job_name=run.job_name, dagster_event=event
    )
