"""What arrives in a bucket or a topic becomes searchable under `dagster dev` by itself."""

import random
import statistics
import time
from collections.abc import Iterator, Mapping

import pytest

from ragassets.core.asset_tables import CHUNKS, INDEXED_CHUNKS
from ragassets_tests.browser import wait_until
from ragassets_tests.dagster_project import Dagster, copy_instance_settings, dagster_dev
from ragassets_tests.kafka_broker import Broker, running_broker
from ragassets_tests.s3_server import BUCKET, S3Server, running_s3
from ragassets_tests.scenario import Project

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

WORDS = (
    *("apricot", "badger", "canoe", "dynamo", "ember", "falcon", "garnet", "harbour", "igloo"),
    *("jasmine", "kettle", "lantern", "meadow", "nutmeg", "orchid", "pebble", "quartz", "ribbon"),
    *("saddle", "thistle", "umbrella", "velvet", "walnut", "yarrow", "zephyr"),
)
N_OBJECTS = 50
N_CHANGED = 5
TOPIC = "tickets"
N_MESSAGES = 200
N_DELETED = 20
ARRIVAL_SECONDS = 420
"""On two busy cores a run costs ten seconds of imports, and there are about eight on the way."""


def text(number: int, subject: str = "notice") -> str:
    """A document that no other resembles, with a word that only it has."""
    words = random.Random(number).sample(WORDS, 20)
    return f"The {subject} numbered item{number:03d} speaks of {' and '.join(words)}."


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A bucket, for processes too."""
    patch = pytest.MonkeyPatch()
    with running_s3(patch) as server:
        yield server
    patch.undo()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker with one topic."""
    with running_broker() as running:
        running.create(TOPIC)
        yield running


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, s3: S3Server, broker: Broker) -> Project:
    """A watched bucket and a watched topic, both empty, that no run has seen."""
    project = Project(tmp_path_factory.mktemp("arrivals") / "project")
    watched = {"shards": 1, "sensor": {"interval_seconds": 5}, "max_delete_share": 0.5}
    project.configure_source(uri=f"s3://{BUCKET}/docs", **watched)
    project.configure_source("tickets", uri=broker.uri(TOPIC), **watched)
    copy_instance_settings(project.folder)
    return project


@pytest.fixture(scope="module")
def dagster(project: Project) -> Iterator[Dagster]:
    """The daemon and the UI."""
    with dagster_dev(project.folder) as running:
        yield running


def indexed(project: Project) -> dict[str, str]:
    """Object name to the indexed text, of every object."""
    chunks = project.rows(CHUNKS.outputs)
    points = project.rows(INDEXED_CHUNKS.outputs).select("chunk_id", "document_id")
    rows = chunks.join(points, on=["chunk_id", "document_id"], how="semi")
    return {uri.rpartition("/")[2]: text for uri, text in rows.select("uri", "text").iter_rows()}


def wait_for(project: Project, expected: Mapping[str, str], written: Mapping[str, float]) -> str:
    """Wait until exactly these objects are indexed with exactly these texts.

    Args:
        project: Where.
        expected: Name to text, of all objects.
        written: When those were written whose time counts, by their names.

    Returns:
        How long that took them, for a person.
    """
    seconds: dict[str, float] = {}

    def look() -> dict[str, str]:
        found, moment = indexed(project), time.monotonic()
        for name, began in written.items():
            if found.get(name) == expected[name]:
                seconds.setdefault(name, moment - began)
        return found

    what = "everything that was written to be searchable"
    wait_until(look, lambda found: found == expected, seconds=ARRIVAL_SECONDS, what=what)
    return f"median {statistics.median(seconds.values()):.0f} s, last {max(seconds.values()):.0f} s"


def comes_to_rest(dagster: Dagster) -> bool:
    """Whether nothing is started for several ticks of every sensor."""
    n_runs = len(dagster.runs())
    time.sleep(45)
    return len(dagster.runs()) == n_runs


def test_the_index_follows_its_sources(
    project: Project, s3: S3Server, broker: Broker, dagster: Dagster
) -> None:
    """Objects arrive and are overwritten, deleted and renamed; messages arrive, and tombstones."""
    objects = {f"{number:03d}.txt": text(number) for number in range(N_OBJECTS)}
    for name, content in objects.items():
        s3.put(f"docs/{name}", content)
    waited = wait_for(project, objects, dict.fromkeys(objects, time.monotonic()))
    print(f"\n{N_OBJECTS} objects searchable: {waited}")

    messages = {f"message-{number}": text(1000 + number) for number in range(N_MESSAGES)}
    broker.write(TOPIC, messages)
    waited = wait_for(project, objects | messages, dict.fromkeys(messages, time.monotonic()))
    print(f"{N_MESSAGES} messages searchable: {waited}")

    changed: dict[str, str] = {}
    for number in range(N_CHANGED):
        changed[f"{number:03d}.txt"] = text(number, "changed notice")
        s3.put(f"docs/{number:03d}.txt", changed[f"{number:03d}.txt"])
    for number in range(10, 10 + N_CHANGED):
        del objects[f"{number:03d}.txt"]
        s3.delete(f"docs/{number:03d}.txt")
    for number in range(20, 20 + N_CHANGED):
        changed[f"renamed-{number:03d}.txt"] = objects.pop(f"{number:03d}.txt")
        s3.put(f"docs/renamed-{number:03d}.txt", text(number))
        s3.delete(f"docs/{number:03d}.txt")
    deleted = [f"message-{number}" for number in range(0, N_MESSAGES, N_MESSAGES // N_DELETED)]
    broker.write(TOPIC, dict.fromkeys(deleted))
    left = {name: body for name, body in messages.items() if name not in deleted}
    assert len(left) == N_MESSAGES - N_DELETED
    written = dict.fromkeys(changed, time.monotonic())
    waited = wait_for(project, objects | changed | left, written)
    print(f"{len(changed)} objects overwritten or renamed: {waited}")

    assert not [run for run in dagster.runs() if run["status"] == "FAILURE"]
    wait_until(
        lambda: comes_to_rest(dagster),
        bool,
        seconds=ARRIVAL_SECONDS,
        what="an end of runs, since nothing changes any more",
    )
    assert project.holds_text("changed notice numbered item003")
    assert project.disagreements() == []
