"""`valid_documents`: schema, language, quality and safety."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.partitions import Partitions

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_valid_documents(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""
    return build_stage_asset(
        name="valid_documents",
        description="Documents that passed the checks of schema, language, quality and safety; the"
        " others are dead letters.",
        group="ingestion",
        kinds={"python", "deltalake"},
        partitions_def=partitions.shards,
        deps=[dg.AssetDep("parsed_documents")],
        update=_update,
    )


def _update(
    workspace: "Workspace", _: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import VALID_DOCUMENTS
    from ragassets.stages.valid_documents import update_valid_documents

    return VALID_DOCUMENTS, update_valid_documents(workspace, shards, context)
