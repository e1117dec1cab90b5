"""Few asset checks with rich metadata; never one per document."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.metadata import markdown_table
from ragassets.defs.partitions import Partitions
from ragassets.defs.resources import WorkspaceResource

if TYPE_CHECKING:
    from ragassets.queries.audit import Audit
    from ragassets.stages.index_versions import SealReport

MAX_DEAD_LETTER_SHARE = 0.5
"""When half of a corpus cannot be read, the source or the configuration is wrong, not the
documents."""

SHARDS_SHOWN = 50
"""Rows of the table of shards that lack something; the table `index_versions` has them all."""


SEAL_CHECKS: Mapping[str, str] = {
    "every_shard_is_complete": "Every document of every shard is chunked, embedded and indexed.",
    "counts_are_equal": "The collection holds the points that its table names, and no others.",
    "vectors_are_sound": "Every vector is finite, of unit length and of the model's dimension.",
    "gates_are_kept": "The measured quality keeps the gates of the configuration.",
}
"""Checks that the sealing itself answers: its verdict, not a second look at the data.

They block: where one fails, the run fails, so that nothing downstream of it in the same run moves
an alias, and automation can wait with `all_deps_blocking_checks_passed`.
"""

PROBLEMS_OF: Mapping[str, str] = {
    "every_shard_is_complete": "completeness",
    "counts_are_equal": "counts",
    "vectors_are_sound": "vectors",
}


def seal_check_specs(partitions: Partitions) -> list[dg.AssetCheckSpec]:
    """The checks of `index_versions`, one result an index version."""
    return [
        dg.AssetCheckSpec(
            name,
            asset="index_versions",
            description=description,
            blocking=True,
            partitions_def=partitions.index_versions,
        )
        for name, description in SEAL_CHECKS.items()
    ]


def seal_check_results(
    reports: "Sequence[SealReport]", *, is_automatic: bool = False
) -> list[dg.AssetCheckResult]:
    """What the checks say of the versions that one run has sealed: usually one.

    Args:
        reports: What was found.
        is_automatic: Nobody asked for the seal, so more may be on its way: while documents keep
            arriving a version is hardly ever complete. Automation seals again when they are
            there; until then it is said, and fails no run.
    """
    return [
        *(
            _completeness_result(
                name, check, reports, is_blocking=not is_automatic or check != "completeness"
            )
            for name, check in PROBLEMS_OF.items()
        ),
        _gates_result(reports),
    ]


def _completeness_result(
    name: str, check: str, reports: "Sequence[SealReport]", *, is_blocking: bool
) -> dg.AssetCheckResult:
    found = [
        (report, problem)
        for report in reports
        for problem in report.problems
        if problem.check == check
    ]
    shards = [
        {
            "index version": report.index_version,
            "source shard": shard,
            "lacks": problem.what,
            "count": count,
        }
        for report, problem in found
        for shard, count in sorted(problem.by_shard.items())
    ]
    return dg.AssetCheckResult(
        check_name=name,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_blocking else dg.AssetCheckSeverity.WARN,
        description="; ".join(problem.text for _, problem in found) or None,
        metadata={
            "n_problems": len(found),
            "n_documents": sum(report.n_documents for report in reports),
            "n_chunks": sum(report.n_chunks for report in reports),
            "n_points": sum(report.n_points for report in reports),
            "shards": markdown_table(shards, n_rows=SHARDS_SHOWN),
        },
    )


def _gates_result(reports: "Sequence[SealReport]") -> dg.AssetCheckResult:
    verdicts = [(report, gate) for report in reports for gate in report.verdict.gates]
    failed = [gate.describe() for _, gate in verdicts if not gate.passed]
    rows = [
        {
            "index version": report.index_version,
            "gate": gate.gate,
            "limit": gate.limit,
            "found": gate.value,
            "passed": gate.passed,
            "note": gate.note,
        }
        for report, gate in verdicts
    ]
    return dg.AssetCheckResult(
        check_name="gates_are_kept",
        passed=not failed,
        description="; ".join(failed) or None,
        metadata={
            "n_failed_gates": len(failed),
            "gates": markdown_table(rows, n_rows=len(rows)),
            "judged by": ", ".join(sorted({a for report in reports for a in report.judged_by})),
        },
    )


AUDIT_CHECKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "collections_are_true": (
        "Every point of every collection is one that the tables know, as they know it.",
        (
            "orphan_points",
            "missing_points",
            "stale_points",
            "wrong_vectors",
            "unsound_vectors",
            "leftover_intents",
            "unfinished_drops",
        ),
    ),
    "tables_agree": (
        "Every stage has what the stage before it gives: no more and no less.",
        (
            "orphan_documents",
            "missing_documents",
            "orphan_chunks",
            "missing_chunks",
            "incomplete_chunks",
            "altered_chunks",
            "orphan_embeddings",
            "missing_embeddings",
            "orphan_indexed_chunks",
            "missing_indexed_chunks",
            "retired_shards",
        ),
    ),
    "catalog_is_true": (
        "The catalog and the dead letters say what the tables say.",
        (
            "orphan_catalog_rows",
            "missing_catalog_rows",
            "wrong_catalog_rows",
            "orphan_dead_letters",
            "missing_dead_letters",
        ),
    ),
    "landing_zone_is_whole": (
        "The bytes of every document are there, and are those that were fetched.",
        ("missing_raw_bytes", "damaged_raw_bytes", "unused_raw_bytes"),
    ),
}
"""Check to what it says and the findings that it gathers."""


def audit_check_specs() -> list[dg.AssetCheckSpec]:
    """The checks of `audit`."""
    return [
        dg.AssetCheckSpec(name, asset="audit", description=description)
        for name, (description, _) in AUDIT_CHECKS.items()
    ]


def audit_check_results(found: "Audit", *, n_runs_at_work: int) -> list[dg.AssetCheckResult]:
    """What an audit found, check by check.

    Args:
        found: The audit.
        n_runs_at_work: Other runs that went on meanwhile. What they have half done looks like
            damage, so that it is a warning only.
    """
    results: list[dg.AssetCheckResult] = []
    for name, (_, findings) in AUDIT_CHECKS.items():
        entries = found.of(*findings)
        wrong = [entry for entry in entries if entry.count and not entry.is_harmless]
        rows = [
            {"found": e.count, "what": e.meaning, "examples": ", ".join(e.examples)}
            for e in entries
            if e.count
        ]
        note = f" ({n_runs_at_work} other runs were at work)" if n_runs_at_work else ""
        text = "; ".join(f"{entry.count} {entry.meaning}" for entry in wrong)
        results.append(
            dg.AssetCheckResult(
                check_name=name,
                passed=not wrong,
                severity=dg.AssetCheckSeverity.WARN
                if n_runs_at_work
                else dg.AssetCheckSeverity.ERROR,
                description=f"{text}{note}" if text else None,
                metadata={
                    **{entry.name: entry.count for entry in entries},
                    "examples": markdown_table(rows, n_rows=len(rows)),
                },
            )
        )
    return results


@dg.asset_check(asset="dead_letters", description="Most documents of every source can be read.")
def most_documents_are_readable(
    workspace: dg.ResourceParam[WorkspaceResource],
) -> dg.AssetCheckResult:
    """Warn when more than half of a source's documents are dead letters."""
    from ragassets.core.asset_tables import DEAD_LETTERS, SOURCE_OBJECTS

    tables = workspace.workspace.tables
    objects = tables.read(SOURCE_OBJECTS, columns=["source", "is_deleted"])
    n_alive = dict(objects.filter(~objects["is_deleted"])["source"].value_counts().iter_rows())
    letters = tables.read(DEAD_LETTERS, columns=["source", "document_id"]).unique()
    n_dead = dict(letters["source"].value_counts().iter_rows())
    rows = [
        {"source": name, "documents": count, "dead letters": n_dead.get(name, 0)}
        for name, count in sorted(n_alive.items())
    ]
    passed = all(n_dead.get(name, 0) <= MAX_DEAD_LETTER_SHARE * n for name, n in n_alive.items())
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"sources": markdown_table(rows)},
    )
