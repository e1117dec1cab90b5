"""What is forgotten is gone: from every table, version and file, and it does not come back."""

import io
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from dagster import DagsterInstance

from ragassets.core.asset_tables import FORGOTTEN_DOCUMENTS, UNIQUE_DOCUMENTS
from ragassets.core.fingerprints import content_hash, document_id
from ragassets.defs.forget import ForgetReport, forget_as_run, remember_as_run
from ragassets.defs.instance import open_instance
from ragassets.defs.resources import WorkspaceResource
from ragassets.queries.forgotten import find_kin, find_meant
from ragassets.queries.status import read_status
from ragassets.queries.why import explain_document
from ragassets.stages.source_objects import discover
from ragassets_tests.qdrant_loopback import loopback_qdrant
from ragassets_tests.scenario import (
    CLEAN,
    MIXED,
    Executioner,
    Project,
    fake_embedder,
    watched_effects,
)
from ragassets_tests.stage_runs import NOW

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

SECRET = "secret.md"
MARKER = "zeppelinmarker"
FIRST = f"# The {MARKER} plan\n\nWhoever reads about the {MARKER} plan of autumn keeps it silent.\n"
SECOND = FIRST.replace("autumn", "winter")


@pytest.fixture(autouse=True)
def fakes() -> Iterator[None]:
    with fake_embedder():
        yield


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two versions, one of them not served; the secret was edited once."""
    project = Project(tmp_path_factory.mktemp("forget") / "project", {**MIXED, SECRET: FIRST})
    project.configure_source(shards=2)
    version = {"chunking": "recursive-256", "embedding_model": "minilm"}
    project.configure(index_versions={"v1": version, "v2": {**version, "sparse": None}})
    with fake_embedder(), open_instance(project.folder) as instance:
        project.ingest(instance=instance)
        project.write(SECRET, SECOND)
        project.ingest(instance=instance)
    project.save()
    return project


def _forget(project: Project, *names: str, instance: DagsterInstance | None = None) -> ForgetReport:
    documents = [
        named
        for name in names
        for named in find_meant(project.workspace, str(project.path(name))).documents
    ]
    with instance or open_instance(project.folder) as opened:
        return forget_as_run(
            WorkspaceResource(project.config),
            opened,
            documents,
            uris=[project.uri(name) for name in names],
            actor="somebody",
            reason="they asked",
            progress=lambda _stage, _done, _total: None,
        )


def _places(folder: Path, *needles: str) -> list[str]:
    """Files below a folder that hold one of the texts, also inside of Parquet."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if content[:4] == b"PAR1":
            frame = pl.read_parquet(io.BytesIO(content))
            content += repr(frame.to_dicts()).encode()
        if any(needle.encode() in content for needle in needles):
            found.append(str(path.relative_to(folder)))
    return found


def test_nothing_is_left_of_it_in_any_file(ingested: Project) -> None:
    """Earlier bytes, history of tables, catalog, vector store and the previews of Dagster too."""
    project = ingested.restore()
    state = project.folder / ".ragassets"
    before = _places(state, MARKER)
    for part in ("landing/", "tables/chunks/", "tables/parsed_documents/", "qdrant/", "dagster/"):
        assert any(name.startswith(part) for name in before), part
    assert _places(state / "tables", SECRET)

    report = _forget(project, SECRET)

    assert report.proof.left == ()
    assert report.proof.n_searches >= 3
    assert report.removed.n_points == 2
    assert report.removed.n_vectors >= 1
    assert report.n_events > 0
    assert report.notes == ()
    assert _places(state, MARKER) == []
    assert _places(state, SECRET) == []
    assert project.audit() == []
    assert project.disagreements() == []


def test_only_a_tombstone_with_its_hash_is_kept(ingested: Project) -> None:
    project = ingested.restore()
    _forget(project, SECRET)
    (stone,) = project.rows(FORGOTTEN_DOCUMENTS).iter_rows(named=True)
    assert stone["document_id"] == document_id("handbook", project.uri(SECRET))
    assert stone["content_hash"] in {content_hash(text.encode()) for text in (FIRST, SECOND)}
    assert (stone["actor"], stone["reason"]) == ("somebody", "they asked")


def test_it_is_refused_while_the_source_has_it_until_that_is_undone(ingested: Project) -> None:
    project = ingested.restore()
    _forget(project, SECRET)
    project.write(SECRET, SECOND.replace("winter", "spring"))
    report = project.ingest()
    assert report.problems == ()
    assert not project.holds_text(MARKER)
    assert project.audit() == []
    explained = explain_document(project.workspace, str(project.path(SECRET)))
    assert explained.forgotten
    assert explained.verdict.startswith("forgotten by somebody at ")
    assert read_status(project.workspace).sources["handbook"].forgotten == 1

    meant = find_meant(project.workspace, str(project.path(SECRET)))
    assert meant.is_forgotten
    with DagsterInstance.ephemeral() as instance:
        remember_as_run(
            WorkspaceResource(project.config), instance, meant.documents, actor="me", reason=""
        )
    project.ingest()
    assert project.holds_text(MARKER)
    assert not explain_document(project.workspace, str(project.path(SECRET))).forgotten


def test_a_document_that_is_gone_from_the_source_can_be_forgotten(ingested: Project) -> None:
    """Its earlier states are in the history of the tables still."""
    project = ingested.restore()
    project.path(SECRET).unlink()
    project.ingest()
    assert not project.holds_text(MARKER)
    assert _places(project.folder / ".ragassets", MARKER)
    report = _forget(project, SECRET)
    assert report.is_gone
    assert _places(project.folder / ".ragassets", MARKER) == []


def test_a_duplicate_takes_its_place_and_shared_bytes_stay(ingested: Project) -> None:
    """Identical bytes under another name are another document, and the output says so."""
    project = ingested.restore()
    copy, original = "copies/vacation-copy.md", "vacation.md"
    decided = project.rows(UNIQUE_DOCUMENTS.outputs, pl.col("duplicate_of").is_not_null())
    waiting = copy if project.uri(copy) in decided["uri"].to_list() else original
    survivor = original if waiting == copy else copy
    meant = find_meant(project.workspace, str(project.path(survivor)))
    kin = find_kin(project.workspace, meant.documents)
    assert kin.same_bytes == kin.next_in_line == (project.uri(waiting),)

    report = _forget(project, survivor)

    assert report.is_gone
    (note,) = report.notes
    assert note.startswith("1 objects of the landing zone stay")
    assert project.found_uris("paid vacation", mode="sparse")[0] == project.uri(waiting)
    assert project.audit() == []


def test_several_documents_are_forgotten_at_once(ingested: Project) -> None:
    project = ingested.restore()
    report = _forget(project, SECRET, "kitchen.txt", "broken.pdf")
    assert report.is_gone
    assert _places(project.folder / ".ragassets", MARKER, "oat milk", "broken.pdf") == []
    assert project.audit() == []


class Killed(BaseException):
    """Stands in for SIGKILL."""


def _die() -> None:
    raise Killed


def test_a_removal_that_is_killed_is_finished_by_the_next_one(ingested: Project) -> None:
    project = ingested.restore()
    executioner = Executioner()
    with watched_effects(executioner):
        _forget(project, SECRET)
    expected = project.content()
    moments = executioner.moments
    first = moments.index("before replace source_objects")
    chosen = [*random.Random(20261122).sample(range(first), 4), first, first + 1, len(moments) - 2]
    for moment in sorted(set(chosen)):
        project = ingested.restore()
        with watched_effects(Executioner(moment, _die)), suppress(Killed):
            _forget(project, SECRET)
        report = _forget(project, SECRET)
        assert report.is_gone, moments[moment]
        assert _places(project.folder / ".ragassets", MARKER) == [], moments[moment]
        assert expected.differences(project.content()) == [], moments[moment]
        assert project.audit() == [], moments[moment]


def test_a_listing_after_a_kill_lets_it_go(ingested: Project) -> None:
    """With the tombstone alone, the next ingestion already stops serving it."""
    project = ingested.restore()
    executioner = Executioner(1, _die)  # right after the tombstone
    with watched_effects(executioner), suppress(Killed):
        _forget(project, SECRET)
    assert executioner.moments[:2] == [
        f"{moment} replace _forgotten_documents" for moment in ("before", "after")
    ]
    assert project.holds_text(MARKER)
    project.ingest()
    assert not project.holds_text(MARKER)
    assert project.audit() == []


def test_a_listing_never_counts_it_as_lost(tmp_path: Path) -> None:
    """A source of few documents would refuse its listing as a mass deletion."""
    project = Project(tmp_path / "project", {"a.txt": CLEAN["kitchen.txt"], SECRET: FIRST})
    workspace = project.workspace
    discover(workspace, ["handbook"], now=NOW)
    _forget(project, SECRET, instance=DagsterInstance.ephemeral())
    (found,) = discover(workspace, ["handbook"], now=NOW)
    assert (found.n_objects, found.n_removed, found.problem) == (1, 0, "")


def test_points_on_a_server_are_gone_and_the_report_says_what_the_server_keeps(
    tmp_path: Path,
) -> None:
    with loopback_qdrant(tmp_path / "server") as server:
        project = Project(tmp_path / "project", {**CLEAN, SECRET: FIRST})
        project.configure(vector_store=server.url, qdrant={"grpc_port": server.grpc_port})
        project.ingest()
        report = _forget(project, SECRET)
        assert report.is_gone
        assert any("vector store's own files" in note for note in report.notes)
        assert not project.holds_text(MARKER)
        assert project.audit() == []
        assert _places(project.folder / ".ragassets", MARKER) == []
