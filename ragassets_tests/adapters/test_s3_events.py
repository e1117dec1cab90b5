"""A bucket's events through a queue, on a server on loopback."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from ragassets.adapters.sources import s3_events
from ragassets.adapters.sources.s3_events import S3EventQueue
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.sources import EventBatch, EventQueue
from ragassets.errors import ConcurrentWriteError, SourceRefusedError, SourceUnavailableError
from ragassets.stages.source_objects import discover
from ragassets.stages.source_watch import take_events, was_listed
from ragassets_tests.s3_server import BUCKET, Fault, S3Server, running_s3
from ragassets_tests.scenario import Project

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A bucket with two objects."""
    with running_s3(monkeypatch) as server:
        server.put("docs/a.md", "hello")
        server.put("docs/b c.md", "hello")
        yield server


class Queue:
    """The queue that gets the bucket's events."""

    def __init__(self, s3: S3Server) -> None:
        """Make it, and tell the bucket."""
        import boto3

        self.sqs = cast("Any", boto3).client("sqs", endpoint_url=s3.url, region_name="us-east-1")
        self.url = self.sqs.create_queue(QueueName="events", Attributes={"VisibilityTimeout": "0"})[
            "QueueUrl"
        ]
        arn = "arn:aws:sqs:us-east-1:123456789012:events"
        wanted = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": wanted}]}
        s3.client().put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration=configuration
        )
        # The message that S3 sends to try the queue.
        self.sqs.purge_queue(QueueUrl=self.url)

    def __len__(self) -> int:
        """Messages that are left."""
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def drain(self) -> list[str]:
        """Take all messages away."""
        bodies: list[str] = []
        while received := self.sqs.receive_message(QueueUrl=self.url).get("Messages"):
            bodies.append(received[0]["Body"])
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=received[0]["ReceiptHandle"])
        return bodies

    def send(self, body: str) -> None:
        """A message of somebody else, or an old one."""
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def repeat(self, *keys: str) -> None:
        """An event about some objects, whatever really happened."""
        records = [{"s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys]
        self.send(json.dumps({"Records": records}))


@pytest.fixture
def queue(s3: S3Server) -> Queue:
    """Empty."""
    return Queue(s3)


@pytest.fixture
def workspace(tmp_path: Path, s3: S3Server, queue: Queue) -> Workspace:
    """A source that was listed once and is followed by its events."""
    project = Project(tmp_path / "project")
    retry = {"attempts": 1}
    project.configure_source(
        uri=f"s3://{BUCKET}/docs", shards=1, sensor={"queue": queue.url}, fetch={"retry": retry}
    )
    workspace = Workspace(project.config)
    discover(workspace, ["handbook"], now=NOW)
    return workspace


def take(workspace: Workspace) -> tuple[int, int, int]:
    """New, changed and removed objects by the events that there are."""
    queue = workspace.event_queue("handbook")
    assert queue is not None
    found = take_events(workspace, "handbook", queue, now=NOW)
    return tuple(sum(getattr(one, n) for one in found) for n in ("n_new", "n_changed", "n_removed"))  # pyright: ignore[reportReturnType]


def alive(workspace: Workspace) -> set[str]:
    """Paths of the objects that are recorded as being there."""
    rows = workspace.tables.read(SOURCE_OBJECTS, where=~pl.col("is_deleted"))
    return {str(uri).removeprefix(f"s3://{BUCKET}/docs/") for uri in rows["uri"]}


def test_events_are_recorded_without_a_listing(
    workspace: Workspace, s3: S3Server, queue: Queue
) -> None:
    """New, overwritten and deleted objects cost a look at each, however large the bucket is."""
    s3.requests.clear()
    s3.put("docs/new ü+.md", "new")
    s3.put("docs/a.md", "changed")
    s3.delete("docs/b c.md")
    s3.put("elsewhere/x.md", "not ours")
    assert len(queue) == 4
    assert take(workspace) == (1, 1, 1)
    assert alive(workspace) == {"a.md", "new%20%C3%BC%2B.md"}
    assert s3.count("list-type=2") == 0
    assert len(queue) == 0


def test_late_and_doubled_events_change_nothing(
    workspace: Workspace, s3: S3Server, queue: Queue
) -> None:
    """They say where to look; what is there says the bucket."""
    s3.put("docs/a.md", "second")
    s3.put("docs/a.md", "third")
    s3.delete("docs/b c.md")
    s3.put("docs/b c.md", "back again")
    assert take(workspace) == (0, 2, 0)
    before = workspace.tables.snapshot(SOURCE_OBJECTS).version
    queue.repeat("docs/a.md", "docs/b+c.md", "docs/never-was.md")
    queue.repeat("docs/a.md")
    assert take(workspace) == (0, 0, 0)
    assert workspace.tables.snapshot(SOURCE_OBJECTS).version == before
    assert alive(workspace) == {"a.md", "b%20c.md"}


def test_an_event_is_acknowledged_after_it_was_recorded(
    workspace: Workspace, s3: S3Server, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or beaten in between, it comes again."""
    s3.put("docs/new.md", "new")
    tables = workspace.tables

    def losing(*_: object) -> int:
        raise ConcurrentWriteError(table="source_objects", partition="handbook-000")

    with monkeypatch.context() as patch:
        patch.setattr(type(tables), "replace", losing)
        with pytest.raises(ConcurrentWriteError):
            take(workspace)
    assert len(queue) == 1
    assert take(workspace) == (1, 0, 0)
    assert len(queue) == 0


def test_a_bucket_that_is_away_loses_no_event(
    workspace: Workspace, s3: S3Server, queue: Queue
) -> None:
    """And an object that cannot be looked at is not taken for deleted."""
    s3.put("docs/a.md", "changed")
    s3.faults.append(Fault("docs/a.md", method="HEAD", status=503))
    with pytest.raises(SourceUnavailableError):
        take(workspace)
    s3.faults.clear()
    assert take(workspace) == (0, 1, 0)


def test_a_message_of_another_kind_stays_and_stops_nobody(
    workspace: Workspace, s3: S3Server, queue: Queue
) -> None:
    """Its owner has a place for what nobody understands."""
    queue.send("hello")
    s3.put("docs/new.md", "new")
    queue_of_source: EventQueue | None = workspace.event_queue("handbook")
    assert queue_of_source is not None
    batch = queue_of_source.receive()
    assert batch is not None
    assert [entry.uri for entry in batch.listing.objects] == [f"s3://{BUCKET}/docs/new.md"]
    assert "5 characters is no event of S3; it stays in the queue" in batch.listing.message
    batch.acknowledge()
    assert len(queue) == 1


def test_a_message_of_another_kind_costs_no_listing(workspace: Workspace, queue: Queue) -> None:
    """It comes again with every tick, and a bucket with a queue is too large to be listed."""
    queue.send("hello")
    assert was_listed(workspace, "handbook")
    take(workspace)
    assert was_listed(workspace, "handbook")


def test_an_event_that_comes_after_the_next_change_changes_nothing(
    workspace: Workspace, s3: S3Server, queue: Queue
) -> None:
    """A creation behind the deletion, a deletion behind the creation: as it arrives, nobody knows.

    S3 numbers the events of an object (`sequencer`). A number kept for each object would tell which
    of two is older; asking the bucket tells what is true, after a lost event too.
    """
    s3.put("docs/late.md", "first")
    s3.put("docs/late.md", "second")
    s3.delete("docs/late.md")
    s3.delete("docs/a.md")
    s3.put("docs/a.md", "hello again")
    late = queue.drain()
    # The last news comes first.
    queue.send(late[2])
    queue.send(late[4])
    assert take(workspace) == (0, 1, 0)
    for body in (late[1], late[3], late[0], late[0]):
        queue.send(body)
        assert take(workspace) == (0, 0, 0)
    assert alive(workspace) == {"a.md", "b%20c.md"}
    assert len(queue) == 0


def test_a_batch_that_was_killed_before_it_was_acknowledged_comes_again(
    workspace: Workspace, s3: S3Server, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it told is recorded; what happened since then is what the second reading finds."""
    s3.put("docs/new.md", "new")
    with monkeypatch.context() as patch:
        patch.setattr(S3EventQueue, "_delete", killed)
        with pytest.raises(KeyboardInterrupt):
            take(workspace)
    assert alive(workspace) == {"a.md", "b%20c.md", "new.md"}
    assert len(queue) == 1
    s3.delete("docs/new.md")
    assert take(workspace) == (0, 0, 1)
    assert (alive(workspace), len(queue)) == ({"a.md", "b%20c.md"}, 0)


def killed(*_: object) -> None:
    """Stand for the end of the process."""
    raise KeyboardInterrupt


class HeldUp:
    """A queue whose reader is held up between reading and recording."""

    def __init__(self, queue: EventQueue, meanwhile: Callable[[], None]) -> None:
        """Remember what happens meanwhile."""
        self._queue, self._meanwhile = queue, meanwhile

    def receive(self) -> EventBatch | None:
        """See `EventQueue`."""
        batch = self._queue.receive()
        self._meanwhile()
        return batch


def test_what_was_read_too_long_ago_is_not_recorded(
    workspace: Workspace, s3: S3Server, queue: Queue
) -> None:
    """The messages were given to another reader, who recorded them and a deletion after them."""
    s3.put("docs/new.md", "new")
    slow = workspace.event_queue("handbook")
    assert slow is not None

    def meanwhile() -> None:
        assert take(workspace) == (1, 0, 0)
        s3.delete("docs/new.md")
        assert take(workspace) == (0, 0, 1)

    with pytest.raises(ConcurrentWriteError):
        take_events(workspace, "handbook", HeldUp(slow, meanwhile), now=NOW)
    assert alive(workspace) == {"a.md", "b%20c.md"}
    assert take(workspace) == (0, 0, 0)


def test_a_burst_is_taken_over_several_ticks(
    workspace: Workspace, s3: S3Server, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that is over leaves the rest in the queue."""
    monkeypatch.setattr(s3_events, "BATCH_MESSAGES", 20)
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "600"})
    for number in range(60):
        s3.put(f"docs/{number:02d}.md", "new")
    events = workspace.event_queue("handbook")
    assert events is not None
    seconds = iter(range(100))

    def tick() -> list[int]:
        found = take_events(
            workspace,
            "handbook",
            events,
            now=NOW,
            budget_seconds=3,
            clock=lambda: float(next(seconds)),
        )
        return [one.n_new for one in found]

    assert (tick(), len(queue)) == ([20, 20], 20)
    assert (tick(), len(queue)) == ([20], 0)
    assert len(alive(workspace)) == 62


def test_a_slow_queue_gives_smaller_batches(
    workspace: Workspace, s3: S3Server, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else collecting and looking up 500 messages outlasts the tick, which Dagster then ends."""
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "600"})
    for number in range(20):
        queue.repeat(f"docs/{number:02d}.md")
    events = workspace.event_queue("handbook")
    assert events is not None
    monkeypatch.setattr(s3_events, "COLLECT_SECONDS", 0.0)
    batch = events.receive()
    assert batch is not None
    assert len(batch.listing.deleted) == 10


def test_a_queue_that_is_not_there_is_named(workspace: Workspace, queue: Queue) -> None:
    """Waiting does not help."""
    queue.sqs.delete_queue(QueueUrl=queue.url)
    with pytest.raises(SourceRefusedError, match="Mend the queue's URL"):
        take(workspace)
