"""A topic as a source, against a broker on loopback that also fails."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.sources import kafka_topic
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.records import read_envelope
from ragassets.core.sources import SourceObject
from ragassets.errors import ConfigurationError, OversizedDocumentError, SourceUnavailableError
from ragassets.queries.doctor import examine
from ragassets.queries.status import read_status
from ragassets.stages.source_objects import SourceDiscovery
from ragassets.stages.source_stream import read_positions, read_stream
from ragassets_tests.kafka_broker import Broker, running_broker
from ragassets_tests.scenario import Project

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
GROUP = "ragassets-handbook"


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker for topics of different names."""
    with running_broker() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not answer is given up after a second or two."""
    monkeypatch.setattr(kafka_topic, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(kafka_topic, "OUTAGE_SECONDS", 1.0)


def read(project: Project, **options: float) -> SourceDiscovery:
    """One reading, by a process that knows nothing but what is stored."""
    workspace = Workspace(project.config)
    topic = workspace.source("handbook")
    assert isinstance(topic, kafka_topic.KafkaTopic)
    return read_stream(workspace, "handbook", topic, now=NOW, **options)


def documents(project: Project) -> dict[str, str]:
    """Key to text of every living document."""
    workspace = Workspace(project.config)
    rows = workspace.tables.read(SOURCE_OBJECTS, where=~pl.col("is_deleted"))
    bodies = workspace.landed_bodies("handbook")
    return {
        uri.rpartition("/")[2]: bodies.read(etag).decode()
        for uri, etag in rows.select("uri", "etag").iter_rows()
    }


def test_a_topic_is_read_to_its_end_and_then_from_there(broker: Broker, project: Project) -> None:
    uri = broker.create("life", partitions=3)
    project.configure_source(uri=uri)
    broker.write("life", {f"k{number}": f"text {number}" for number in range(60)})
    found = read(project)
    assert (found.n_new, found.n_behind, found.problem) == (60, 0, "")
    assert documents(project)["k17"] == "text 17"
    broker.write("life", {"k1": None, "k2": "changed", "new": "text"})
    found = read(project)
    assert (found.n_new, found.n_changed, found.n_removed, found.n_objects) == (1, 1, 1, 60)
    assert sum(read_positions(project.workspace, "handbook").values()) == 63
    assert broker.committed("life", GROUP) == 63
    assert read(project).changed_shards == ()


def test_a_batch_is_no_larger_than_memory_allows(
    broker: Broker, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of many messages of one key wins, also over batches."""
    monkeypatch.setattr(kafka_topic, "BATCH_BYTES", 50)
    project.configure_source(uri=broker.create("large"))
    broker.write("large", [(f"k{number % 4}", f"state {number:03d}") for number in range(40)])
    found = read(project)
    assert (found.n_new, found.n_behind) == (4, 0)
    assert documents(project) == {f"k{number}": f"state {36 + number:03d}" for number in range(4)}
    assert found.n_changed >= 20


def test_offsets_that_were_set_back_are_read_again(broker: Broker, project: Project) -> None:
    """Kafka's own way to ask for a replay; it changes nothing that is as it was."""
    project.configure_source(uri=broker.create("replayed"))
    broker.write("replayed", [("a", "old"), ("a", "new"), ("b", "b"), ("b", None)])
    read(project)
    broker.set_back("replayed", GROUP)
    found = read(project)
    assert (found.n_new, found.n_changed, found.n_behind) == (0, 0, 0)
    assert documents(project) == {"a": "new"}
    assert broker.committed("replayed", GROUP) == 4


def test_records_become_documents_as_those_of_an_api_do(broker: Broker, project: Project) -> None:
    """What is no JSON object stays what it is; it is not lost."""
    project.configure_source(
        uri=broker.create("records"),
        records={"text": "text", "title": "name", "deleted": "gone"},
    )
    record = {"text": "words", "name": "A title"}
    broker.write("records", {"a": json.dumps(record), "b": "no JSON"})
    read(project)
    found = documents(project)
    envelope = read_envelope(found.pop("a").encode())
    assert (envelope.body, envelope.title) == ("words", "A title")
    assert found == {"b": "no JSON"}
    broker.write("records", {"a": json.dumps({**record, "gone": True})})
    assert read(project).n_removed == 1
    assert set(documents(project)) == {"b"}


def test_a_root_that_was_thrown_away_is_filled_again(broker: Broker, tmp_path: Path) -> None:
    """The position belongs to what was recorded, not to the group."""
    uri = broker.create("twice")
    broker.write("twice", {"a": "text"})
    for name in ("first", "second"):
        project = Project(tmp_path / name)
        project.configure_source(uri=uri)
        assert read(project).n_new == 1


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    broker: Broker, project: Project
) -> None:
    uri = broker.create("anew")
    project.configure_source(uri=uri, kafka={"bootstrap_servers": broker.address})
    broker.write("anew", {key: key for key in "abcdef"})
    read(project)
    with running_broker() as other:
        other.create("anew")
        other.write("anew", {"a": "of the new topic"})
        project.configure_source(kafka={"bootstrap_servers": other.address})
        found = read(project)
    assert "partition 0 ends before what was read of it" in found.problem
    assert (found.n_changed, found.n_removed, len(documents(project))) == (1, 0, 6)
    assert documents(project)["a"] == "of the new topic"


def test_status_and_doctor_say_how_far_behind_a_source_is(broker: Broker, project: Project) -> None:
    project.configure_source(uri=broker.create("lag"))
    read(project)
    broker.write("lag", {"a": "text", "b": "text"})
    assert read_status(project.workspace).sources["handbook"].messages_behind == 2
    checks = examine(project.workspace, None)
    check = next(check for check in checks if check.name == "source handbook")
    assert (check.outcome, check.value) == (
        "ok",
        f"{broker.uri('lag')}: 1 partitions, 2 messages, 2 of them not read yet",
    )
    read(project)
    assert read_status(project.workspace).sources["handbook"].messages_behind == 0


def test_patterns_choose_by_key_where_they_are_given(broker: Broker, project: Project) -> None:
    """A key that begins with a dot is no hidden file."""
    project.configure_source(uri=broker.create("chosen"))
    broker.write("chosen", {".a": "1", "b/c": "2", "d": "3"})
    assert read(project).n_new == 3
    project.configure_source("other", uri=broker.uri("chosen"), include=["b/*"])
    workspace = Workspace(project.config)
    other = workspace.source("other")
    assert isinstance(other, kafka_topic.KafkaTopic)
    assert read_stream(workspace, "other", other, now=NOW).n_new == 1


def test_a_message_that_is_too_large_is_a_dead_letter_of_its_own(
    broker: Broker, project: Project
) -> None:
    project.configure_source(uri=broker.create("huge"), fetch={"max_bytes": 10})
    broker.write("huge", {"a": "x" * 11})
    assert read(project).n_new == 1
    topic = project.workspace.source("handbook")
    (row,) = project.rows(SOURCE_OBJECTS).iter_rows(named=True)
    wanted = SourceObject(row["uri"], row["etag"], row["size_bytes"], row["modified_at"])
    with pytest.raises(OversizedDocumentError, match=r"more than fetch\.max_bytes 10 allows"):
        topic.fetch(wanted)


def kill(broker: Broker) -> None:
    """The broker is gone."""
    broker.stop()


def freeze(broker: Broker) -> None:
    """The broker takes connections and says nothing."""
    broker.pause()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("harm", [kill, freeze])
def test_a_broker_that_is_away_is_said_and_nothing_is_deleted(
    project: Project, harm: Callable[[Broker], None]
) -> None:
    with running_broker() as broker:
        project.configure_source(uri=broker.create("docs"))
        broker.write("docs", {"a": "text"})
        read(project)
        harm(broker)
        found = read(project)
        assert read_status(project.workspace).sources["handbook"].messages_behind is None
    assert f"{broker.uri('docs')}: cannot be read" in found.problem
    assert "look whether the brokers run" in found.problem
    assert (found.n_removed, found.n_behind, documents(project)) == (0, None, {"a": "text"})


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_dies_in_the_middle_loses_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded before stays, and the positions say how far it was."""
    monkeypatch.setattr(kafka_topic, "BATCH_MESSAGES", 5)
    with running_broker() as broker:
        project.configure_source(
            uri=broker.create("docs"),
            # So little is read ahead that the second batch has to be asked for.
            kafka={"options": {"queued.min.messages": 1, "fetch.message.max.bytes": 1_000}},
        )
        broker.write("docs", {f"k{number}": "x" * 900 for number in range(20)})
        original = kafka_topic.TopicReader.tell

        def tell(self: kafka_topic.TopicReader, positions: dict[str, int]) -> None:
            original(self, positions)
            broker.stop()

        monkeypatch.setattr(kafka_topic.TopicReader, "tell", tell)
        found = read(project)
    assert "cannot be read" in found.problem
    n_read = len(documents(project))
    assert 5 <= n_read < 20
    assert read_positions(project.workspace, "handbook") == {"0": n_read}


@pytest.mark.usefixtures("impatient")
def test_wrong_credentials_are_named_without_showing_them(project: Project) -> None:
    with running_broker(options=["--authentication"]) as broker:
        project.configure_source(
            uri=broker.uri("docs"), kafka={"username": "reader", "password": "hunter-2"}
        )
        found = read(project)
    assert "Kafka says _AUTHENTICATION. Mend username, password and mechanism" in found.problem
    assert "hunter-2" not in found.problem
    assert "hunter-2" not in repr(project.config)


def test_a_topic_that_is_not_there_is_named(broker: Broker, project: Project) -> None:
    project.configure_source(uri=broker.uri("misspelt"))
    found = read(project)
    assert found.problem.endswith(
        "/misspelt: Kafka says UNKNOWN_TOPIC_OR_PART. Mend the topic's name in the source's uri,"
        " or make the topic"
    )


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"no.such.property": 1}, "kafka.options.no.such.property"),
        ({"sasl.mechanism": "OAUTHBEARER", "security.protocol": "secret-value"}, "kafka.options"),
    ],
)
def test_a_wrong_property_is_named_without_its_value(
    broker: Broker, project: Project, options: dict[str, object], key: str
) -> None:
    project.configure_source(uri=broker.uri("docs"), kafka={"options": options})
    with pytest.raises(ConfigurationError, match=key) as caught:
        read(project)
    assert "secret-value" not in str(caught.value)


def test_settings_that_contradict_each_other_are_refused(project: Project) -> None:
    for kafka, said in (
        ({"username": "me"}, "one needs the other"),
        ({"ca_file": "ca.pem"}, "with tls: true only"),
        ({"options": {"group.id": "mine"}}, "group.id is set by ragassets itself"),
        ({"identity": "hash"}, "identity"),
    ):
        project.configure_source(uri="kafka://broker/docs", kafka=kafka)
        with pytest.raises(ConfigurationError, match=said):
            project.config  # noqa: B018
    project.configure_source(uri="kafka://broker", kafka={})
    with pytest.raises(ConfigurationError, match="write kafka://host:9092"):
        project.config  # noqa: B018


def test_a_source_error_stays_one(project: Project) -> None:
    """`ragassets doctor` shows it as a failed check with a way out."""
    project.configure_source(uri="kafka://127.0.0.1:1/docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_topic, "ANSWER_SECONDS", 0.5)
        with pytest.raises(SourceUnavailableError, match="cannot be read"):
            project.workspace.source("handbook").probe()
