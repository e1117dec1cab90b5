"""Sensors and schedules of sources, tick by tick: each once asking and once skipping."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from ragassets.core.asset_tables import SOURCE_OBJECTS, SOURCE_TROUBLES
from ragassets.defs import source_sensors
from ragassets.defs.assets.source_objects import SOURCES_TAG
from ragassets.defs.automation import COMMAND_TAG
from ragassets.defs.jobs import OBSERVE_SOURCES, PROCESS_DOCUMENTS
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.source_sensors import build_source_schedules, build_source_sensors
from ragassets.errors import ConfigurationError, SourceUnavailableError
from ragassets.stages import raw_documents
from ragassets_tests.scenario import Project
from ragassets_tests.web_server import running_site

# So many that both shards have some, wherever the folder lies.
DOCUMENTS = {f"{number}.txt": f"All about the number {number}." for number in range(30)}


class Daemon:
    """Ticks of the project's sensors over one instance; nothing that is asked for runs."""

    def __init__(self, instance: DagsterInstance, project: Project) -> None:
        """Begin with an instance on which nothing ever ran."""
        self.instance, self.project = instance, project
        self.cursors: dict[str, str | None] = {}

    def tick(self, sensor: str) -> dg.SensorResult:
        """One evaluation; a fresh process has nothing but the cursor."""
        config = self.project.config
        (found,) = (one for one in build_source_sensors(config) if one.name == sensor)
        context = dg.build_sensor_context(
            self.instance,
            cursor=self.cursors.get(sensor),
            resources={"workspace": WorkspaceResource(config)},
        )
        result = found(context)
        assert isinstance(result, dg.SensorResult)
        if result.cursor is not None:
            self.cursors[sensor] = result.cursor
        return result

    def watch(self) -> dg.SensorResult:
        """Look at the source."""
        return self.tick("watch_handbook")

    def asked(self) -> dict[str, str]:
        """Ask for changed shards: partition to run key."""
        requests = self.tick("process_changed_documents").run_requests or []
        return {str(request.partition_key): str(request.run_key) for request in requests}

    def run(self, run_key: str, status: DagsterRunStatus) -> None:
        """Report that a request became a run."""
        self.instance.create_run_for_job(
            PROCESS_JOB, status=status, tags={"dagster/run_key": run_key}
        )


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job
def PROCESS_JOB() -> None:  # noqa: N802 - a constant that happens to be made by a decorator
    """Stand for a run of the phase; the sensor looks at its tags and status only."""
    nothing()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A watched source of two shards that nobody listed yet."""
    project = Project(tmp_path / "project", DOCUMENTS)
    project.configure_source(shards=2, sensor=True)
    with DagsterInstance.ephemeral() as instance:
        yield Daemon(instance, project)


def test_what_is_configured_is_running_by_default(tmp_path: Path) -> None:
    """A source without sensor and schedule waits for commands."""
    project = Project(tmp_path / "project")
    project.configure_source(sensor={"interval_seconds": 120}, schedule="5 4 * * *")
    project.configure_source("by-hand.1", uri="./other")
    sensors = {sensor.name: sensor for sensor in build_source_sensors(project.config)}
    assert set(sensors) == {"watch_handbook", "process_changed_documents"}
    assert sensors["watch_handbook"].minimum_interval_seconds == 120
    assert {s.default_status for s in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    (schedule,) = build_source_schedules(project.config)
    assert (schedule.name, schedule.cron_schedule) == ("list_handbook", "5 4 * * *")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.execution_timezone == "UTC"


def test_a_schedule_lists_its_own_source(tmp_path: Path) -> None:
    """At four in the morning of the place that the configuration names."""
    project = Project(tmp_path / "project")
    project.configure_source(schedule="5 4 * * *", timezone="Europe/Berlin")
    (schedule,) = build_source_schedules(project.config)
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 7, 1, tzinfo=UTC))
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert (schedule.job_name, schedule.execution_timezone) == (OBSERVE_SOURCES, "Europe/Berlin")
    assert request.tags[SOURCES_TAG] == "handbook"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sensor": {"queue": "https://sqs/q"}}, ["0 3 * * *"]),
        ({"sensor": {"queue": "https://sqs/q"}, "schedule": "5 1 * * 0"}, ["5 1 * * 0"]),
        ({"sensor": {"queue": "https://sqs/q"}, "schedule": None}, []),
        ({"sensor": True}, []),
    ],
)
def test_a_source_that_lives_on_events_is_listed_every_night(
    tmp_path: Path, settings: dict[str, object], expected: list[str]
) -> None:
    """A lost event of a deletion would leave the document searchable for ever.

    A sensor without a queue lists everything anyway.
    """
    project = Project(tmp_path / "project")
    project.configure_source(uri="s3://bucket/docs", timezone="Europe/Berlin", **settings)
    schedules = build_source_schedules(project.config)
    assert [schedule.cron_schedule for schedule in schedules] == expected
    assert {schedule.execution_timezone for schedule in schedules} <= {"Europe/Berlin"}
    assert all(s.default_status == dg.DefaultScheduleStatus.RUNNING for s in schedules)


def test_a_wrong_schedule_is_named_with_the_way_out(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.configure_source(schedule="every hour")
    with pytest.raises(ConfigurationError, match=r"sources\.handbook\.schedule: 'every hour'"):
        build_source_schedules(project.config)
    project.configure_source(schedule="0 * * * *", timezone="Mars/Olympus")
    with pytest.raises(ConfigurationError, match=r"timezone: 'Mars/Olympus'"):
        project.config  # noqa: B018


def test_the_watch_records_and_observes_changed_shards_only(daemon: Daemon) -> None:
    """An observation with a new data version is what the UI shows as changed."""
    result = daemon.watch()
    assert str(result.skip_reason) == "SkipReason(skip_message='30 new, 0 changed, 0 gone')"
    assert {event.partition for event in result.asset_events or []} == {
        "handbook-000",
        "handbook-001",
    }
    assert daemon.watch().asset_events == []
    daemon.project.edit("7.txt", "All", "Much")
    (event,) = daemon.watch().asset_events or []
    assert isinstance(event, dg.AssetObservation)
    assert event.metadata["n_changed"].value == 1


def test_changed_shards_are_asked_for_once(daemon: Daemon) -> None:
    """Until they are processed, or change again."""
    assert daemon.asked() == {}
    daemon.watch()
    first = daemon.asked()
    assert set(first) == {"handbook-000", "handbook-001"}
    assert daemon.asked() == {}
    daemon.project.edit("7.txt", "All", "Much")
    daemon.watch()
    (again,) = daemon.asked().items()
    assert again[1] not in first.values()


def test_a_run_that_failed_is_asked_for_again_with_growing_delay(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times; a run that goes on is left alone."""
    daemon.watch()
    first = daemon.asked()
    (shard, run_key), (other, other_key) = sorted(first.items())
    daemon.run(run_key, DagsterRunStatus.FAILURE)
    daemon.run(other_key, DagsterRunStatus.STARTED)
    assert daemon.asked() == {}
    began_at = datetime.now(UTC)

    def set_clock(minutes: float) -> None:
        monkeypatch.setattr(source_sensors, "now", lambda: began_at + timedelta(minutes=minutes))

    for n_tries, minutes in ((2, 1), (3, 4), (4, 16), (5, 64)):
        set_clock(minutes - 0.5)
        assert daemon.asked() == {}
        set_clock(minutes + 0.5)
        asked = daemon.asked()
        assert asked == {shard: f"{run_key.rpartition(' ')[0]} {n_tries}"}
        daemon.run(asked[shard], DagsterRunStatus.FAILURE)
    set_clock(60 * 24 * 30)
    assert daemon.asked() == {}
    assert other not in daemon.asked()


def test_a_burst_is_asked_for_in_portions(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person starts meanwhile must not wait behind a thousand shards."""
    monkeypatch.setattr(source_sensors, "MAX_RUNS_PER_TICK", 3)
    daemon.project.configure_source(shards=40)
    for number in range(60):
        daemon.project.write(f"{number}.txt", f"Document number {number}.")
    daemon.watch()
    occupied = set(daemon.project.rows(SOURCE_OBJECTS)["source_shard"])
    asked: list[str] = []
    while wanted := daemon.asked():
        assert len(wanted) == min(3, len(occupied) - len(asked))
        asked += wanted
    assert sorted(asked) == sorted(occupied)


def test_nothing_is_asked_for_once_it_is_processed(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever did it, here a command; and no document is looked at until something is committed."""
    daemon.project.ingest()
    daemon.watch()
    assert daemon.asked() == {}
    with monkeypatch.context() as patch:
        patch.setattr(raw_documents, "shards_behind", None, raising=False)
        for _ in range(2):
            result = daemon.tick("process_changed_documents")
            assert "everything is as its source holds it" in str(result.skip_reason)
    daemon.project.edit("7.txt", "All", "Much")
    daemon.watch()
    assert len(daemon.asked()) == 1
    assert daemon.asked() == {}


def test_requests_that_wait_are_looked_up_together(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand shards that wait in the queue would be a thousand questions a tick."""
    daemon.watch()
    assert len(daemon.asked()) == 2
    questions: list[object] = []
    get_run_records = daemon.instance.get_run_records

    def counted(filters: object = None, *args: Any, **kwargs: Any) -> Any:
        questions.append(filters)
        return get_run_records(filters, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(daemon.instance, "get_run_records", counted)
    assert daemon.asked() == {}
    keys = [q.tags["dagster/run_key"] for q in questions if q.tags.get("dagster/run_key")]  # pyright: ignore[reportAttributeAccessIssue]
    assert [len(asked) for asked in keys] == [2]


def test_a_command_at_work_is_left_alone(daemon: Daemon) -> None:
    """It goes through all stages by itself."""
    daemon.watch()
    daemon.instance.create_run_for_job(
        PROCESS_JOB, status=DagsterRunStatus.STARTED, tags={COMMAND_TAG: "true"}
    )
    assert daemon.asked() == {}


def test_a_source_that_is_away_is_said_and_costs_nothing(daemon: Daemon) -> None:
    """The folder was unmounted: the next tick looks again."""
    daemon.watch()
    os.rename(daemon.project.documents, daemon.project.folder / "away")  # noqa: PTH104
    result = daemon.watch()
    assert "is not a folder that can be read" in str(result.skip_reason)
    assert result.asset_events == []


def test_a_queue_that_does_not_answer_is_noted_until_it_does(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever tells people reads the note; the first time counts."""
    look = source_sensors._look

    def fail(*_: object) -> None:
        raise SourceUnavailableError(service="queue events", detail="does not exist")

    monkeypatch.setattr(source_sensors, "_look", fail)
    assert "queue events" in str(daemon.watch().skip_reason)
    (noted,) = daemon.project.rows(SOURCE_TROUBLES).iter_rows(named=True)
    assert (noted["source"], "does not exist" in noted["message"]) == ("handbook", True)
    daemon.watch()
    assert daemon.project.rows(SOURCE_TROUBLES).rows(named=True) == [noted]
    monkeypatch.setattr(source_sensors, "_look", look)
    daemon.watch()
    assert daemon.project.rows(SOURCE_TROUBLES).is_empty()


def test_the_job_that_is_asked_for_exists(daemon: Daemon) -> None:
    """A sensor names its job by a string."""
    (sensor,) = (
        one for one in build_source_sensors(daemon.project.config) if one.name.startswith("process")
    )
    assert sensor.job_name == PROCESS_DOCUMENTS


def test_a_web_site_is_left_alone_for_some_time_after_each_crawl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look every 30 s is meant for the rest of a crawl, not for crawl after crawl."""
    moment = datetime(2026, 1, 2, 12, tzinfo=UTC)
    monkeypatch.setattr(source_sensors, "now", lambda: moment)
    project = Project(tmp_path / "project")
    with running_site() as site, DagsterInstance.ephemeral() as instance:
        site.page("/", "The handbook of a company")
        web = {"allow_private": ["127.0.0.1"], "delay_seconds": 0, "crawl_interval_seconds": 3600}
        project.configure_source(uri=f"{site.url}/", shards=1, sensor=True, web=web)
        daemon = Daemon(instance, project)
        assert "1 new" in str(daemon.watch().skip_reason)
        n_requests = len(site.requests)
        for minutes in (1, 59):
            moment = datetime(2026, 1, 2, 12, minutes, tzinfo=UTC)
            assert "next crawl begins at 2026-01-02T13:00" in str(daemon.watch().skip_reason)
        assert len(site.requests) == n_requests
        moment = datetime(2026, 1, 2, 13, tzinfo=UTC)
        assert "0 new" in str(daemon.watch().skip_reason)
        assert len(site.requests) > n_requests
