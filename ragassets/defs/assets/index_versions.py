"""`index_versions`: sealed when complete, sound and measured."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.events import PartitionEvents
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import Partitions
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import run_context

if TYPE_CHECKING:
    from ragassets.stages.index_versions import SealReport


def build_index_versions(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition an index version."""

    @dg.asset(
        name="index_versions",
        description="An index version, sealed: every shard present, counts equal on both sides,"
        " vectors sound, retrieval quality measured on the golden queries.",
        group_name="indexing",
        kinds={"qdrant", "deltalake"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["index_versions"],
        partitions_def=partitions.index_versions,
        deps=[dg.AssetDep("indexed_chunks", partition_mapping=partitions.index_version_dimension)],
        pool="vector_store",
        retry_policy=RETRY_POLICY,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def index_versions(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[Any]:
        from ragassets.stages.index_versions import seal_index_version

        events = PartitionEvents(context)
        with failing_once(context):
            for version in context.partition_keys:
                report = seal_index_version(
                    workspace.workspace, version, run_context(context, workspace)
                )
                events.log(version, f"{report.state}-{report.content_version}", _shown(report))
        return events.result()

    return index_versions


def _shown(report: "SealReport") -> Metadata:
    quality: Metadata = {"quality": "judged on completeness and soundness alone: no golden queries"}
    if report.quality is not None:
        quality = {
            "n_golden_queries": report.quality.n_queries,
            "ndcg_at_10": report.quality.ndcg_at_10,
            "recall_at_10": report.quality.recall_at_10,
            "mrr_at_10": report.quality.mrr_at_10,
        }
    return {
        "state": report.state,
        metadata.N_DOCUMENTS: report.n_documents,
        metadata.N_CHUNKS: report.n_chunks,
        "n_points": report.n_points,
        metadata.N_FAILED: report.n_failed,
        "problems": "; ".join(report.problems) or "none",
        **quality,
    }
