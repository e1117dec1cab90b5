"""From a source to elements: what is lost on the way, or missing, comes back by itself."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import PARSED_DOCUMENTS, RAW_DOCUMENTS
from ragassets.core.stages import RunContext, StageReport
from ragassets.core.tables import PinnedTables
from ragassets.errors import ConcurrentWriteError, MissingModelError
from ragassets.stages import parsed_documents
from ragassets.stages.parsed_documents import update_parsed_documents
from ragassets.stages.raw_documents import update_raw_documents
from ragassets.stages.source_objects import discover
from ragassets_tests.scenario import Project

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SHARDS = ["handbook-000"]
CONTEXT = RunContext("run", lambda: NOW)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two documents that no run has seen."""
    project = Project(tmp_path / "project", {"a.txt": "One sentence.", "b.txt": "Another one."})
    project.configure_source(shards=1)
    return project


def ingest(project: Project) -> tuple[StageReport, StageReport]:
    """List, fetch and parse; the reports of the last two."""
    workspace = Workspace(project.config)
    discover(workspace, ["handbook"], now=NOW)
    (raw,) = update_raw_documents(workspace, SHARDS, CONTEXT).values()
    (parsed,) = update_parsed_documents(workspace, SHARDS, CONTEXT).values()
    return raw, parsed


def state(project: Project, name: str) -> dict[str, object]:
    """The parsed row of a document."""
    rows = project.rows(PARSED_DOCUMENTS.outputs, pl.col("uri") == project.uri(name))
    return rows.row(0, named=True)


def landed(project: Project, name: str) -> Path:
    """Where a document's bytes lie."""
    rows = project.rows(RAW_DOCUMENTS.outputs, pl.col("uri") == project.uri(name))
    name = str(rows["content_hash"][0])
    return project.folder / ".ragassets" / "landing" / name[:2] / name


@pytest.mark.parametrize("damaged", [None, b"ONE SENTENCE."], ids=["missing", "corrupt"])
def test_lost_bytes_cost_one_run_of_one_document(
    project: Project, monkeypatch: pytest.MonkeyPatch, damaged: bytes | None
) -> None:
    """One damaged object must not stop the others, and the source still has the bytes."""
    ingest(project)
    file = landed(project, "a.txt")
    file.unlink() if damaged is None else file.write_bytes(damaged)
    monkeypatch.setattr(parsed_documents, "parsing_fingerprint", lambda _parsers: "newer")
    raw, parsed = ingest(project)
    assert (parsed.n_computed, parsed.n_newly_failed) == (1, 1)
    kept = state(project, "a.txt")
    assert (kept["error_reason"], kept["is_transient"]) == ("missing_raw_bytes", True)
    assert kept["text"] == "One sentence."
    assert "next run fetches it" in str(kept["error_message"])
    raw, parsed = ingest(project)
    assert file.read_bytes() == b"One sentence."
    assert (raw.n_reused, parsed.n_computed, parsed.n_failed) == (2, 1, 0)
    raw, parsed = ingest(project)
    assert (raw.n_reused, parsed.n_reused) == (2, 2)


def test_bytes_that_come_back_late_are_parsed_though_the_failure_was_parked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that was away for more runs than a failure is tried in must not strand it."""
    ingest(project)
    file, source = landed(project, "a.txt"), project.path("a.txt")
    file.unlink()
    source.rename(source.with_suffix(".away"))
    source.symlink_to(source.parent / "unmounted")
    project.configure_source(shards=1, include=["*.txt"])
    monkeypatch.setattr(parsed_documents, "parsing_fingerprint", lambda _parsers: "newer")
    reports = [ingest(project)[1] for _ in range(7)]
    assert [report.n_newly_failed for report in reports] == [1, 1, 1, 1, 1, 0, 0]
    assert state(project, "a.txt")["text"] == "One sentence."
    source.unlink()
    source.with_suffix(".away").rename(source)
    assert ingest(project)[1].n_failed == 0


def test_an_installed_converter_is_noticed(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Documents that waited for it are tried again, and no others; while it is missing, none."""
    project.write("old.doc", OLE)
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    ingest(project)
    assert state(project, "old.doc")["error_reason"] == "missing_converter"
    assert ingest(project)[1].n_reused == 3
    (programs / "soffice").write_text("#!/bin/sh\nexit 1\n")
    (programs / "soffice").chmod(0o755)
    report = ingest(project)[1]
    assert (report.n_reused, report.n_newly_failed) == (2, 1)
    assert state(project, "old.doc")["error_reason"] == "corrupt"
    assert ingest(project)[1].n_reused == 3


def test_a_missing_model_ends_the_run_and_condemns_no_document(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter for good would take the document out of the index."""

    def lacking(*_arguments: object, **_options: object) -> None:
        raise MissingModelError(model="spacy", detail="not installed")

    ingest(project)
    project.write("a.txt", "One longer sentence.")
    monkeypatch.setattr("ragassets.adapters.parsers.plain_text.PlainTextParser.parse", lacking)
    with pytest.raises(MissingModelError):
        ingest(project)
    assert state(project, "a.txt")["status"] == "ok"


@pytest.mark.parametrize(
    ("spec", "update", "reader"),
    [
        (RAW_DOCUMENTS.outputs, update_raw_documents, "source_objects"),
        (PARSED_DOCUMENTS.outputs, update_parsed_documents, "raw_documents"),
    ],
    ids=["raw", "parsed"],
)
def test_a_writer_with_old_inputs_loses(
    project: Project, monkeypatch: pytest.MonkeyPatch, spec, update, reader
) -> None:
    """It would take back what a newer run made, without anybody noticing."""
    ingest(project)
    workspace = Workspace(project.config)
    read, rivals = PinnedTables.read, []

    def read_and_be_overtaken(self: PinnedTables, table, *arguments, **options):
        frame = read(self, table, *arguments, **options)
        if table.name == reader and not rivals:
            rivals.append(True)
            project.write("a.txt", "A newer sentence.")
            ingest(project)
        return frame

    project.write("b.txt", "Another longer one.")
    discover(workspace, ["handbook"], now=NOW)
    if update is update_parsed_documents:
        update_raw_documents(workspace, SHARDS, CONTEXT)
    monkeypatch.setattr(PinnedTables, "read", read_and_be_overtaken)
    with pytest.raises(ConcurrentWriteError):
        update(workspace, SHARDS, CONTEXT)
    assert rivals
    assert project.rows(spec).height == 2
    assert state(project, "a.txt")["text"] == "A newer sentence."
