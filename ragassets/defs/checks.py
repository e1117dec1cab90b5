"""Few asset checks with rich metadata; never one per document."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.metadata import markdown_table
from ragassets.defs.partitions import Partitions
from ragassets.defs.resources import WorkspaceResource

if TYPE_CHECKING:
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


def seal_check_results(reports: "Sequence[SealReport]") -> list[dg.AssetCheckResult]:
    """What the checks say of the versions that one run has sealed: usually one."""
    return [
        *(_completeness_result(name, check, reports) for name, check in PROBLEMS_OF.items()),
        _gates_result(reports),
    ]


def _completeness_result(
    name: str, check: str, reports: "Sequence[SealReport]"
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
