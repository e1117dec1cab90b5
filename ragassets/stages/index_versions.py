"""Seal an index version: every shard there, counts equal, vectors sound, quality known.

A version is measured once. As long as its points and the golden queries stay what they were, later
seals take the numbers from its row; only what is compared with them, the live version and the
gates, is looked at each time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import INDEX_VERSIONS, INDEXED_CHUNKS
from ragassets.core.evaluation import RetrievalQuality
from ragassets.core.fingerprints import data_version, fingerprint
from ragassets.core.gates import failed_gates
from ragassets.core.stages import RunContext
from ragassets.core.tables import PinnedTables, Tables
from ragassets.stages.completeness import (
    Problem,
    dead_letter_share,
    find_incomplete,
    find_unequal_counts,
    read_vectors,
)
from ragassets.stages.dropped_versions import read_drops, refuse_dropped, way_back
from ragassets.stages.golden_queries import Judges, find_judges
from ragassets.stages.judgement import (
    Measured,
    Verdict,
    golden_version,
    judge,
    last_seal,
    read_measured,
)
from ragassets.stages.measurements import measure_recall, run_golden_queries, sample_chunks
from ragassets.stages.retired_shards import retire_shards
from ragassets.stages.serving import make_searchable
from ragassets.stages.staleness import describe_unfinished_work, read_version_rows

SEALED, INCOMPLETE, FAILED_GATES = "sealed", "incomplete", "failed_gates"

MEASURED_BY = "2"
"""Raise it when a version has to be measured again although nothing of it changed."""


@dataclass(frozen=True)
class SealReport:
    """What was found when a version was sealed."""

    index_version: str
    state: str
    n_documents: int
    n_chunks: int
    n_points: int
    n_failed: int
    """Chunks and documents that are dead letters and therefore not in the collection."""
    problems: tuple[Problem, ...]
    measured: Measured
    verdict: Verdict
    judged_by: tuple[str, ...]
    """Aliases whose golden queries and gates were applied."""
    dead_letter_share: float | None
    content_version: str

    @property
    def is_sealed(self) -> bool:
        """Whether an alias may point at it."""
        return self.state == SEALED

    @property
    def quality(self) -> RetrievalQuality | None:
        """None where no golden queries are configured: judged on the rest alone."""
        return self.measured.quality

    @property
    def failed_gates(self) -> list[str]:
        """The gates that keep a complete version from being served, in words."""
        return failed_gates(self.verdict.gates)


UnservableKind = Literal["dropped", "absent", "incomplete", "changed", "behind", "failed_gates"]


@dataclass(frozen=True)
class Unservable:
    """Why no alias may point at a version."""

    kind: UnservableKind
    """`dropped`: by somebody; `absent`: never built; `incomplete`: as of its seal; `changed`: rows
    came or went since; `behind`: its corpus changed since; `failed_gates`: whole and current, but
    not good enough."""
    problem: str
    """Completes "index version 'v2' …"."""
    fix: str

    @property
    def can_be_forced(self) -> bool:
        """Whether somebody with a reason may serve it nevertheless: nothing of it is missing."""
        return self.kind == FAILED_GATES


def seal_index_version(workspace: Workspace, index_version: str, context: RunContext) -> SealReport:
    """Judge a version and write its row of `index_versions`; retired shards are cleared before.

    Raises:
        IndexVersionError: The version was dropped.
    """
    refuse_dropped(workspace, index_version)
    retire_shards(workspace, index_version, context)
    tables = PinnedTables(workspace.tables, INDEX_VERSIONS)
    judges = find_judges(workspace, index_version, tables)
    indexed = tables.read(
        INDEXED_CHUNKS.outputs,
        [{"index_version": index_version}],
        columns=["chunk_id", "document_id", "output_hash"],
    )
    earlier = last_seal(workspace, index_version, tables)
    keys = {
        "content_version": data_version(indexed.select("chunk_id", "output_hash").iter_rows()),
        "specification": _specification(workspace, index_version, judges),
        "golden_version": golden_version(judges),
    }
    is_known = earlier is not None and _is_known(earlier, keys)
    problems, n_failed = find_incomplete(workspace, index_version, tables)
    sample: Mapping[str, NDArray[np.float32]] = {}
    if not is_known:
        chosen = sample_chunks(indexed["chunk_id"].to_list())
        unsound, sample = read_vectors(workspace, index_version, tables, chosen)
        problems += unsound
    with workspace.vector_store() as store:
        unequal, n_points = find_unequal_counts(store, index_version, tables, indexed.height)
    problems += unequal
    if not (is_known or problems):
        problems += make_searchable(workspace, index_version)
    measured = Measured()
    if earlier is not None and is_known:
        measured = read_measured(earlier)
    elif n_points and not problems:
        measured = _measure(workspace, index_version, judges, sample)
    report = SealReport(
        index_version=index_version,
        state=INCOMPLETE,
        n_documents=indexed["document_id"].n_unique(),
        n_chunks=indexed.height,
        n_points=n_points,
        n_failed=n_failed,
        problems=tuple(problems),
        measured=measured,
        verdict=Verdict(None, None, ()),
        judged_by=judges.aliases,
        dead_letter_share=dead_letter_share(workspace, index_version, tables),
        content_version=keys["content_version"],
    )
    if not problems:
        verdict = judge(workspace, judges, measured, report.dead_letter_share)
        state = FAILED_GATES if failed_gates(verdict.gates) else SEALED
        report = replace(report, state=state, verdict=verdict)
    _write(tables, report, keys, context, earlier)
    return report


def _measure(
    workspace: Workspace,
    index_version: str,
    judges: Judges,
    sample: Mapping[str, NDArray[np.float32]],
) -> Measured:
    recall = measure_recall(workspace, index_version, sample)
    if judges.queries is None:
        return Measured(recall=recall)
    run = run_golden_queries(workspace, index_version, judges.queries)
    return Measured(run.scores, run.latency, recall)


def _specification(workspace: Workspace, index_version: str, judges: Judges) -> str:
    version = workspace.config.index_version(index_version)
    return fingerprint(
        {
            "measured_by": MEASURED_BY,
            "version": version.model_dump(mode="json", exclude={"backfill"}),
            "golden": None if judges.queries is None else golden_version(judges),
        }
    )


def _is_known(earlier: Mapping[str, object], keys: Mapping[str, str]) -> bool:
    return earlier["state"] in (SEALED, FAILED_GATES) and all(
        earlier[name] == value for name, value in keys.items()
    )


def describe_unservable(workspace: Workspace, index_version: str) -> Unservable | None:
    """Why no alias may point at a version, None where one may.

    A seal is not enough: the version may have been built further, or fallen behind, since. What
    failed its gates is told apart from what is not whole, and named last.
    """
    tables = PinnedTables(workspace.tables)
    drop = read_drops(tables).get(index_version)
    if drop is not None and drop.stands:
        return Unservable("dropped", drop.describe(), way_back(index_version))
    return _describe_unfit(workspace, index_version, tables)


def _describe_unfit(workspace: Workspace, index_version: str, tables: Tables) -> Unservable | None:
    build = f"Run `ragassets index build {index_version}`"
    seal = last_seal(workspace, index_version, tables)
    if seal is None:
        return Unservable("absent", "was never built", build)
    if seal["state"] == INCOMPLETE:
        problems = _join(cast("list[object]", seal["problems"] or []))
        return Unservable("incomplete", f"is incomplete ({problems})", build)
    rows = read_version_rows(workspace, index_version, tables)
    if rows.content_version != seal["content_version"]:
        return Unservable("changed", "has changed since it was sealed", build)
    if unfinished := describe_unfinished_work(workspace, index_version, tables):
        return Unservable("behind", f"is not up to date ({_join(unfinished)})", build)
    if seal["state"] == SEALED:
        return None
    failed = _join(cast("list[object]", seal["failed_gates"] or []))
    return Unservable(
        "failed_gates",
        f"failed its gates ({failed})",
        f"See `ragassets index evaluate {index_version}`, and change the version or the `gates`;"
        " or serve it nevertheless with --force --reason 'why'",
    )


def _join(problems: Sequence[object]) -> str:
    return "; ".join(map(str, problems))


def _write(
    tables: PinnedTables,
    report: SealReport,
    keys: Mapping[str, str],
    context: RunContext,
    earlier: dict[str, object] | None,
) -> None:
    """Commit the row, unless it is there already."""
    row = {**_as_row(report), **keys}
    if earlier is not None and all(earlier[name] == value for name, value in row.items()):
        return
    row |= {
        "sealed_at": context.now(),
        "run_id": context.run_id,
        "pipeline_version": context.pipeline_version,
    }
    snapshot = tables.snapshot(INDEX_VERSIONS)
    frame = pl.DataFrame([row], schema=INDEX_VERSIONS.schema)
    tables.replace(snapshot, [{"index_version": report.index_version}], frame)


def _as_row(report: SealReport) -> dict[str, object]:
    measured, verdict = report.measured, report.verdict
    latency, recall, quality = measured.latency, measured.recall, measured.quality
    return {
        "index_version": report.index_version,
        "state": report.state,
        "n_documents": report.n_documents,
        "n_chunks": report.n_chunks,
        "n_points": report.n_points,
        "n_failed": report.n_failed,
        "problems": [found.text for found in report.problems],
        "shard_problems": [
            {"check": p.check, "source_shard": shard, "problem": p.what, "count": count}
            for p in report.problems
            for shard, count in sorted(p.by_shard.items())
        ],
        "quality": json.dumps(asdict(quality)) if quality else None,
        "query_scores": None if measured.scores is None else [asdict(s) for s in measured.scores],
        "latency_ms_p50": latency and latency.p50_ms,
        "latency_ms_p95": latency and latency.p95_ms,
        "recall_vs_exact": recall and recall.recall,
        "n_recall_samples": recall and recall.n_samples,
        "dead_letter_share": report.dead_letter_share,
        "judged_by": list(report.judged_by),
        "compared_with": verdict.compared_with,
        "comparison": json.dumps(asdict(verdict.comparison)) if verdict.comparison else None,
        "gates": json.dumps([asdict(gate) for gate in verdict.gates]),
        "failed_gates": report.failed_gates,
    }
