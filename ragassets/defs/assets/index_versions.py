"""`index_versions`: sealed when complete, sound and measured."""

from typing import TYPE_CHECKING

import dagster as dg

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.automation import keep_versions_current
from ragassets.defs.checks import seal_check_results, seal_check_specs
from ragassets.defs.events import PartitionEvents
from ragassets.defs.failures import failing_once
from ragassets.defs.judgement_report import judgement_report
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import Partitions
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import run_context
from ragassets.defs.version_keys import VersionKeys

AUTOMATION_TAG = "dagster/from_automation_condition"
"""Dagster's own tag of the runs that a condition asked for."""

if TYPE_CHECKING:
    from ragassets.stages.index_versions import SealReport


def build_index_versions(partitions: Partitions, keys: VersionKeys) -> dg.AssetsDefinition:
    """The asset, one partition an index version, with its blocking checks."""

    @dg.asset(
        name="index_versions",
        description="An index version, sealed: every shard present, counts equal on both sides,"
        " vectors sound, search measured and compared with the live version, gates kept.",
        group_name="indexing",
        kinds={"qdrant", "deltalake"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["index_versions"],
        partitions_def=partitions.index_versions,
        deps=[dg.AssetDep("indexed_chunks", partition_mapping=partitions.index_version_dimension)],
        check_specs=seal_check_specs(partitions),
        pool="vector_store",
        retry_policy=RETRY_POLICY,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        automation_condition=keep_versions_current(keys),
    )
    def index_versions(  # pyright: ignore[reportUnknownParameterType]
        context: dg.AssetExecutionContext,
        workspace: dg.ResourceParam[WorkspaceResource],
        # With a type argument, Dagster takes several outputs for a mistake.
    ) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument]
        from ragassets.stages.index_versions import seal_index_version

        events = PartitionEvents(context)
        reports: list[SealReport] = []
        with failing_once(context):
            for version in context.partition_keys:
                report = seal_index_version(
                    workspace.workspace, version, run_context(context, workspace)
                )
                events.log(version, f"{report.state}-{report.content_version}", _shown(report))
                reports.append(report)
        is_automatic = AUTOMATION_TAG in context.run.tags
        return events.result(seal_check_results(reports, is_automatic=is_automatic))

    return index_versions


def _shown(report: "SealReport") -> Metadata:
    measured, verdict = report.measured, report.verdict
    quality: Metadata = {"quality": "judged on completeness and soundness alone: no golden queries"}
    if report.quality is not None:
        quality = {
            "n_golden_queries": report.quality.n_queries,
            "ndcg_at_10": report.quality.ndcg_at_10,
            "recall_at_10": report.quality.recall_at_10,
            "mrr_at_10": report.quality.mrr_at_10,
        }
    measures: dict[str, float] = {}
    if measured.latency is not None:
        measures["latency_ms_p50"] = measured.latency.p50_ms
        measures["latency_ms_p95"] = measured.latency.p95_ms
    if measured.recall is not None:
        measures["recall_vs_exact"] = measured.recall.recall
    if verdict.comparison is not None:
        measures["ndcg_difference"] = verdict.comparison.difference
        measures["ndcg_difference_p_value"] = verdict.comparison.p_value
    if report.dead_letter_share is not None:
        measures["dead_letter_share"] = report.dead_letter_share
    return {
        "state": report.state,
        "judgement": judgement_report(report),
        metadata.N_DOCUMENTS: report.n_documents,
        metadata.N_CHUNKS: report.n_chunks,
        "n_points": report.n_points,
        metadata.N_FAILED: report.n_failed,
        "problems": "; ".join(problem.text for problem in report.problems) or "none",
        "failed_gates": "; ".join(report.failed_gates) or "none",
        "compared_with": verdict.compared_with or "nothing",
        **quality,
        **measures,
    }
