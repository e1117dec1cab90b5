"""`document_catalog`: one row per document in SQL."""

from typing import Any

import dagster as dg

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.automation import follow_changes
from ragassets.defs.events import PartitionEvents
from ragassets.defs.failures import failing_once
from ragassets.defs.partitions import Partitions
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import run_context


def build_document_catalog(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""

    @dg.asset(
        name="document_catalog",
        description="One row per document in SQL: what it is, how far it came, where it is found.",
        group_name="operations",
        kinds={"sql"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["document_catalog"],
        partitions_def=partitions.shards,
        deps=[
            dg.AssetDep("unique_documents"),
            dg.AssetDep("dead_letters"),
            dg.AssetDep("indexed_chunks", partition_mapping=partitions.shard_dimension),
        ],
        retry_policy=RETRY_POLICY,
        automation_condition=follow_changes(),
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )
    def document_catalog(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[Any]:
        from ragassets.stages.document_catalog import update_document_catalog

        events = PartitionEvents(context)
        with failing_once(context):
            written = update_document_catalog(
                workspace.workspace, list(context.partition_keys), run_context(context, workspace)
            )
            for shard, rows in written.items():
                events.log(
                    shard,
                    rows.data_version,
                    {
                        metadata.N_DOCUMENTS: sum(rows.n_by_status.values()),
                        **{f"n_{status}": n for status, n in sorted(rows.n_by_status.items())},
                    },
                )
        return events.result()

    return document_catalog
