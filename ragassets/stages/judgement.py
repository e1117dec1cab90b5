"""What the numbers of a version mean: against the live version, and against the gates."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import INDEX_VERSIONS, INDEXED_CHUNKS
from ragassets.core.evaluation import QueryScore, RetrievalQuality, average
from ragassets.core.fingerprints import data_version, fingerprint
from ragassets.core.gates import GateVerdict, Measurements, SearchLatency, apply_gates
from ragassets.core.paired_comparison import PairedComparison, compare_paired
from ragassets.core.tables import PinnedTables, Tables
from ragassets.errors import IndexVersionError
from ragassets.stages.golden_queries import Judges
from ragassets.stages.measurements import RecallSample, run_golden_queries


@dataclass(frozen=True)
class Measured:
    """What was measured of a version."""

    scores: tuple[QueryScore, ...] | None = None
    """One a golden query; None where none are configured."""
    latency: SearchLatency | None = None
    recall: RecallSample | None = None
    """None without points."""

    @property
    def quality(self) -> RetrievalQuality | None:
        """Means over the golden queries."""
        return None if self.scores is None else average(self.scores)


@dataclass(frozen=True)
class Verdict:
    """What the numbers of a version mean."""

    compared_with: str | None
    """The version that it was compared with: the live one."""
    comparison: PairedComparison | None
    gates: tuple[GateVerdict, ...]


def judge(
    workspace: Workspace,
    judges: Judges,
    measured: Measured,
    dead_letters: float | None,
) -> Verdict:
    """Compare a measured version with the live one, and hold it against the gates."""
    rival, comparison = judges.rival, None
    if rival is not None and measured.scores is not None:
        scores = _rival_scores(workspace, rival, judges)
        comparison = None if scores is None else compare_paired(measured.scores, scores)
    found = Measurements(
        quality=measured.quality,
        comparison=comparison,
        recall_vs_exact=measured.recall and measured.recall.recall,
        latency=measured.latency,
        dead_letter_share=dead_letters,
        was_served=judges.was_served,
    )
    return Verdict(
        compared_with=rival if comparison is not None else None,
        comparison=comparison,
        gates=tuple(apply_gates(judges.gates, found)),
    )


def _rival_scores(
    workspace: Workspace, rival: str, judges: Judges
) -> tuple[QueryScore, ...] | None:
    """The live version's answers to the same queries; None where it cannot be asked.

    Its own row has them, unless it changed since or was judged by other queries.
    """
    tables = PinnedTables(workspace.tables)
    seal = last_seal(workspace, rival, tables)
    if seal is not None and seal["golden_version"] == golden_version(judges):
        rows = tables.read(
            INDEXED_CHUNKS.outputs,
            [{"index_version": rival}],
            columns=["chunk_id", "output_hash"],
        )
        scores = read_measured(seal).scores
        if scores is not None and seal["content_version"] == data_version(rows.iter_rows()):
            return scores
    with workspace.vector_store() as store:
        is_there = rival in store.list_collections()
    if not is_there or rival not in workspace.config.index_versions:
        return None
    try:
        return run_golden_queries(workspace, rival, judges.queries or ()).scores
    except IndexVersionError:  # built with a model that is gone: nothing to compare with
        return None


def golden_version(judges: Judges) -> str:
    """Hash of the golden queries."""
    return fingerprint({"queries": [asdict(query) for query in judges.queries or ()]})


def last_seal(
    workspace: Workspace, index_version: str, tables: Tables | None = None
) -> dict[str, object] | None:
    """The version's row of `index_versions`."""
    rows = (tables or workspace.tables).read(INDEX_VERSIONS, [{"index_version": index_version}])
    return rows.row(0, named=True) if rows.height else None


def read_measured(seal: Mapping[str, object]) -> Measured:
    """What a version's row says was measured."""
    scores = cast("list[dict[str, Any]] | None", seal["query_scores"])
    p50, p95 = seal["latency_ms_p50"], seal["latency_ms_p95"]
    recall = seal["recall_vs_exact"]
    return Measured(
        scores=None
        if scores is None or seal["quality"] is None
        else tuple(QueryScore(**score) for score in scores),
        latency=SearchLatency(cast("float", p50), cast("float", p95)) if p50 is not None else None,
        recall=RecallSample(cast("float", recall), cast("int", seal["n_recall_samples"]))
        if recall is not None
        else None,
    )
