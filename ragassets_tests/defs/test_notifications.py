"""The sensor that tells people, tick by tick, with real runs, tables and servers."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster import DagsterInstance

from ragassets.adapters.notifiers import slack
from ragassets.core.asset_tables import DEAD_LETTERS, EMBEDDINGS, SOURCE_LISTINGS
from ragassets.core.tables import TableSpec
from ragassets.defs import notification_tick, notifications
from ragassets.defs.automation import COMMAND_TAG
from ragassets.defs.failures import failing_once
from ragassets.defs.graph import build_definitions
from ragassets.defs.notifications import (
    build_notification_sensors,
    forget_in_notifications,
    read_state,
    state_key,
)
from ragassets.defs.resources import WorkspaceResource
from ragassets.errors import SourceUnavailableError
from ragassets.queries import notification_facts
from ragassets.stages.source_objects import discover
from ragassets.stages.source_troubles import end_trouble, note_trouble
from ragassets_tests.embedding_server import Reply
from ragassets_tests.notification_servers import HttpReceiver, mail_server
from ragassets_tests.scenario import Project

SECRET = "a-secret-path"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
CHECK = dg.AssetCheckKey(dg.AssetKey("index_versions"), "gates_are_kept")


class Daemon:
    """Ticks of the sensor over one instance; each has a process of its own but for the storage."""

    def __init__(self, project: Project, instance: DagsterInstance) -> None:
        """Begin at the present: runs have real times."""
        self.project, self.instance = project, instance
        self.now = datetime.now(UTC) + timedelta(seconds=5)

    def tick(self, passed: timedelta = MINUTE) -> str:
        """Let time pass, then evaluate the sensor; what it says."""
        self.now += passed
        config = self.project.config
        (sensor,) = build_notification_sensors(config, [CHECK])
        context = dg.build_sensor_context(
            self.instance, resources={"workspace": WorkspaceResource(config)}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(notifications, "now", lambda: self.now)
            result = sensor(context)
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)

    def write(self, spec: TableSpec, *rows: dict[str, object]) -> None:
        """Replace a partition of a table, as a stage does."""
        tables = self.project.workspace.tables
        partitions = [{name: str(row[name]) for name in spec.partition_by} for row in rows]
        unique = [dict(one) for one in {tuple(part.items()) for part in partitions}]
        empty = dict.fromkeys(spec.schema.names())
        frame = pl.DataFrame([{**empty, **row} for row in rows], schema=spec.schema)
        tables.replace(tables.snapshot(spec), unique, frame)

    def list_source(self, message: str = "", *, n_refused: int = 0) -> None:
        """Note how a listing went."""
        self.write(
            SOURCE_LISTINGS,
            {
                "source": "handbook",
                "listed_at": self.now,
                "is_complete": not message or n_refused > 0,
                "n_objects": 40,
                "n_refused_deletions": n_refused,
                "message": message,
            },
        )

    def write_letters(self, *names: str, reason: str = "corrupt") -> None:
        """These are the dead letters of the first shard."""
        rows: list[dict[str, object]] = [
            {
                "dead_letter_id": f"{name} {reason}",
                "document_id": name,
                "uri": f"file:///handbook/{name}",
                "source": "handbook",
                "source_shard": "handbook-000",
                "stage": "parsed_documents",
                "reason": reason,
            }
            for name in names
        ]
        self.write(DEAD_LETTERS, *rows)

    def run(
        self, error: Exception | None = None, *, partition: str = "s-0", tags: Sequence[str] = ()
    ) -> str:
        """Run a job that fails with this error, through Dagster; its run id."""
        result = _job(error).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            tags={"dagster/partition": partition, **dict.fromkeys(tags, "true")},
        )
        assert result.success == (error is None)
        return result.run_id


def _job(error: Exception | None) -> dg.JobDefinition:
    @dg.op
    def raw_documents(context: dg.OpExecutionContext) -> None:
        with failing_once(context):
            if error is not None:
                raise error

    @dg.job
    def process_documents() -> None:
        raw_documents()

    return process_documents


def unreachable() -> SourceUnavailableError:
    return SourceUnavailableError(
        service="s3://acme-handbook", detail="answered 503", fix="Wait, or check its status page"
    )


@pytest.fixture
def server() -> Iterator[HttpReceiver]:
    """Where the webhook goes."""
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture
def daemon(
    tmp_path: Path, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    """A source that nobody expects to be listed, and one channel that wants everything."""
    project = Project(tmp_path / "project")
    monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
    configure(project, pager={"webhook": {"webhook_url": "${HOOK}"}})
    with DagsterInstance.ephemeral() as instance:
        yield Daemon(project, instance)


def configure(project: Project, **channels: dict[str, Any]) -> None:
    project.configure(
        notifications={
            "ui_url": "http://dagster.acme:3000/",
            "channels": channels,
            "project": "acme",
        }
    )


def told(server: HttpReceiver) -> list[list[tuple[str, str]]]:
    """What arrived: kind and title of each notice, message by message."""
    return [[(one["kind"], one["title"]) for one in post.json["notices"]] for post in server.posts]


def test_nobody_is_told_where_nothing_is_configured(daemon: Daemon) -> None:
    """Without the section there is no sensor; with it, it runs by default."""
    (sensor,) = build_notification_sensors(daemon.project.config, [])
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30
    config = daemon.project.config.model_copy(update={"notifications": None})
    assert build_notification_sensors(config, []) == []


def test_a_quiet_project_tells_nothing_and_writes_nothing_twice(
    daemon: Daemon, server: HttpReceiver
) -> None:
    daemon.list_source()
    assert daemon.tick() == "0 new to tell"
    key = state_key(daemon.project.config)
    before = read_state(daemon.instance, key)
    daemon.tick()
    assert read_state(daemon.instance, key) == before
    assert server.posts == []


def test_a_failed_run_is_told_once_with_partition_error_and_link(
    daemon: Daemon, server: HttpReceiver
) -> None:
    run_id = daemon.run(unreachable(), partition="handbook-001")
    assert daemon.tick() == "1 new to tell, told pager"
    daemon.tick()
    (post,) = server.posts
    (found,) = post.json["notices"]
    assert found["title"] == "process_documents failed in raw_documents: source_unavailable"
    assert found["details"] == [
        "partition handbook-001",
        "s3://acme-handbook: answered 503. Wait, or check its status page",
    ]
    assert f"http://dagster.acme:3000/runs/{run_id}" in post.json["text"]
    daemon.run(partition="handbook-001")
    assert daemon.tick() == "1 new to tell, told pager"
    assert told(server)[1] == [
        ("ended", "process_documents failed in raw_documents: source_unavailable")
    ]
    assert daemon.tick() == "0 new to tell"


def test_a_foreign_error_is_told_by_its_type_only(daemon: Daemon, server: HttpReceiver) -> None:
    """Its text may hold a secret, or a piece of a document."""
    daemon.run(ValueError("the password is correct horse"))
    daemon.tick()
    (post,) = server.posts
    (found,) = post.json["notices"]
    assert found["title"] == "process_documents failed in raw_documents: stage_failed"
    assert found["details"][1].endswith("builtins.ValueError")
    assert "correct horse" not in post.body.decode()


def test_an_error_outside_our_code_is_told_by_its_type_only(
    daemon: Daemon, server: HttpReceiver
) -> None:
    @dg.job
    def process_documents() -> None:
        broken()

    process_documents.execute_in_process(instance=daemon.instance, raise_on_error=False)
    daemon.tick()
    (found,) = server.posts[0].json["notices"]
    assert found["title"] == "process_documents failed in broken: KeyError"
    assert found["details"] == ["See the run for its message"]


@dg.op
def broken() -> None:
    raise KeyError("a secret")


def test_runs_that_somebody_watches_or_dagster_repeats_are_not_told(
    daemon: Daemon, server: HttpReceiver
) -> None:
    daemon.run(unreachable(), tags=[COMMAND_TAG])
    daemon.run(unreachable(), tags=["dagster/will_retry"])
    assert daemon.tick() == "0 new to tell"
    assert server.posts == []


def test_a_run_whose_worker_vanished_is_told_in_dagsters_words(
    daemon: Daemon, server: HttpReceiver
) -> None:
    run = daemon.instance.create_run_for_job(_job(None), status=dg.DagsterRunStatus.STARTED)
    daemon.instance.report_run_failed(run, "Exceeded maximum runtime of 86400 seconds.")
    daemon.tick()
    (found,) = server.posts[0].json["notices"]
    assert found["title"] == "process_documents failed: run_failed"
    assert found["details"] == ["Exceeded maximum runtime of 86400 seconds."]


def test_new_dead_letters_come_in_one_digest_an_interval(
    daemon: Daemon, server: HttpReceiver
) -> None:
    """Counts and examples, not a message for each; and nothing old."""
    daemon.write_letters("a.pdf", "b.pdf")
    daemon.tick()
    daemon.write_letters("a.pdf", "b.pdf", "c.pdf")
    assert daemon.tick(30 * MINUTE) == "0 new to tell"
    assert daemon.tick(30 * MINUTE) == "1 new to tell, told pager"
    daemon.write_letters("a.pdf")
    assert daemon.tick(2 * HOUR) == "0 new to tell"
    first, second = (post.json["notices"][0] for post in server.posts)
    assert first["title"] == "new dead letters: 2 documents (now 2 in all)"
    assert second["title"] == "new dead letters: 1 document (now 3 in all)"
    assert second["details"] == [
        "1 × handbook: corrupt (parsed_documents)",
        "such as file:///handbook/c.pdf",
    ]
    assert second["commands"] == [
        "ragassets dead-letters list --source handbook",
        "ragassets why file:///handbook/c.pdf",
    ]


def test_a_guard_stop_is_told_until_it_is_confirmed(daemon: Daemon, server: HttpReceiver) -> None:
    daemon.list_source("source 'handbook': the listing would remove 30 of 40", n_refused=30)
    daemon.tick()
    daemon.list_source("source 'handbook': the listing would remove 31 of 40", n_refused=31)
    daemon.tick()
    daemon.list_source()
    daemon.tick()
    title = "source 'handbook': 30 refused deletions to be confirmed"
    assert told(server) == [[("new", title)], [("ended", title)]]
    assert server.posts[0].json["notices"][0]["commands"] == [
        "ragassets ingest handbook --confirm-deletions"
    ]


def test_the_guard_of_a_real_listing_is_told_with_how_many_of_how_many(
    daemon: Daemon, server: HttpReceiver
) -> None:
    """Somebody mounted half a folder."""
    project = daemon.project
    for number in range(10):
        project.write(f"{number}.txt", f"All about the number {number}.")
    discover(project.workspace, ["handbook"], now=daemon.now)
    assert daemon.tick() == "0 new to tell"
    for number in range(9):
        project.path(f"{number}.txt").unlink()
    discover(project.workspace, ["handbook"], now=daemon.now)
    daemon.tick()
    (found,) = server.posts[0].json["notices"]
    assert found["title"] == "source 'handbook': 9 refused deletions to be confirmed"
    assert "would remove 9 of 10 documents" in found["details"][0]
    discover(project.workspace, ["handbook"], now=daemon.now, confirmed=["handbook"])
    daemon.tick()
    assert [kind for message in told(server) for kind, _ in message] == ["new", "ended"]


def test_an_unreachable_and_a_stale_source_are_told(daemon: Daemon, server: HttpReceiver) -> None:
    daemon.project.configure_source(sensor=True)
    daemon.list_source()
    daemon.tick()
    daemon.list_source("s3://acme answered 503")
    daemon.tick()
    assert server.posts == []
    daemon.tick(16 * MINUTE)
    assert told(server)[-1] == [("new", "source 'handbook' cannot be read")]
    daemon.list_source()
    daemon.tick()
    assert told(server)[-1] == [("ended", "source 'handbook' cannot be read")]
    daemon.tick(181 * MINUTE)
    assert told(server)[-1] == [("new", "source 'handbook' was not listed in time")]


def test_a_schedule_may_be_missed_so_often(daemon: Daemon) -> None:
    """Nightly at three, Berlin: after the second missed night, and three hours of grace."""
    daemon.project.configure_source(sensor=False, schedule="0 3 * * *", timezone="Europe/Berlin")
    listed = datetime(2026, 11, 20, 2, 10, tzinfo=UTC)
    deadlines = notifications.listing_deadlines(daemon.project.config, {"handbook": listed})
    assert deadlines == {"handbook": datetime(2026, 11, 22, 5, 0, tzinfo=UTC)}
    daemon.project.configure_source(schedule=None)
    assert notifications.listing_deadlines(daemon.project.config, {"handbook": listed}) == {}


def test_a_stream_is_never_stale_and_a_site_has_a_day(daemon: Daemon) -> None:
    """A topic has no whole listing, and a polite crawl takes hours."""
    listed = datetime(2026, 11, 20, 2, 10, tzinfo=UTC)
    project = daemon.project
    project.configure_source(uri="https://docs.acme.example/", sensor=True)
    project.configure_source("news", uri="kafka://127.0.0.1:9092/news", sensor=True)
    seen = dict.fromkeys(["handbook", "news"], listed)
    assert notifications.listing_deadlines(project.config, seen) == {
        "handbook": datetime(2026, 11, 21, 2, 10, tzinfo=UTC),
        "news": datetime.max.replace(tzinfo=UTC),
    }


def test_a_topic_that_does_not_answer_is_told(daemon: Daemon, server: HttpReceiver) -> None:
    """It is never stale, but it may be out of reach."""
    daemon.project.configure_source(uri="kafka://127.0.0.1:9/news", sensor=True)
    daemon.list_source("topic news: nobody answers at 127.0.0.1:9")
    daemon.tick()
    daemon.tick(16 * MINUTE)
    assert told(server) == [[("new", "source 'handbook' cannot be read")]]
    daemon.list_source()
    daemon.tick()
    assert told(server)[-1] == [("ended", "source 'handbook' cannot be read")]
    daemon.tick(timedelta(days=30))
    assert len(server.posts) == 2


def test_a_queue_that_does_not_answer_is_told(daemon: Daemon, server: HttpReceiver) -> None:
    """Its bucket was listed all right; the sensor notes that nobody hears of changes any more."""
    workspace = daemon.project.workspace
    queue = {"queue": "https://sqs.eu-central-1.amazonaws.com/1/gone"}
    daemon.project.configure_source(uri="s3://acme/docs", sensor=queue)
    daemon.list_source()
    note_trouble(workspace, "handbook", "the queue is gone", daemon.now)
    daemon.tick()
    assert server.posts == []
    note_trouble(workspace, "handbook", "the queue does not exist", daemon.now + MINUTE)
    daemon.tick(16 * MINUTE)
    assert told(server)[-1] == [("new", "source 'handbook' cannot be read")]
    assert "the queue is gone" in str(server.posts[-1].json)
    end_trouble(workspace, "handbook")
    daemon.tick()
    assert told(server)[-1] == [("ended", "source 'handbook' cannot be read")]


def test_an_embedding_service_that_is_down_is_told(daemon: Daemon, server: HttpReceiver) -> None:
    """No run fails by it: the chunks wait."""
    row = {
        "chunk_id": "c1",
        "document_id": "d1",
        "source_shard": "handbook-000",
        "embedding_set": "recursive-256.small",
        "failed_input_hash": "h",
        "error_reason": "embedding_service_unavailable",
        "error_message": "embedding service small: connection refused",
        "attempts": 0,
        "is_transient": True,
    }
    daemon.write(EMBEDDINGS.failures, row, {**row, "chunk_id": "c2", "attempts": 1})
    daemon.tick()
    (found,) = server.posts[0].json["notices"]
    assert found["title"] == (
        "the embedding service of recursive-256.small fails: 1 chunk of 1 document wait"
    )
    assert found["details"][0] == "embedding service small: connection refused"


def judge(
    daemon: Daemon, *, passed: bool, is_warning: bool = False, tags: Sequence[str] = ()
) -> dg.ExecuteInProcessResult:
    """Materialize an asset whose blocking check says this."""

    @dg.asset(
        name="index_versions",
        check_specs=[dg.AssetCheckSpec("gates_are_kept", asset="index_versions", blocking=True)],
    )
    def index_versions() -> Iterator[Any]:
        yield dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    check_name="gates_are_kept",
                    passed=passed,
                    severity=dg.AssetCheckSeverity.WARN
                    if is_warning
                    else dg.AssetCheckSeverity.ERROR,
                    description="nDCG@10 0.41 is below 0.6",
                )
            ]
        )

    job = dg.define_asset_job("seal_index_versions", selection="*")
    definitions = dg.Definitions(assets=[index_versions], jobs=[job])
    return definitions.resolve_job_def("seal_index_versions").execute_in_process(
        instance=daemon.instance, raise_on_error=False, tags=dict.fromkeys(tags, "true")
    )


def test_a_failed_check_is_told_once_and_its_run_not_again(
    daemon: Daemon, server: HttpReceiver
) -> None:
    """A blocking check fails its run; whoever is told of checks does not need both."""
    assert not judge(daemon, passed=False).success
    assert daemon.tick() == "2 new to tell, told pager"
    daemon.tick()
    judge(daemon, passed=True)
    daemon.tick()
    title = "check gates_are_kept of index_versions failed"
    assert told(server) == [[("new", title)], [("ended", title)]]
    (found,) = server.posts[0].json["notices"]
    assert found["severity"] == "error"
    assert found["details"][0] == "nDCG@10 0.41 is below 0.6"


def test_whoever_wants_failed_runs_only_is_told_of_that_run(
    daemon: Daemon, server: HttpReceiver
) -> None:
    configure(daemon.project, pager={"webhook": {"webhook_url": "${HOOK}"}, "on": ["run_failure"]})
    judge(daemon, passed=False)
    daemon.tick()
    assert told(server) == [[("new", "seal_index_versions failed in index_versions: failed_check")]]


def test_a_warning_is_told_when_it_lasts_and_never_where_only_errors_are_wanted(
    daemon: Daemon, server: HttpReceiver
) -> None:
    judge(daemon, passed=False, is_warning=True)
    daemon.tick()
    assert server.posts == []
    daemon.tick(15 * MINUTE)
    assert len(server.posts) == 1
    hook = {"webhook": {"webhook_url": "${HOOK}"}, "min_severity": "error"}
    configure(daemon.project, other=hook)
    daemon.tick()
    assert len(server.posts) == 1


def test_checks_of_a_command_are_not_told(daemon: Daemon, server: HttpReceiver) -> None:
    judge(daemon, passed=False, tags=[COMMAND_TAG])
    assert daemon.tick() == "0 new to tell"


def test_a_broken_channel_is_tried_again_and_the_others_are_told(
    daemon: Daemon, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack is throttled, the mail server refuses connections; the webhook has its message."""
    monkeypatch.setattr(slack, "TIMEOUT_SECONDS", 2.0)
    throttled = Reply(429, b"ratelimited", {"Retry-After": "300"})
    with HttpReceiver(throttled, usual=Reply(body=b"ok")) as slack_server, mail_server() as mailbox:
        monkeypatch.setenv("SLACK", f"{slack_server.url}/{SECRET}")
        mail = {
            "host": "127.0.0.1",
            "security": "none",
            "sender": "a@b.example",
            "to": ["c@d.example"],
        }
        configure(
            daemon.project,
            pager={"webhook": {"webhook_url": "${HOOK}"}},
            slack={"slack": {"webhook_url": "${SLACK}"}},
            mail={"email": {**mail, "port": 1}},
        )
        daemon.run(unreachable())
        said = daemon.tick()
        assert said == "1 new to tell, told pager, mail was not told, slack was not told, 2 wait"
        daemon.tick(4 * MINUTE)
        assert (len(server.posts), len(slack_server.posts)) == (1, 1)
        configure(
            daemon.project,
            pager={"webhook": {"webhook_url": "${HOOK}"}},
            slack={"slack": {"webhook_url": "${SLACK}"}},
            mail={"email": {**mail, "port": mailbox.port}},
        )
        daemon.tick(10 * MINUTE)
        assert (len(server.posts), len(slack_server.posts), len(mailbox.mails)) == (1, 2, 1)
        assert daemon.tick(HOUR) == "0 new to tell"
    stored = read_state(daemon.instance, state_key(daemon.project.config)) or ""
    assert SECRET not in stored


def test_a_tick_that_dies_after_sending_sends_again_later_not_at_once(
    daemon: Daemon, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once, and never a flood: also where every single tick dies."""

    def send_and_die(messages: object) -> None:
        send_all(messages)
        raise SystemExit(9)

    send_all = notification_tick.send_all
    monkeypatch.setattr(notification_tick, "send_all", send_and_die)
    daemon.run(unreachable())
    for _ in range(60):
        with contextlib.suppress(SystemExit):
            daemon.tick()
    monkeypatch.undo()
    assert [post.json["id"] for post in server.posts] == [server.posts[0].json["id"]] * 6
    monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
    assert "told pager" in daemon.tick(HOUR)
    assert daemon.tick() == "0 new to tell"


def test_a_storm_makes_few_messages_and_a_summary(daemon: Daemon, server: HttpReceiver) -> None:
    """Twelve jobs fail within half an hour, and the channel takes three messages an hour."""
    hook = {"webhook": {"webhook_url": "${HOOK}"}, "max_per_hour": 3}
    configure(daemon.project, pager=hook)
    for number in range(12):

        @dg.op(name=f"step_{number}")
        def step() -> None:
            raise KeyError("x")

        @dg.job(name=f"job_{number}")
        def failing() -> None:
            step()

        failing.execute_in_process(instance=daemon.instance, raise_on_error=False)
        daemon.tick(2 * MINUTE)
    assert len(server.posts) == 3
    daemon.tick(40 * MINUTE)
    assert len(server.posts) == 4
    last = server.posts[3].json
    assert last["subject"] == "[acme] 9 problems"
    assert len(last["notices"]) == 9


def test_storage_that_is_out_of_reach_does_not_silence_the_rest(
    daemon: Daemon, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables cannot be read: that is when runs fail, and people have to know."""
    daemon.list_source("would remove 30 of 40", n_refused=30)
    daemon.tick()

    def broken_tables(_: object) -> None:
        raise OSError("no route to host")

    from ragassets.adapters.workspace import Workspace

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "tables", property(broken_tables))
        daemon.run(unreachable())
        daemon.tick()
    assert told(server)[-1] == [
        ("new", "process_documents failed in raw_documents: source_unavailable")
    ]
    daemon.tick()
    assert len(server.posts) == 2


def test_storage_that_hangs_does_not_silence_the_rest(
    daemon: Daemon, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store is asked for minutes before it counts as out of reach."""
    daemon.list_source("would remove 30 of 40", n_refused=30)
    daemon.tick()
    daemon.run(unreachable())
    with monkeypatch.context() as patch:
        patch.setattr(notification_facts, "READ_SECONDS", 0.2)
        patch.setattr(notification_facts, "read_listings", lambda _: time.sleep(3))
        patch.setattr(notification_facts, "read_letters", lambda *_: time.sleep(3))
        began = time.monotonic()
        assert daemon.tick() == "1 new to tell, told pager"
        assert time.monotonic() - began < 2.5
    assert daemon.tick() == "0 new to tell"


def test_a_forgotten_document_leaves_what_waits(
    tmp_path: Path, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of a digest name documents, and may wait for days for a broken channel."""
    project = Project(tmp_path / "project")
    monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
    configure(project, pager={"webhook": {"webhook_url": "${HOOK}"}})
    server.usual = Reply(500)
    home = tmp_path / "dagster"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        daemon = Daemon(project, instance)
        daemon.write_letters("a.pdf", "b.pdf")
        assert daemon.tick() == "1 new to tell, pager was not told, 1 wait"
        assert forget_in_notifications(instance, project.config, ["file:///handbook/a.pdf"])
        assert not forget_in_notifications(instance, project.config, ["file:///handbook/a.pdf"])
        stored = read_state(instance, state_key(project.config)) or ""
        assert "a.pdf" not in stored
        server.usual = Reply()
        assert daemon.tick() == "0 new to tell, told pager"
    assert "such as file:///handbook/b.pdf" in server.posts[-1].json["text"]
    assert "a.pdf" not in server.posts[-1].json["text"]


def test_the_state_survives_the_daemon(
    tmp_path: Path, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A persistent instance, closed and opened again."""
    project = Project(tmp_path / "project")
    monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
    configure(project, pager={"webhook": {"webhook_url": "${HOOK}"}})
    home = tmp_path / "dagster"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        daemon = Daemon(project, instance)
        daemon.run(unreachable())
        daemon.tick()
        then = daemon.now
    with DagsterInstance.local_temp(str(home)) as instance:
        daemon = Daemon(project, instance)
        daemon.now = then
        assert daemon.tick() == "0 new to tell"
    assert len(server.posts) == 1
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


KILLED_AFTER_SENDING = """
import logging, os, signal, sys
from datetime import datetime
from dagster import DagsterInstance
from ragassets.config import load_config
from ragassets.defs import notification_tick
from ragassets.defs.resources import WorkspaceResource

config, home, now = load_config(sys.argv[1]), sys.argv[2], datetime.fromisoformat(sys.argv[3])
send_all = notification_tick.send_all

def send_and_die(messages):
    assert set(send_all(messages).values()) == {None}
    os.kill(os.getpid(), signal.SIGKILL)

notification_tick.send_all = send_and_die
with DagsterInstance.local_temp(home) as instance:
    tick = notification_tick.Tick(
        instance, WorkspaceResource(config), config.notifications,
        checks=[], location=None, log=logging.getLogger(),
    )
    tick.run(now)
"""


@pytest.mark.slow
def test_a_daemon_that_is_killed_after_sending_tells_once_more_and_not_at_once(
    tmp_path: Path, server: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real SIGKILL and a storage on disk; the copy has the same id."""
    project = Project(tmp_path / "project")
    monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
    configure(project, pager={"webhook": {"webhook_url": "${HOOK}"}})
    home = tmp_path / "dagster"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        daemon = Daemon(project, instance)
        daemon.run(unreachable())
    arguments = [str(project.config_file), str(home), daemon.now.isoformat()]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_SENDING, *arguments], check=False, timeout=200
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(server.posts) == 1
    with DagsterInstance.local_temp(str(home)) as instance:
        daemon.instance = instance
        assert daemon.tick(timedelta(seconds=30)) == "0 new to tell, 1 wait"
        assert daemon.tick(timedelta(seconds=30)) == "0 new to tell, told pager"
        assert daemon.tick(HOUR) == "0 new to tell"
    first, second = (post.json["id"] for post in server.posts)
    assert first == second


def test_no_secret_reaches_what_dagster_knows_of_us(daemon: Daemon) -> None:
    """The UI shows the configuration of resources, and the definitions."""
    config = daemon.project.config
    definitions = build_definitions(config)
    (sensor,) = (one for one in definitions.sensors or () if one.name == notifications.SENSOR)
    shown = [repr(config), config.model_dump_json(), str(sensor.description), repr(definitions)]
    assert not [text for text in shown if SECRET in text]
    assert sensor.description == "Tells people what is wrong: pager (webhook)"
    assert json.loads(config.model_dump_json())["notifications"]["channels"]["pager"]
