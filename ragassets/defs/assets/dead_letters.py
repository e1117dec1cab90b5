"""`dead_letters`: what every stage gave up on, by source shard."""

import dagster as dg

from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.partitions import Partitions
from ragassets.defs.failures import failing_once
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import PartitionEvent, report_partitions

DOCUMENT_STAGES = (
    "raw_documents",
    "parsed_documents",
    "valid_documents",
    "clean_documents",
    "unique_documents",
)
CHUNK_STAGES = ("chunks", "embeddings", "indexed_chunks")


def build_dead_letters(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""

    @dg.asset(
        name="dead_letters",
        description="Documents and chunks that a stage gave up on, with the reason.",
        group_name="operations",
        kinds={"deltalake"},
        owners=OWNERS,
        code_version="1",
        partitions_def=partitions.shards,
        deps=[
            *(dg.AssetDep(name) for name in DOCUMENT_STAGES),
            *(
                dg.AssetDep(name, partition_mapping=partitions.shard_dimension)
                for name in CHUNK_STAGES
            ),
        ],
        retry_policy=RETRY_POLICY,
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )
    def dead_letters(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[None]:
        from ragassets.stages.dead_letters import dead_letters_data_version, update_dead_letters

        with failing_once(context):
            by_shard = update_dead_letters(workspace.workspace, list(context.partition_keys))
        events: dict[str, PartitionEvent] = {
            shard: (
                dead_letters_data_version(rows),
                {
                    metadata.ROW_COUNT: rows.height,
                    metadata.PREVIEW: metadata.markdown_table(
                        rows.select("uri", "stage", "reason", "message").head(5).to_dicts()
                    ),
                },
            )
            for shard, rows in by_shard.items()
        }
        return report_partitions(context, events)

    return dead_letters
