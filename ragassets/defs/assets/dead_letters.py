"""`dead_letters`: what every stage gave up on, by source shard."""

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
from ragassets.defs.stage_metadata import table_path

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
        description="Documents and chunks that a stage gave up on, with the reason. A document is"
        " tried again when its bytes or the stage change; `ragassets why URI` tells its story.",
        group_name="operations",
        kinds={"deltalake"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["dead_letters"],
        partitions_def=partitions.shards,
        deps=[
            *(dg.AssetDep(name) for name in DOCUMENT_STAGES),
            *(
                dg.AssetDep(name, partition_mapping=partitions.shard_dimension)
                for name in CHUNK_STAGES
            ),
        ],
        retry_policy=RETRY_POLICY,
        automation_condition=follow_changes(),
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )
    def dead_letters(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[Any]:
        from ragassets.stages.dead_letters import dead_letters_data_version, update_dead_letters

        events = PartitionEvents(context)
        with failing_once(context):
            by_shard = update_dead_letters(workspace.workspace, list(context.partition_keys))
            for shard, letters in by_shard.items():
                rows = letters.rows
                shown = rows.select("uri", "stage", "reason", "message")
                by_reason = rows.group_by("stage", "reason").len("count").sort("stage", "reason")
                events.log(
                    shard,
                    dead_letters_data_version(rows),
                    {
                        metadata.ROW_COUNT: rows.height,
                        metadata.N_DOCUMENTS: rows["document_id"].n_unique(),
                        metadata.N_NEW_DOCUMENTS: letters.n_new_documents,
                        "reasons": metadata.markdown_table(by_reason.to_dicts(), n_rows=20),
                        metadata.TABLE: table_path(workspace, "dead_letters"),
                        metadata.PREVIEW: metadata.markdown_table(
                            shown.head(metadata.PREVIEW_ROWS).to_dicts()
                        ),
                    },
                )
        return events.result()

    return dead_letters
