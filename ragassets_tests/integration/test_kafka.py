"""Messages of a topic become searchable, each once, whoever reads them and whatever is killed."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from dagster import DagsterInstance

from ragassets.core.asset_tables import CHUNKS, SOURCE_OBJECTS, STREAM_POSITIONS
from ragassets.defs.ingest import ingest
from ragassets.defs.resources import WorkspaceResource
from ragassets.queries.status import read_status
from ragassets.stages.source_objects import discover
from ragassets_tests.defs.test_source_sensors import Daemon
from ragassets_tests.kafka_broker import Broker, running_broker
from ragassets_tests.scenario import Executioner, Project, counts, fake_embedder, watched_effects

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

N_MESSAGES = 200
N_DELETED = 20
WORDS = ("apricot", "badger", "canoe", "dynamo", "ember", "falcon", "garnet", "harbour", "igloo")


def text(number: int) -> str:
    """A document that no other resembles, with a word that only it has."""
    words = [WORDS[number // 9**place % 9] for place in range(3)]
    return f"The notice numbered item{number:03d} speaks of {', '.join(words)} and little else."


MESSAGES = {f"ticket {number:03d}": text(number) for number in range(N_MESSAGES)}
DELETED = [f"ticket {number:03d}" for number in range(0, N_MESSAGES, N_MESSAGES // N_DELETED)]
LEFT = {key: value for key, value in MESSAGES.items() if key not in DELETED}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running_broker() as running:
        yield running


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Project:
    """A topic of three partitions that nobody has read: 200 messages, then 20 deletions."""
    folder = tmp_path_factory.mktemp("kafka")
    project = Project(folder / "project")
    uri = broker.create(folder.name, partitions=3)
    broker.write(folder.name, MESSAGES)
    broker.write(folder.name, dict.fromkeys(DELETED))
    project.configure_source(uri=uri, shards=2, sensor=True)
    return project


def chunk_texts(project: Project) -> list[str]:
    """The text of every chunk."""
    return sorted(project.rows(CHUNKS.outputs)["text"])


def assert_exactly_what_is_left_is_searchable(project: Project) -> None:
    """No message is lost, none is there twice, no deleted one is found."""
    assert chunk_texts(project) == sorted(LEFT.values())
    with project.workspace.vector_store() as store:
        assert store.count("v1") == N_MESSAGES - N_DELETED
    assert project.audit() == []
    assert project.disagreements() == []
    (uri, *_) = project.found_uris(MESSAGES["ticket 123"])
    assert uri.endswith("/ticket%20123")


def test_an_ingestion_makes_what_is_left_searchable(project: Project, broker: Broker) -> None:
    topic = project.config.source("handbook").uri.rpartition("/")[2]
    with fake_embedder():
        report = project.ingest()
        assert (report.n_discovered, report.problems) == (N_MESSAGES - N_DELETED, ())
        assert_exactly_what_is_left_is_searchable(project)
        broker.write(topic, {"ticket 001": "The notice item001 is now about lighthouses alone."})
        report = project.ingest()
        assert counts(report, "embeddings")[0] == 1
        assert project.holds_text("lighthouses alone")
    assert read_status(project.workspace).sources["handbook"].messages_behind == 0


def test_a_sensor_makes_what_is_left_searchable(project: Project) -> None:
    """A tick reads the topic, and the shards that changed are asked for."""
    with DagsterInstance.ephemeral() as instance, fake_embedder():
        daemon = Daemon(instance, project)
        result = daemon.watch()
        said = str(result.skip_reason)
        assert "180 new, 0 changed, 0 gone; 0 messages behind" in said
        events = result.asset_events or []
        assert {event.partition for event in events} == {"handbook-000", "handbook-001"}
        assert [event.metadata["n_messages_behind"].value for event in events] == [0, 0]
        assert set(daemon.asked()) == {"handbook-000", "handbook-001"}
        assert "0 new, 0 changed, 0 gone; 0 messages behind" in str(daemon.watch().skip_reason)
        ingest(
            WorkspaceResource(project.config),
            instance,
            [],
            progress=lambda _stage, _done, _total: None,
        )
        assert daemon.asked() == {}
        assert_exactly_what_is_left_is_searchable(project)


def test_a_reader_that_is_killed_again_and_again_loses_and_doubles_nothing(
    project: Project,
) -> None:
    """At every kind of moment of a batch, each time by a new process that goes on from there."""
    kinds = _moments_of_a_batch(project)
    assert kinds == [
        f"{moment} {what}"
        for what in ("land", "replace source_objects", "replace _stream_positions", "tell")
        for moment in ("before", "after")
    ]
    for moment in range(len(kinds)):
        reader = project.start(
            *("-m", "ragassets_tests.kafka_reader", str(project.config_file), "20", str(moment))
        )
        assert reader.wait(timeout=120) == -signal.SIGKILL, project.log.read_text()[-3000:]
    with fake_embedder():
        report = project.ingest()
        assert report.problems == ()
        assert_exactly_what_is_left_is_searchable(project)
    rows = project.rows(SOURCE_OBJECTS)
    assert rows["document_id"].n_unique() == rows.height
    assert project.rows(STREAM_POSITIONS)["position"].sum() == N_MESSAGES + N_DELETED


def _moments_of_a_batch(project: Project) -> list[str]:
    """What a reader does of one batch, seen on a project of its own."""
    other = Project(project.folder.with_name("watched"))
    other.configure_source(uri=project.config.source("handbook").uri, shards=2)
    seen = Executioner()
    with watched_effects(seen):
        discover(other.workspace, ["handbook"], now=datetime.now(UTC))
    return seen.moments[:8]
