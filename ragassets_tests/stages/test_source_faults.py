"""What a source does wrong while it is read: nothing is lost, nothing is deleted.

Against an S3 server on loopback. `adapters/test_s3_bucket.py` looks at the adapter alone,
`integration/test_object_stores.py` at what becomes of searches.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import RunContext, StageReport
from ragassets.stages.parsed_documents import update_parsed_documents
from ragassets.stages.raw_documents import update_raw_documents
from ragassets.stages.source_objects import SourceDiscovery, discover
from ragassets_tests.s3_server import BUCKET, Fault, S3Server, running_s3
from ragassets_tests.scenario import Project

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CONTEXT = RunContext("run", lambda: NOW)
NAMES = ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt")

OBJECTS = "docs/"
"""Requests for objects; listings have the prefix in their query, with the slash encoded."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A bucket with five documents."""
    with running_s3(monkeypatch) as server:
        for name in NAMES:
            server.put(f"docs/{name}", f"The first text of {name}.")
        yield server


@pytest.fixture
def project(tmp_path: Path, s3: S3Server) -> Project:
    """A project that has not seen the bucket, and tries each object twice."""
    made = Project(tmp_path / "project")
    retry = {"attempts": 2, "first_wait_seconds": 0, "jitter_seconds": 0}
    made.configure_source(
        uri=f"s3://{BUCKET}/docs", shards=1, fetch={"retry": retry, "timeout_seconds": 2}
    )
    return made


def look(project: Project) -> SourceDiscovery:
    """List, as a run of its own."""
    return discover(Workspace(project.config), ["handbook"], now=NOW)[0]


def fetch(project: Project) -> StageReport:
    """Fetch, as a run of its own."""
    workspace = Workspace(project.config)
    return update_raw_documents(workspace, ["handbook-000"], CONTEXT)["handbook-000"]


def rows(project: Project) -> pl.DataFrame:
    """The rows of the stage."""
    return project.rows(RAW_DOCUMENTS.outputs)


def attempts(project: Project) -> dict[str, int]:
    """Attempts of what stands as failed, by file name."""
    failed = rows(project).filter(pl.col("failed_input_hash").is_not_null())
    return {str(uri).rpartition("/")[2]: n for uri, n in failed[["uri", "attempts"]].iter_rows()}


def cut(data: bytes) -> bytes:
    """The first half."""
    return data[: len(data) // 2]


OUTAGES = {
    "slow down": Fault(OBJECTS, status=503, code="SlowDown"),
    "expired token": Fault(OBJECTS, status=400, code="ExpiredToken"),
    "denied": Fault(OBJECTS, status=403, code="AccessDenied"),
    "reset": Fault(OBJECTS, is_reset=True),
    "truncated": Fault(OBJECTS, spoil=cut),
}


def fresh(fault: Fault) -> Fault:
    """A copy: faults count down."""
    return Fault(fault.path, fault.method, fault.status, fault.code, fault.is_reset, fault.spoil)


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_source_that_gives_nothing_is_nobodys_attempt(
    project: Project, s3: S3Server, outage: str
) -> None:
    """Else a night's outage parks documents that nobody ever looked at."""
    look(project)
    fetch(project)
    for name in NAMES[:3]:
        s3.put(f"docs/{name}", f"The second text of {name}.")
    look(project)
    s3.faults.append(fresh(OUTAGES[outage]))
    for _ in range(2):
        report = fetch(project)
        assert (report.n_newly_failed, report.n_failed, report.n_removed) == (3, 3, 0)
    assert attempts(project) == {"a.txt": 0, "b.txt": 0, "c.txt": 0}
    assert rows(project)["content_hash"].null_count() == 0
    s3.faults.clear()
    report = fetch(project)
    assert (report.n_computed, report.n_failed) == (3, 0)


def test_an_outage_before_the_first_document_parks_none(project: Project, s3: S3Server) -> None:
    """There is no earlier object to ask for, so none is to blame."""
    look(project)
    s3.faults.append(fresh(OUTAGES["expired token"]))
    for _ in range(MAX_TRANSIENT_ATTEMPTS + 1):
        assert fetch(project).n_newly_failed == len(NAMES)
    assert set(attempts(project).values()) == {0}
    said = rows(project)["error_message"][0]
    assert "ExpiredToken" in said
    assert "Renew the credentials" in said
    s3.faults.clear()
    assert fetch(project).n_computed == len(NAMES)


def test_an_object_that_fails_while_others_do_not_is_parked(project: Project, s3: S3Server) -> None:
    """It is not asked for every few minutes for ever, and stops nobody."""
    look(project)
    s3.faults.append(Fault("docs/b.txt", status=500, code="InternalError"))
    failed = [fetch(project).n_newly_failed for _ in range(MAX_TRANSIENT_ATTEMPTS + 2)]
    assert failed == [1, 1, 1, 1, 1, 0, 0]
    assert attempts(project) == {"b.txt": MAX_TRANSIENT_ATTEMPTS}
    assert rows(project)["content_hash"].null_count() == 1


def test_an_archived_witness_does_not_speak_for_the_source(project: Project, s3: S3Server) -> None:
    """The smallest object may have gone to the archive; the others still say that all is well."""
    s3.put("docs/a.txt", "Short.")
    look(project)
    fetch(project)
    s3.put("docs/e.txt", "The second text of e.txt.")
    look(project)
    s3.faults.append(Fault("docs/a.txt", status=403, code="InvalidObjectState"))
    s3.faults.append(Fault("docs/e.txt", status=500, code="InternalError"))
    fetch(project)
    assert attempts(project) == {"e.txt": 1}


LISTING_FAULTS = {
    "slow down": (Fault("list-type=2", status=503, code="SlowDown"), "SlowDown"),
    "expired token": (
        Fault("list-type=2", status=400, code="ExpiredToken"),
        "ExpiredToken. Renew the credentials in the environment",
    ),
    "clock skew": (
        Fault("list-type=2", status=403, code="RequestTimeTooSkewed"),
        "RequestTimeTooSkewed. Set this machine's clock",
    ),
    "reset": (Fault("list-type=2", is_reset=True), "cannot be read"),
    "half of an answer": (Fault("list-type=2", spoil=cut), "the service says 500"),
    "no answer": (Fault("list-type=2", spoil=lambda _: b""), "cannot be read"),
}


@pytest.mark.parametrize("fault", LISTING_FAULTS)
def test_a_listing_that_fails_changes_nothing_and_says_why(
    project: Project, s3: S3Server, fault: str
) -> None:
    """Not even one object is taken for deleted, and the next listing goes on as ever."""
    look(project)
    spoilt, message = LISTING_FAULTS[fault]
    s3.faults.append(fresh(spoilt))
    s3.delete("docs/e.txt")
    found = look(project)
    assert (found.n_new, found.n_changed, found.n_removed) == (0, 0, 0)
    assert message in found.problem
    assert f"s3://{BUCKET}/docs" in found.problem
    assert not project.rows(SOURCE_OBJECTS)["is_deleted"].any()
    s3.faults.clear()
    assert look(project).n_removed == 1


def test_half_a_listing_that_calls_itself_whole_is_refused(project: Project, s3: S3Server) -> None:
    """A gateway that drops keys looks like a mass deletion, and is treated as one."""

    def half(data: bytes) -> bytes:
        parts = data.split(b"<Contents>")
        tail = parts[-1].split(b"</Contents>")[-1]
        kept = b"<Contents>".join(parts[:3])
        body = kept + tail
        return body + b" " * (len(data) - len(body))

    look(project)
    s3.faults.append(Fault("list-type=2", spoil=half))
    found = look(project)
    assert "would remove 3 of 5 documents" in found.problem
    assert not project.rows(SOURCE_OBJECTS)["is_deleted"].any()
    s3.faults.clear()
    assert look(project).problem == ""


@pytest.mark.parametrize("year", [b"1999", b"2999"])
def test_a_store_whose_clock_is_wrong_costs_nothing(
    project: Project, s3: S3Server, year: bytes
) -> None:
    """What changed is told by ETags, and what is gone by keys; no time is compared with ours."""
    look(project)
    fetch(project)

    def skewed(data: bytes) -> bytes:
        before, *entries = data.split(b"<LastModified>")
        return before + b"".join(b"<LastModified>" + year + entry[4:] for entry in entries)

    s3.faults.append(Fault("list-type=2", spoil=skewed))
    found = look(project)
    assert (found.n_new, found.n_changed, found.n_removed) == (0, 0, 0)
    s3.put("docs/a.txt", "The second text of a.txt.")
    s3.delete("docs/b.txt")
    found = look(project)
    assert (found.n_new, found.n_changed, found.n_removed) == (0, 1, 1)
    report = fetch(project)
    assert (report.n_computed, report.n_reused, report.n_removed) == (1, 3, 1)


def test_lost_bytes_of_an_overwritten_object_come_from_its_version(
    project: Project, s3: S3Server
) -> None:
    """A versioned bucket still has what the landing zone lost, though the listing has moved on."""
    s3.client().put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put("docs/a.txt", "A text with a version.")
    look(project)
    fetch(project)
    row = rows(project).filter(pl.col("uri").str.ends_with("a.txt")).row(0, named=True)
    assert row["version_id"]
    assert row["source_version"] == row["version_id"]
    others = rows(project).filter(~pl.col("uri").str.ends_with("a.txt"))
    assert others["version_id"].null_count() == 4
    assert not others["source_version"].str.contains('"').any()
    workspace = Workspace(project.config)
    workspace.landing_zone.delete(row["content_hash"])
    update_parsed_documents(workspace, ["handbook-000"], CONTEXT)
    s3.put("docs/a.txt", "A newer text.")
    fetch(project)
    assert workspace.landing_zone.get(row["content_hash"]) == b"A text with a version."
