"""A stream as a source: whatever happens, it ends as if every message had been read once."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.store_lock import StoreLock
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS, STREAM_POSITIONS
from ragassets.core.fingerprints import document_id
from ragassets.core.kafka_messages import Message, fold_messages
from ragassets.core.kafka_settings import KafkaConfig
from ragassets.core.sources import Listing, SourceObject, StreamBatch
from ragassets.errors import RagAssetsError, SourceUnavailableError
from ragassets.queries.audit_storage import audit_landing_zone, unused_raw_bytes
from ragassets.stages.forgetting import forget_documents
from ragassets.stages.raw_documents import update_raw_documents
from ragassets.stages.retired_shards import forget_source
from ragassets.stages.source_objects import SourceDiscovery, discover
from ragassets.stages.source_stream import count_behind, read_positions, read_stream
from ragassets.stages.tombstones import Named
from ragassets_tests.scenario import Executioner, Project, watched_effects
from ragassets_tests.stage_runs import context

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
BASE = "kafka://broker:9092/docs"


class Killed(BaseException):
    """The process ended here."""


class Stream:
    """A topic in memory, of two partitions."""

    def __init__(self, bodies: LandedBodies, batch: int = 3) -> None:
        """Begin empty; `batch` messages are read at a time."""
        self.bodies, self.batch, self.base = bodies, batch, BASE
        self.log: list[list[Message]] = [[], []]
        self.told: Mapping[str, int] = {}
        self.breaks_after = math.inf
        """The stream stops answering after so many messages of a reading."""
        self.n_open = 0

    def write(self, *pairs: tuple[str, str | None], partition: int | None = None) -> None:
        """Append messages; a key is always in the same partition."""
        for key, value in pairs:
            place = ord(key[0]) % 2 if partition is None else partition
            log = self.log[place]
            body = None if value is None else value.encode()
            log.append(Message(place, len(log), key.encode(), body, NOW))

    def probe(self) -> str:
        """See `Source`."""
        return "memory"

    def list_objects(self) -> Listing:
        """See `Source`."""
        raise AssertionError

    def fetch(self, wanted: SourceObject) -> bytes:
        """See `Source`."""
        return self.bodies.read(wanted.etag)

    def open_stream(self, positions: Mapping[str, int]) -> "Reader":
        """See `StreamSource`."""
        if self.breaks_after < 0:
            raise SourceUnavailableError(service=BASE, detail="is away")
        self.n_open += 1
        return Reader(self, {str(part): positions.get(str(part), 0) for part in (0, 1)})

    def count_behind(self, positions: Mapping[str, int]) -> int:
        """See `StreamSource`."""
        return sum(len(log) - positions.get(str(part), 0) for part, log in enumerate(self.log))


class Reader:
    """One reading."""

    def __init__(self, stream: Stream, positions: dict[str, int]) -> None:
        """Read from these positions up to the end of now."""
        self.stream, self.positions = stream, positions
        self.ends = [len(log) for log in stream.log]
        self.n_read = 0

    def receive(self, *, wait_seconds: float) -> StreamBatch | None:
        """See `StreamReader`."""
        del wait_seconds
        messages: list[Message] = []
        for part, (log, end) in enumerate(zip(self.stream.log, self.ends, strict=True)):
            place = self.positions[str(part)]
            taken = log[place : min(end, place + self.stream.batch - len(messages))]
            self.positions[str(part)] = place + len(taken)
            messages += taken
        if not messages:
            return None
        self.n_read += len(messages)
        if self.n_read > self.stream.breaks_after:
            raise SourceUnavailableError(service=BASE, detail="broke off")
        folded = fold_messages(messages, self.stream.base, KafkaConfig())
        etags = self.stream.bodies.land(folded.bodies)
        objects = [SourceObject(u, etags[u], len(b), NOW) for u, b in folded.bodies.items()]
        listing = Listing(objects, is_complete=False, deleted=folded.deleted)
        return StreamBatch(listing, dict(self.positions), folded.n_without_identity)

    def tell(self, positions: Mapping[str, int]) -> None:
        """See `StreamReader`."""
        self.stream.told = dict(positions)

    def n_behind(self) -> int:
        """See `StreamReader`."""
        return sum(end - self.positions[str(part)] for part, end in enumerate(self.ends))

    def close(self) -> None:
        """See `StreamReader`."""
        self.stream.n_open -= 1


class World:
    """A project whose only source is a stream."""

    def __init__(self, folder: Path, shards: int = 2) -> None:
        """Begin with an empty stream that nobody has read."""
        self.project = Project(folder)
        self.project.configure_source(uri=BASE, shards=shards)
        self.workspace = Workspace(self.project.config)
        self.stream = Stream(self.workspace.landed_bodies("handbook"))

    def read(self, **options: Any) -> SourceDiscovery:
        """One reading in a new process: nothing is known but what is stored."""
        self.workspace = Workspace(self.project.config)
        self.stream.bodies = self.workspace.landed_bodies("handbook")
        return read_stream(self.workspace, "handbook", self.stream, now=NOW, **options)

    def documents(self) -> dict[str, str]:
        """Key to text of every living document, read from the landing zone."""
        rows = self.workspace.tables.read(SOURCE_OBJECTS, where=~pl.col("is_deleted"))
        assert rows["document_id"].n_unique() == rows.height
        return {
            uri.removeprefix(f"{BASE}/"): self.stream.bodies.read(etag).decode()
            for uri, etag in rows.select("uri", "etag").iter_rows()
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "project")


def the_end(log: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """What messages leave behind that are read once, in order."""
    end = dict(log)
    return {key: text for key, text in end.items() if text is not None}


def test_messages_become_documents_and_nothing_is_read_twice(world: World) -> None:
    world.stream.write(*((key, f"text {key}") for key in "abcdefgh"))
    found = world.read()
    assert (found.n_new, found.n_changed, found.n_removed, found.n_behind) == (8, 0, 0, 0)
    assert world.documents() == {key: f"text {key}" for key in "abcdefgh"}
    assert read_positions(world.workspace, "handbook") == {"0": 4, "1": 4} == world.stream.told
    world.stream.write(("a", "changed"), ("b", None), ("z", None))
    found = world.read()
    assert (found.n_new, found.n_changed, found.n_removed, found.n_objects) == (0, 1, 1, 7)
    assert world.documents()["a"] == "changed"
    before = world.workspace.tables.snapshot(SOURCE_OBJECTS).version
    assert world.read().changed_shards == ()
    assert world.workspace.tables.snapshot(SOURCE_OBJECTS).version == before
    assert world.stream.n_open == 0


def test_bodies_are_fetched_from_the_landing_zone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stream.write(("a", "text"))
    world.read()
    monkeypatch.setattr(world.workspace, "source", lambda _name: world.stream)
    shards = world.workspace.config.source_shards()
    reports = update_raw_documents(world.workspace, shards, context(world.workspace))
    assert sum(report.n_computed for report in reports.values()) == 1
    assert unused_raw_bytes(world.workspace) == []


def test_a_budget_that_is_over_leaves_the_rest_to_the_next_reading(world: World) -> None:
    world.stream.write(*((key, key) for key in "abcdefgh"))
    ticks = iter(range(100))
    found = world.read(budget_seconds=2, clock=lambda: float(next(ticks)))
    assert (found.n_new, found.n_behind, found.problem) == (3, 5, "")
    rows = world.workspace.tables.read(SOURCE_LISTINGS)
    assert rows["is_complete"].to_list() == [False]
    assert world.read().n_new == 5


def test_a_stream_that_breaks_off_keeps_what_was_recorded(world: World) -> None:
    """And says so; nothing is deleted."""
    world.stream.write(*((key, key) for key in "abcdefgh"))
    world.stream.breaks_after = 4
    found = world.read()
    assert (found.n_new, found.n_behind) == (3, None)
    assert "broke off" in found.problem
    rows = world.workspace.tables.read(SOURCE_LISTINGS)
    assert rows["message"].to_list() == [found.problem]
    world.stream.breaks_after = -1
    found = world.read()
    assert ("is away" in found.problem, found.n_removed, len(world.documents())) == (True, 0, 3)
    world.stream.breaks_after = math.inf
    assert world.read().problem == ""
    assert len(world.documents()) == 8


def test_a_source_is_read_by_one_process_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is told, and loses nothing."""
    world.stream.write(("a", "text"))
    monkeypatch.setattr("ragassets.adapters.workspace.LANDING_WAIT_SECONDS", 0.1)
    folder = world.project.folder / ".ragassets" / "locks" / "landing-handbook"
    folder.mkdir(parents=True)
    other = StoreLock(folder, timeout_seconds=1)
    other.acquire()
    found = world.read()
    assert "is being read" in found.problem
    assert world.documents() == {}
    other.release()
    assert world.read().n_new == 1


def test_two_readers_that_take_turns_leave_every_message_to_one_of_them(world: World) -> None:
    """The positions of one are not those of the other: it stops, instead of going back."""
    world.stream.write(*((key, f"old {key}") for key in "abcdefgh"))
    original = Reader.receive
    interruptions: list[int] = []

    def receive(self: Reader, *, wait_seconds: float) -> StreamBatch | None:
        if self.n_read == 3 and not interruptions:
            interruptions.append(self.n_read)
            world.stream.write(("a", "new a"))
            # The lock is this process's: what two machines with a lost lease do to each other.
            with patch.object(StoreLock, "acquire"), patch.object(StoreLock, "release"):
                read_stream(world.workspace, "handbook", world.stream, now=NOW)
        return original(self, wait_seconds=wait_seconds)

    with patch.object(Reader, "receive", receive), suppress(RagAssetsError):
        world.read()
    assert interruptions == [3]
    world.read()
    assert world.documents() == {**{key: f"old {key}" for key in "bcdefgh"}, "a": "new a"}
    assert read_positions(world.workspace, "handbook") == {"0": 4, "1": 5}


def test_a_repair_waits_for_whoever_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would remove bytes that are landed and about to be named."""
    monkeypatch.setattr("ragassets.adapters.workspace.LANDING_WAIT_SECONDS", 0.1)
    with world.workspace.landing("handbook"):
        other = Workspace(world.project.config)
        with (
            pytest.raises(SourceUnavailableError, match="is being read"),
            other.landing("handbook"),
        ):
            raise AssertionError


def test_a_source_that_left_and_came_back_is_read_from_its_beginning(world: World) -> None:
    world.stream.write(("a", "text"))
    world.read()
    forget_source(world.workspace, "handbook", NOW)
    assert world.documents() == {}
    assert read_positions(world.workspace, "handbook") == {}
    assert world.read().n_new == 1


def test_another_topic_is_read_from_its_beginning_and_the_old_documents_wait(world: World) -> None:
    """No message will ever delete them: a person has to say that they are to go."""
    world.stream.write(("a", "text"))
    world.read()
    world.project.configure_source(uri=f"{BASE}-v2")
    world.stream.base = f"{BASE}-v2"
    found = world.read()
    assert "1 documents are of an address that the source had before" in found.problem
    assert set(world.documents()) == {"a", f"{BASE}-v2/a"}
    found = world.read(is_confirmed=True)
    assert (found.n_removed, found.problem) == (1, "")
    assert set(world.documents()) == {f"{BASE}-v2/a"}


def test_a_forgotten_document_reaches_neither_rows_nor_disk(world: World) -> None:
    world.stream.write(("a", "text"), ("b", "other"))
    world.read()
    named = Named(document_id("handbook", f"{BASE}/a"), "handbook")
    forget_documents(
        world.workspace, [named], context(world.workspace), actor="me", reason="they asked"
    )
    world.stream.write(("a", "it is back"), ("c", "third"))
    assert world.read().n_new == 1
    assert world.documents() == {"b": "other", "c": "third"}
    assert len(list(world.workspace.landing_zone.content_hashes())) == 2


def test_how_far_behind_a_stream_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.workspace, "source", lambda _name: world.stream)
    world.stream.write(*((key, key) for key in "abcde"))
    assert count_behind(world.workspace, "handbook") == 5
    discover(world.workspace, ["handbook"], now=NOW)
    world.stream.write(("f", "f"))
    assert count_behind(world.workspace, "handbook") == 1


LOG = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.sampled_from(["one", "two", "three"])),
    max_size=14,
)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(log=LOG, data=st.data())
def test_killed_anywhere_it_ends_as_if_nothing_had_happened(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    """Killed between any two effects, several times, with more messages in between."""
    world = World(tmp_path_factory.mktemp("stream") / "project", shards=1)
    n_written = data.draw(st.integers(0, len(log)))
    world.stream.write(*log[:n_written])
    for _ in range(data.draw(st.integers(1, 3))):
        world.stream.batch = data.draw(st.integers(1, 5))
        with suppress(Killed), killed_at(data.draw(st.integers(0, 12))):
            world.read()
    world.stream.write(*log[n_written:])
    assert world.read().n_behind == 0
    assert world.documents() == the_end(log)
    missing, damaged, _ = audit_landing_zone(world.workspace)
    assert (missing.count, damaged.count) == (0, 0)


def killed_at(moment: int) -> Any:
    """The process ends at an effect: a landed body, a commit, or what the service is told."""

    def kill() -> None:
        raise Killed

    return watched(Executioner(moment, kill))


class watched:  # noqa: N801 - a context manager that is used like a function
    """Every effect of a reading, those on the landing zone and the stream too."""

    def __init__(self, observe: Executioner) -> None:
        """Call `observe` before and after each."""
        self._observe = observe
        self._parts: list[Any] = []

    def __enter__(self) -> None:
        """Begin to watch."""
        self._parts = [watched_effects(self._observe), *self._patches()]
        for part in self._parts:
            part.__enter__()

    def __exit__(self, *error: object) -> None:
        """Watch no more."""
        for part in reversed(self._parts):
            part.__exit__(None, None, None)

    def _patches(self) -> Iterator[Any]:
        for kind, name in ((LandingZone, "put"), (Reader, "tell")):
            yield patch.object(kind, name, self._watched(getattr(kind, name), name))

    def _watched(self, original: Any, name: str) -> Any:
        observe = self._observe

        def call(self: object, *args: Any) -> Any:
            observe("before", name)
            result = original(self, *args)
            observe("after", name)
            return result

        return call


def test_a_note_is_made_now_and_then_though_nothing_changes(world: World) -> None:
    world.read()
    first = world.workspace.tables.read(SOURCE_LISTINGS)["listed_at"][0]
    assert first == NOW
    world.workspace = Workspace(world.project.config)
    later = NOW + timedelta(minutes=11)
    read_stream(world.workspace, "handbook", world.stream, now=later)
    assert world.workspace.tables.read(SOURCE_LISTINGS)["listed_at"].to_list() == [later]
    assert world.workspace.tables.read(STREAM_POSITIONS).height == 0
