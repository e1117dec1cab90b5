"""Whatever is damaged, a repair finds it, mends it by the ordinary stages, and ends clean."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from dagster import DagsterInstance
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ragassets.core.asset_tables import (
    CHUNKS,
    CLEAN_DOCUMENTS,
    DOCUMENT_SIGNATURES,
    EMBEDDINGS,
    INDEXED_CHUNKS,
    PARSED_DOCUMENTS,
    RAW_DOCUMENTS,
    UNIQUE_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.defs.repair import RepairReport, audit_as_run
from ragassets.defs.resources import WorkspaceResource
from ragassets.queries.audit import run_audit
from ragassets_tests import damage
from ragassets_tests.damage import Damage
from ragassets_tests.qdrant_loopback import loopback_qdrant
from ragassets_tests.scenario import MIXED, Executioner, Project, fake_embedder, watched_effects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

FOUND_BY: dict[str, tuple[Damage, str]] = {
    "lost points": (damage.lost_points, "missing_points"),
    "foreign points": (damage.foreign_points, "orphan_points"),
    "changed points": (damage.changed_points, "stale_points"),
    "changed vectors": (damage.changed_vectors, "wrong_vectors"),
    "unsound vectors": (damage.unsound_vectors, "unsound_vectors"),
    "altered chunks": (damage.altered_chunks, "altered_chunks"),
    "lost catalog rows": (damage.lost_catalog_rows, "missing_catalog_rows"),
    "foreign catalog rows": (damage.foreign_catalog_rows, "orphan_catalog_rows"),
    "wrong catalog rows": (damage.wrong_catalog_rows, "wrong_catalog_rows"),
    "lost bytes": (damage.lost_bytes, "missing_raw_bytes"),
    "damaged bytes": (damage.damaged_bytes, "damaged_raw_bytes"),
    "unused bytes": (damage.unused_bytes, "unused_raw_bytes"),
    "leftover intents": (damage.leftover_intents, "leftover_intents"),
    "lost dead letters": (damage.lost_dead_letters, "missing_dead_letters"),
    "lost raw documents": (damage.lost_rows(RAW_DOCUMENTS), "missing_documents"),
    "lost parsed documents": (damage.lost_rows(PARSED_DOCUMENTS), "missing_documents"),
    "lost valid documents": (damage.lost_rows(VALID_DOCUMENTS), "missing_documents"),
    "lost clean documents": (damage.lost_rows(CLEAN_DOCUMENTS), "missing_documents"),
    "lost signatures": (damage.lost_rows(DOCUMENT_SIGNATURES), "missing_documents"),
    "lost duplicate decisions": (damage.lost_rows(UNIQUE_DOCUMENTS), "missing_documents"),
    "lost chunks": (damage.lost_rows(CHUNKS), "orphan_embeddings"),
    "lost embeddings": (damage.lost_rows(EMBEDDINGS), "missing_embeddings"),
    "lost indexed chunks": (damage.lost_rows(INDEXED_CHUNKS), "missing_indexed_chunks"),
}
"""Every kind of damage, and the finding that must name it."""


def _repair(project: Project, instance: DagsterInstance | None = None) -> RepairReport:
    with instance or DagsterInstance.ephemeral() as opened:
        return audit_as_run(
            WorkspaceResource(project.config),
            opened,
            repairs=True,
            progress=lambda _stage, _done, _total: None,
        )


def _check_mended(project: Project, report: RepairReport, before: object) -> None:
    assert project.audit() == []
    assert report.after.is_clean, report.unmended
    assert project.disagreements() == []
    assert before.differences(project.content()) == []  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def fakes() -> Iterator[None]:
    with fake_embedder():
        yield


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The mixed corpus on the embedded engine."""
    project = Project(tmp_path_factory.mktemp("repair") / "project", MIXED)
    project.configure_source(shards=2)
    with fake_embedder():
        project.ingest()
    project.save()
    return project


GROUPS: tuple[tuple[str, ...], ...] = (
    ("lost points", "foreign points", "changed points", "leftover intents"),
    ("changed vectors", "unsound vectors", "altered chunks", "lost embeddings"),
    ("lost catalog rows", "foreign catalog rows", "wrong catalog rows", "lost dead letters"),
    ("lost bytes", "damaged bytes", "unused bytes", "lost chunks"),
    ("lost raw documents", "lost indexed chunks"),
    ("lost parsed documents", "lost signatures"),
    ("lost valid documents", "lost duplicate decisions"),
    ("lost clean documents",),
)
"""Damages that do not hide each other; a repair takes seconds, so several are mended at once."""


def test_every_kind_of_damage_is_in_a_group() -> None:
    assert sorted(kind for group in GROUPS for kind in group) == sorted(FOUND_BY)


@pytest.mark.parametrize("kinds", GROUPS, ids="; ".join)
def test_damages_are_found_and_mended(ingested: Project, kinds: tuple[str, ...]) -> None:
    project = ingested.restore()
    before = project.content()
    for kind in kinds:
        FOUND_BY[kind][0](project, random.Random(kind))
    found = {entry.name for entry in run_audit(project.workspace).findings if entry.count}
    wanted = {FOUND_BY[kind][1] for kind in kinds}
    assert wanted <= found
    report = _repair(project)
    assert wanted <= report.repaired.keys()
    _check_mended(project, report, before)


def test_damages_to_a_collection_on_a_server_are_found_and_mended(tmp_path: Path) -> None:
    """What is done to a collection; the tables are the same whatever the store."""
    with loopback_qdrant(tmp_path / "server") as server:
        project = Project(tmp_path / "project", MIXED)
        project.configure(vector_store=server.url, qdrant={"grpc_port": server.grpc_port})
        project.ingest()
        before = project.content()
        kinds = ("lost points", "foreign points", "changed points", "changed vectors")
        for kind in kinds:
            FOUND_BY[kind][0](project, random.Random(kind))
        report = _repair(project)
        assert {FOUND_BY[kind][1] for kind in kinds} <= report.repaired.keys()
        _check_mended(project, report, before)


@settings(
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # An example takes seconds: shrinking one would take an hour.
    phases=[Phase.explicit, Phase.generate],
)
@given(
    kinds=st.lists(st.sampled_from(sorted(FOUND_BY)), min_size=2, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_any_damage_at_once_ends_as_if_nothing_had_happened(
    ingested: Project, kinds: list[str], seed: int
) -> None:
    project = ingested.restore()
    before = project.content()
    dice = random.Random(seed)
    for kind in kinds:
        FOUND_BY[kind][0](project, dice)
    _check_mended(project, _repair(project), before)


class Killed(BaseException):
    """Stands in for SIGKILL."""


def _die() -> None:
    raise Killed


def test_a_repair_that_is_killed_is_finished_by_the_next_one(ingested: Project) -> None:
    project = ingested.restore()
    before = project.content()
    kinds = ("changed points", "lost chunks", "damaged bytes", "wrong catalog rows", "lost points")

    def damaged() -> Project:
        project = ingested.restore()
        for kind in kinds:
            FOUND_BY[kind][0](project, random.Random(kind))
        return project

    executioner = Executioner()
    project = damaged()
    with watched_effects(executioner):
        _repair(project)
    moments = executioner.moments
    for moment in sorted(random.Random(20261122).sample(range(len(moments)), 6)):
        project = damaged()
        with watched_effects(Executioner(moment, _die)), suppress(Killed):
            _repair(project)
        report = _repair(project)
        assert project.audit() == [], moments[moment]
        _check_mended(project, report, before)


def test_the_live_version_answers_all_the_while(ingested: Project) -> None:
    """A repair writes the new before it removes the old: no document is ever gone."""
    project = ingested.restore()
    points = sorted(project.rows(INDEXED_CHUNKS.outputs)["point_id"])
    for kind in ("altered chunks", "changed vectors", "damaged bytes", "changed points"):
        FOUND_BY[kind][0](project, random.Random(kind))
    fewest = len(points)

    def look(_moment: str, what: str) -> None:
        nonlocal fewest
        if what.startswith("replace"):
            with project.workspace.vector_store() as store:
                fewest = min(fewest, len(store.retrieve("v1", points)))

    # The index run itself holds the embedded engine, so the table is what can be looked at there.
    tables: list[int] = []

    def count(_moment: str, what: str) -> None:
        if what in ("replace chunks", "replace embeddings", "replace raw_documents"):
            look(_moment, what)
            tables.append(project.rows(CHUNKS.outputs).height)

    n_chunks = project.rows(CHUNKS.outputs).height
    with watched_effects(count):
        _repair(project)
    assert tables
    assert min(tables) == n_chunks
    assert fewest == len(points)


def test_bytes_that_are_gone_everywhere_are_named_with_the_way_out(ingested: Project) -> None:
    project = ingested.restore()
    project.path("kitchen.txt").unlink()
    row = project.rows(RAW_DOCUMENTS.outputs, pl.col("uri") == project.uri("kitchen.txt"))
    project.workspace.landing_zone.delete(row["content_hash"][0])
    report = _repair(project)
    assert not report.after.is_clean
    (left,) = report.unmended
    assert left.finding.name == "missing_raw_bytes"
    assert left.finding.examples == (row["content_hash"][0],)
    assert "Put the file back" in left.way_out
    assert project.found_uris("oat milk shopping list", mode="sparse") == [
        project.uri("kitchen.txt")
    ]
    values = report.as_json()
    assert (values["clean"], values["missing_raw_bytes"]) == (False, 1)
    json.dumps(values)
    project.ingest(confirmed=["handbook"])
    assert project.audit() == []
