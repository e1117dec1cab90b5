"""`document_catalog`: one row per document in SQL."""

import dagster as dg

from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.partitions import Partitions
from ragassets.defs.failures import failing_once
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import report_partitions, run_context


def build_document_catalog(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""

    @dg.asset(
        name="document_catalog",
        description="One row per document in SQL: what it is, how far it came, where it is found.",
        group_name="operations",
        kinds={"sql"},
        owners=OWNERS,
        code_version="1",
        partitions_def=partitions.shards,
        deps=[
            dg.AssetDep("unique_documents"),
            dg.AssetDep("dead_letters"),
            dg.AssetDep("indexed_chunks", partition_mapping=partitions.shard_dimension),
        ],
        retry_policy=RETRY_POLICY,
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )
    def document_catalog(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[None]:
        from ragassets.stages.document_catalog import update_document_catalog

        with failing_once(context):
            written = update_document_catalog(
                workspace.workspace, list(context.partition_keys), run_context(context, workspace)
            )
        events = {
            shard: (shard_rows.data_version, shard_rows.n_by_status)
            for shard, shard_rows in written.items()
        }
        return report_partitions(context, events)

    return document_catalog
