"""Objects that arrive in a bucket become searchable under `dagster dev` without anybody's doing."""

import random
import time
from collections.abc import Iterator

import pytest

from ragassets.core.asset_tables import CHUNKS, INDEXED_CHUNKS
from ragassets_tests.browser import wait_until
from ragassets_tests.dagster_project import Dagster, copy_instance_settings, dagster_dev
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
def project(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Project:
    """A watched bucket, empty but for one object, that no run has seen."""
    project = Project(tmp_path_factory.mktemp("arrivals") / "project")
    project.configure_source(
        uri=f"s3://{BUCKET}/docs",
        shards=1,
        sensor={"interval_seconds": 5},
        max_delete_share=0.5,
    )
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


def wait_for(project: Project, expected: dict[str, str]) -> float:
    """Seconds until exactly these objects are indexed with exactly these texts."""
    started = time.monotonic()
    wait_until(
        lambda: indexed(project) == expected,
        bool,
        seconds=ARRIVAL_SECONDS,
        what="the bucket to be searchable",
    )
    return time.monotonic() - started


def comes_to_rest(dagster: Dagster) -> bool:
    """Whether nothing is started for several ticks of every sensor."""
    n_runs = len(dagster.runs())
    time.sleep(45)
    return len(dagster.runs()) == n_runs


def test_the_index_follows_the_bucket(project: Project, s3: S3Server, dagster: Dagster) -> None:
    """Fifty objects arrive; five are overwritten, five deleted and five renamed."""
    expected = {f"{number:03d}.txt": text(number) for number in range(N_OBJECTS)}
    for name, content in expected.items():
        s3.put(f"docs/{name}", content)
    seconds = wait_for(project, expected)
    print(f"\n{N_OBJECTS} objects searchable after {seconds:.0f} s")

    for number in range(N_CHANGED):
        expected[f"{number:03d}.txt"] = text(number, "changed notice")
        s3.put(f"docs/{number:03d}.txt", expected[f"{number:03d}.txt"])
    for number in range(10, 10 + N_CHANGED):
        del expected[f"{number:03d}.txt"]
        s3.delete(f"docs/{number:03d}.txt")
    for number in range(20, 20 + N_CHANGED):
        expected[f"renamed-{number:03d}.txt"] = expected.pop(f"{number:03d}.txt")
        s3.put(f"docs/renamed-{number:03d}.txt", text(number))
        s3.delete(f"docs/{number:03d}.txt")
    seconds = wait_for(project, expected)
    print(f"5 overwritten, 5 deleted and 5 renamed after {seconds:.0f} s")
    assert not [run for run in dagster.runs() if run["status"] == "FAILURE"]
    wait_until(
        lambda: comes_to_rest(dagster),
        bool,
        seconds=ARRIVAL_SECONDS,
        what="an end of runs, since nothing changes any more",
    )
    assert project.holds_text("changed notice numbered item003")
