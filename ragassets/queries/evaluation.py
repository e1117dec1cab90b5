"""The golden queries asked of one version now, sealed or not; nothing is written."""

from dataclasses import dataclass
from typing import cast

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import INDEXED_CHUNKS
from ragassets.core.evaluation import QueryScore, RetrievalQuality
from ragassets.core.gates import GateVerdict, SearchLatency, failed_gates
from ragassets.core.paired_comparison import PairedComparison
from ragassets.core.tables import PinnedTables
from ragassets.errors import ConfigurationError
from ragassets.queries.index_versions import State, version_state
from ragassets.queries.json_values import json_value
from ragassets.stages.completeness import dead_letter_share, read_vectors
from ragassets.stages.golden_queries import find_judges
from ragassets.stages.judgement import Measured, judge
from ragassets.stages.measurements import measure_recall, run_golden_queries, sample_chunks

NO_GOLDEN_QUERIES = (
    "No golden queries are configured: the version is judged on completeness and soundness alone."
    " Name a file under `aliases.<alias>.golden_queries`."
)


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one version."""

    index_version: str
    state: State
    judged_by: tuple[str, ...]
    """Aliases whose golden queries and gates these are."""
    n_golden_queries: int
    quality: RetrievalQuality | None
    """None without golden queries."""
    recall_vs_exact: float | None
    latency: SearchLatency | None
    compared_with: str | None
    """The live version; None where the version is live itself, or nothing else is."""
    comparison: PairedComparison | None
    gates: tuple[GateVerdict, ...]
    queries: tuple[QueryScore, ...]
    note: str = ""

    @property
    def failed_gates(self) -> list[str]:
        """The gates that would keep it from being served, in words."""
        return failed_gates(self.gates)

    def as_json(self) -> dict[str, object]:
        """The public shape."""
        values = cast("dict[str, object]", json_value(self))
        latency = self.latency
        del values["latency"]
        return {
            **values,
            "latency_ms": latency and {"p50": latency.p50_ms, "p95": latency.p95_ms},
            "failed_gates": self.failed_gates,
        }


def evaluate_version(
    workspace: Workspace, index_version: str, *, alias: str | None = None
) -> Evaluation:
    """Measure a version as a seal would, and hold it against the gates.

    Args:
        workspace: Where the version is.
        index_version: Its name.
        alias: Whose golden queries, gates and live version count; else those that would judge it.

    Raises:
        UnknownNameError: There is no such version or alias.
        ConfigurationError: The version holds nothing yet, or a golden file cannot be used.
        IndexVersionError: It was built with another model than the one of that name now.
    """
    workspace.config.index_version(index_version)
    tables = PinnedTables(workspace.tables)
    judges = find_judges(workspace, index_version, tables, alias)
    with workspace.vector_store() as store:
        is_built = index_version in store.list_collections()
    if not is_built:
        raise ConfigurationError(
            key="VERSION",
            value=index_version,
            problem="holds nothing yet",
            fix=f"Run `ragassets index build {index_version}` first",
        )
    indexed = tables.read(
        INDEXED_CHUNKS.outputs, [{"index_version": index_version}], columns=["chunk_id"]
    )
    chosen = sample_chunks(indexed["chunk_id"].to_list())
    _, sample = read_vectors(workspace, index_version, tables, chosen)
    measured = Measured(recall=measure_recall(workspace, index_version, sample))
    if judges.queries is not None:
        run = run_golden_queries(workspace, index_version, judges.queries)
        measured = Measured(run.scores, run.latency, measured.recall)
    share = dead_letter_share(workspace, index_version, tables)
    verdict = judge(workspace, judges, measured, share)
    return Evaluation(
        index_version=index_version,
        state=version_state(workspace, index_version, tables),
        judged_by=judges.aliases,
        n_golden_queries=len(judges.queries or ()),
        quality=measured.quality,
        recall_vs_exact=measured.recall and measured.recall.recall,
        latency=measured.latency,
        compared_with=verdict.compared_with,
        comparison=verdict.comparison,
        gates=verdict.gates,
        queries=measured.scores or (),
        note="" if judges.queries is not None else NO_GOLDEN_QUERIES,
    )
