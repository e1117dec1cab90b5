"""Each check once passing, once failing."""

import dataclasses

import dagster as dg
import pytest

from ragassets.core.asset_tables import DEAD_LETTERS, SOURCE_OBJECTS
from ragassets.core.evaluation import QueryScore
from ragassets.core.gates import GateVerdict, SearchLatency
from ragassets.core.paired_comparison import PairedComparison, QueryDifference
from ragassets.core.tables import TableSpec
from ragassets.defs.checks import (
    AUDIT_CHECKS,
    audit_check_results,
    most_documents_are_readable,
    seal_check_results,
)
from ragassets.defs.judgement_report import bar, judgement_report
from ragassets.queries.audit import Audit
from ragassets.queries.audit_findings import MEANINGS, Finding, Thing, finding
from ragassets.stages.completeness import Problem
from ragassets.stages.index_versions import SealReport
from ragassets.stages.judgement import Measured, Verdict
from ragassets.stages.measurements import RecallSample
from ragassets_tests.fakes import InMemoryTables


class FakeResource:
    """A workspace that has tables only."""

    def __init__(self) -> None:
        """Start empty."""
        self.tables = InMemoryTables()

    @property
    def workspace(self) -> "FakeResource":
        """Itself: what the checks open."""
        return self

    def put(self, spec: TableSpec, rows: list[dict[str, object]]) -> None:
        """Fill a table; columns that are not given are null."""
        import polars as pl

        frame = pl.DataFrame(
            [{name: row.get(name) for name in spec.schema} for row in rows], schema=spec.schema
        )
        partitions = [
            dict(zip(spec.partition_by, key, strict=True))
            for key in {tuple(str(row[c]) for c in spec.partition_by) for row in rows}
        ]
        self.tables.replace(self.tables.snapshot(spec), partitions, frame)


@pytest.fixture
def resource() -> FakeResource:
    """An empty workspace."""
    return FakeResource()


def seal(*problems: Problem, gates: tuple[GateVerdict, ...] = ()) -> SealReport:
    return SealReport(
        index_version="v1",
        state="incomplete" if problems else "sealed",
        n_documents=2,
        n_chunks=3,
        n_points=3,
        n_failed=0,
        problems=problems,
        measured=Measured(),
        verdict=Verdict(None, None, gates),
        judged_by=("documents",),
        dead_letter_share=0.0,
        content_version="a",
    )


def results(report: SealReport) -> dict[str | None, dg.AssetCheckResult]:
    return {result.check_name: result for result in seal_check_results([report])}


KEPT = GateVerdict("min_ndcg_at_10", 0.4, 0.5, passed=True)
BROKEN = GateVerdict("min_recall_vs_exact", 0.9, 0.25, passed=False)


def test_what_is_still_on_its_way_fails_no_run_that_nobody_asked_for() -> None:
    """While documents arrive, every second seal would; what is wrong blocks all the same."""
    late = Problem("completeness", "chunks are not indexed as they are now", {"handbook-000": 5})
    wrong = Problem("counts", "points are missing", {"handbook-000": 1})
    found = {
        result.check_name: (result.passed, result.severity)
        for result in seal_check_results([seal(late, wrong)], is_automatic=True)
    }
    assert found["every_shard_is_complete"] == (False, dg.AssetCheckSeverity.WARN)
    assert found["counts_are_equal"] == (False, dg.AssetCheckSeverity.ERROR)
    asked = results(seal(late))["every_shard_is_complete"]
    assert (asked.passed, asked.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_every_check_of_a_good_version_passes() -> None:
    """One result a check: Dagster takes a missing one for a pass."""
    found = results(seal(gates=(KEPT,)))
    assert list(found) == [
        "every_shard_is_complete",
        "counts_are_equal",
        "vectors_are_sound",
        "gates_are_kept",
    ]
    assert all(result.passed for result in found.values())


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("completeness", "every_shard_is_complete"),
        ("counts", "counts_are_equal"),
        ("vectors", "vectors_are_sound"),
    ],
)
def test_a_problem_fails_its_check_alone_and_names_the_shard(check: str, name: str) -> None:
    """Somebody has to know where to look."""
    problem = Problem(check, "2 things are wrong, in a-001", "things are wrong", {"a-001": 2})
    found = results(seal(problem))
    assert [result for result in found if not found[result].passed] == [name]
    assert found[name].description == "2 things are wrong, in a-001"
    assert found[name].severity is dg.AssetCheckSeverity.ERROR
    assert "| v1 | a-001 | things are wrong | 2 |" in str(found[name].metadata["shards"].value)


def test_a_broken_gate_fails_its_check_with_limit_and_value() -> None:
    """The one that a person reads before forcing a promotion."""
    found = results(seal(gates=(KEPT, BROKEN)))["gates_are_kept"]
    assert not found.passed
    assert found.description == "min_recall_vs_exact is 0.9, found 0.25"
    assert found.metadata["n_failed_gates"].value == 1


def test_the_report_tells_the_verdict_the_gates_and_the_losers() -> None:
    """It is what the UI shows of a version; a query must not draw in it."""
    scores = (QueryScore("how | much", 0.2, 1, 1), QueryScore("other", 0.9, 1, 1))
    comparison = PairedComparison(
        2, -0.3, -0.5, -0.1, 0.04, 0, 1, 1, (QueryDifference("how | much", 0.2, 0.8),)
    )
    report = dataclasses.replace(
        seal(gates=(KEPT, BROKEN)),
        state="failed_gates",
        measured=Measured(scores, SearchLatency(1.5, 9.25), RecallSample(0.25, 100)),
        verdict=Verdict("v0", comparison, (KEPT, BROKEN)),
    )
    text = str(judgement_report(report).value)
    assert text.startswith("## v1: failed gates")
    assert "| min_recall_vs_exact | 0.9 | 0.25 | FAILED |" in text
    assert "nDCG@10 -0.3000 (95 % interval -0.5000 to -0.1000, p = 0.04: no accident)" in text
    assert "| how \\| much | 0.200 | 0.800 | ████████████ |" in text
    assert "p50 1.5 ms, p95 9.2 ms" in text
    assert bar(1) == "█" * 20
    assert bar(0.5) == "█" * 10


def objects(source: str, n_objects: int) -> list[dict[str, object]]:
    return [
        {
            "document_id": f"{source}-{number}",
            "source": source,
            "source_shard": f"{source}-000",
            "is_deleted": False,
        }
        for number in range(n_objects)
    ]


def letters(source: str, n_documents: int) -> list[dict[str, object]]:
    """Two dead letters a document: it counts once."""
    return [
        {
            "dead_letter_id": f"{source}-{number}-{stage}",
            "document_id": f"{source}-{number}",
            "source": source,
            "source_shard": f"{source}-000",
        }
        for number in range(n_documents)
        for stage in ("chunks", "embeddings")
    ]


def test_a_source_with_half_of_its_documents_readable_passes(resource: FakeResource) -> None:
    """Some files of every folder are no documents."""
    resource.put(SOURCE_OBJECTS, objects("handbook", 4))
    resource.put(DEAD_LETTERS, letters("handbook", 2))

    result = most_documents_are_readable(resource)

    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed


def test_a_source_that_is_mostly_dead_letters_warns(resource: FakeResource) -> None:
    """A healthy second source does not hide it."""
    resource.put(SOURCE_OBJECTS, [*objects("handbook", 4), *objects("wiki", 100)])
    resource.put(DEAD_LETTERS, letters("handbook", 3))

    result = most_documents_are_readable(resource)

    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert "| handbook | 4 | 3 |" in str(result.metadata["sources"].value)


def _audit(*found: Finding) -> Audit:
    return Audit(tuple(found))


def test_an_audit_without_findings_passes_all_its_checks() -> None:
    results = audit_check_results(_audit(), n_runs_at_work=0)
    assert {result.check_name: result.passed for result in results} == {
        "collections_are_true": True,
        "tables_agree": True,
        "catalog_is_true": True,
        "landing_zone_is_whole": True,
    }


def test_a_finding_fails_the_check_that_it_belongs_to_with_counts_and_examples() -> None:
    orphans = finding("orphan_points", [Thing("v1/a"), Thing("v1/b")])
    unused = finding("unused_raw_bytes", [Thing("0" * 64)])
    made = audit_check_results(_audit(orphans, unused), n_runs_at_work=0)
    results = {result.check_name: result for result in made}
    failed = results["collections_are_true"]
    assert not failed.passed
    assert failed.severity == dg.AssetCheckSeverity.ERROR
    assert failed.description == "2 points in a collection that no table knows"
    assert failed.metadata["orphan_points"].value == 2
    assert "v1/a, v1/b" in str(failed.metadata["examples"].value)
    assert results["landing_zone_is_whole"].passed  # what nobody names any more is no damage
    assert results["landing_zone_is_whole"].metadata["unused_raw_bytes"].value == 1


def test_what_is_found_beside_other_runs_is_a_warning() -> None:
    """Half of what a run does looks like damage until it is through."""
    missing = finding("missing_embeddings", [Thing("c")])
    results = audit_check_results(_audit(missing), n_runs_at_work=2)
    (failed,) = (result for result in results if not result.passed)
    assert failed.severity == dg.AssetCheckSeverity.WARN
    assert str(failed.description).endswith("(2 other runs were at work)")


def test_every_finding_belongs_to_one_check() -> None:
    gathered = [name for _, names in AUDIT_CHECKS.values() for name in names]
    assert sorted(gathered) == sorted(MEANINGS)
