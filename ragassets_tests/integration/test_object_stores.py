"""Documents in a bucket, from the first listing to search: changes, faults, and what must stay."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ragassets_tests.blob_servers import (
    AzureServer,
    GoogleServer,
    fresh_container,
    running_azurite,
    running_fake_gcs,
)
from ragassets_tests.s3_server import BUCKET, Fault, S3Server, running_s3
from ragassets_tests.scenario import Project, counts, fake_embedder

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DOCUMENTS = {
    "docs/garden.md": "# Garden\n\nTomatoes and basil grow behind the canteen.",
    "docs/parking.md": "# Parking\n\nVisitors park on the roof of building four.",
    "docs/sauna.txt": "The sauna in the basement is heated on Thursdays.",
    "docs/travel//trains.md": "# Trains\n\nFirst class is for journeys of three hours or more.",
    "docs/ümlaut & co.txt": "Letters with dots are welcome in the names of files.",
}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A bucket with five documents."""
    with running_s3(monkeypatch) as server:
        for key, text in DOCUMENTS.items():
            server.put(key, text)
        yield server


@pytest.fixture
def project(tmp_path: Path, s3: S3Server) -> Iterator[Project]:
    """A project whose source is the bucket, ingested once."""
    project = Project(tmp_path / "project")
    retry = {"attempts": 2, "first_wait_seconds": 0, "jitter_seconds": 0}
    project.configure_source(uri=f"s3://{BUCKET}/docs", shards=2, fetch={"retry": retry})
    with fake_embedder():
        project.ingest()
        yield project


def found(project: Project, words: str) -> str:
    """The URI of the best hit."""
    return project.found_uris(words, mode="sparse")[0]


def test_objects_become_searchable_and_an_unchanged_bucket_costs_one_listing(
    project: Project, s3: S3Server
) -> None:
    """No object is fetched twice."""
    assert found(project, "tomatoes basil") == f"s3://{BUCKET}/docs/garden.md"
    assert found(project, "trains class") == f"s3://{BUCKET}/docs/travel//trains.md"
    assert found(project, "dots letters") == f"s3://{BUCKET}/docs/%C3%BCmlaut%20%26%20co.txt"
    s3.requests.clear()
    report = project.ingest()
    assert counts(report, "raw_documents") == (0, 5, 0)
    assert len(s3.requests) == 1


def test_what_changes_in_the_bucket_changes_in_the_index(project: Project, s3: S3Server) -> None:
    """New, overwritten, deleted and renamed, in one run."""
    s3.put("docs/new.txt", "Ping-pong tables stand in the old library.")
    s3.put("docs/garden.md", "# Garden\n\nOnly pumpkins grow behind the canteen now.")
    s3.delete("docs/parking.md")
    s3.put("docs/wellness.txt", DOCUMENTS["docs/sauna.txt"])
    s3.delete("docs/sauna.txt")
    report = project.ingest()
    assert counts(report, "raw_documents") == (3, 2, 2)
    assert found(project, "ping-pong tables") == f"s3://{BUCKET}/docs/new.txt"
    assert found(project, "pumpkins") == f"s3://{BUCKET}/docs/garden.md"
    assert found(project, "sauna basement") == f"s3://{BUCKET}/docs/wellness.txt"
    assert not project.holds_text("Tomatoes")
    assert not project.holds_text("Visitors park")
    assert project.disagreements() == []


@pytest.mark.parametrize("status", [403, 503])
def test_a_bucket_that_cannot_be_listed_deletes_nothing(
    project: Project, s3: S3Server, status: int
) -> None:
    """An expired token or an outage is no empty bucket."""
    s3.faults.append(Fault("list-type=2", status=status))
    report = project.ingest()
    assert f"s3://{BUCKET}/docs" in report.problems[0]
    assert found(project, "tomatoes basil") == f"s3://{BUCKET}/docs/garden.md"
    assert project.disagreements() == []


def test_an_empty_answer_is_refused_by_the_guard(project: Project, s3: S3Server) -> None:
    """A bucket that was emptied by mistake looks the same."""
    for key in DOCUMENTS:
        s3.delete(key)
    report = project.ingest()
    assert "would remove 5 of 5 documents" in report.problems[0]
    assert found(project, "tomatoes basil") == f"s3://{BUCKET}/docs/garden.md"


def test_an_expired_token_while_objects_are_fetched_is_told_and_loses_nothing(
    project: Project, s3: S3Server
) -> None:
    """The listing went well, so without a word everything would look as if it were done."""
    s3.put("docs/garden.md", "# Garden\n\nOnly pumpkins grow behind the canteen now.")
    s3.put("docs/new.txt", "Ping-pong tables stand in the old library.")
    s3.faults.append(Fault("/docs/", status=400, code="ExpiredToken"))
    for _ in range(2):
        report = project.ingest()
        (problem,) = report.problems
        assert problem.startswith("source 'handbook' gives nothing now: 2 documents wait for it")
        assert "ExpiredToken. Renew the credentials in the environment" in problem
        documents = report.as_json()["documents"]
        assert isinstance(documents, dict)
        assert (documents["waiting"], documents["computed"], documents["dead_letters"]) == (2, 0, 0)
    assert project.holds_text("Tomatoes")
    s3.faults.clear()
    report = project.ingest()
    assert report.problems == ()
    assert counts(report, "raw_documents") == (2, 4, 0)
    assert project.holds_text("pumpkins")
    assert not project.holds_text("Tomatoes")
    assert project.disagreements() == []


def test_an_object_that_cannot_be_fetched_keeps_its_old_version(
    project: Project, s3: S3Server
) -> None:
    """The others go on, and the next run brings it."""
    s3.put("docs/garden.md", "# Garden\n\nOnly pumpkins grow behind the canteen now.")
    s3.put("docs/new.txt", "Ping-pong tables stand in the old library.")
    s3.faults.append(Fault("docs/garden.md", status=503))
    project.ingest()
    assert found(project, "ping-pong tables") == f"s3://{BUCKET}/docs/new.txt"
    assert project.holds_text("Tomatoes")
    s3.faults.clear()
    project.ingest()
    assert project.holds_text("pumpkins")
    assert not project.holds_text("Tomatoes")
    assert project.disagreements() == []


@pytest.mark.parametrize(
    ("server", "running"), [(AzureServer(), running_azurite), (GoogleServer(), running_fake_gcs)]
)
def test_a_container_of_azure_or_google_is_followed_through_changes_and_an_outage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: AzureServer | GoogleServer,
    running: Callable[[Path], AbstractContextManager[int]],
) -> None:
    """New, overwritten, deleted, then no answer at all."""
    with (
        running(tmp_path) as port,
        fresh_container(server, port, monkeypatch) as store,
        fake_embedder(),
    ):
        for key in ("docs/garden.md", "docs/parking.md", "docs/sauna.txt"):
            store.put(key, DOCUMENTS[key])
        project = Project(tmp_path / "project")
        retry = {"attempts": 1}
        base = f"{store.bucket_uri}/docs"
        project.configure_source(
            uri=base, shards=1, fetch={"retry": retry}, store={"endpoint": store.endpoint}
        )
        project.ingest()
        assert found(project, "tomatoes basil") == f"{base}/garden.md"
        store.put("docs/garden.md", "# Garden\n\nOnly pumpkins grow behind the canteen now.")
        store.put("docs/new & ü.txt", "Ping-pong tables stand in the old library.")
        store.delete("docs/parking.md")
        assert counts(project.ingest(), "raw_documents") == (2, 1, 1)
        assert found(project, "ping-pong tables") == f"{base}/new%20%26%20%C3%BC.txt"
        assert found(project, "pumpkins") == f"{base}/garden.md"
        assert not project.holds_text("Visitors park")
        store.faults.append(Fault(store.listing, status=503))
        assert base in project.ingest().problems[0]
        assert found(project, "pumpkins") == f"{base}/garden.md"
        assert project.disagreements() == []
