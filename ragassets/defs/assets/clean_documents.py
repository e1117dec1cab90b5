"""`clean_documents`: noise removed, Unicode repaired, personal data redacted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.partitions import Partitions

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_clean_documents(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""
    return build_stage_asset(
        name="clean_documents",
        description="Clean text with its blocks: noise removed, Unicode repaired, personal data"
        " redacted where asked.",
        group="ingestion",
        kinds={"python", "deltalake"},
        partitions_def=partitions.shards,
        deps=[dg.AssetDep("valid_documents"), dg.AssetDep("parsed_documents")],
        update=_update,
    )


def _update(
    workspace: "Workspace", _: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import CLEAN_DOCUMENTS
    from ragassets.stages.clean_documents import update_clean_documents

    return CLEAN_DOCUMENTS, update_clean_documents(workspace, shards, context)
