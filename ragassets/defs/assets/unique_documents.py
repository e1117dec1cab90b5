"""`unique_documents`: exact and near-duplicate decisions over the whole corpus."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.automation import follow_changes_of_any
from ragassets.defs.partitions import Partitions

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_unique_documents(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""
    return build_stage_asset(
        name="unique_documents",
        description="Which documents survive and which repeat a survivor, decided over all shards"
        " at once. A duplicate whose survivor goes away takes its place.",
        group="ingestion",
        kinds={"python", "deltalake"},
        partitions_def=partitions.shards,
        deps=[
            dg.AssetDep("clean_documents"),
            dg.AssetDep("_document_signatures", partition_mapping=dg.AllPartitionMapping()),
        ],
        update=_update,
        automation_condition=follow_changes_of_any(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        # One look at all signatures decides for all shards.
        shards_at_once=None,
    )


def _update(
    workspace: "Workspace", _: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import UNIQUE_DOCUMENTS
    from ragassets.stages.unique_documents import update_unique_documents

    return UNIQUE_DOCUMENTS, update_unique_documents(workspace, shards, context)
