"""`raw_documents`: each object fetched, hashed and kept in the landing zone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.partitions import Partitions

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_raw_documents(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""
    return build_stage_asset(
        name="raw_documents",
        description="Each object of the source, fetched, hashed and kept in the landing zone.",
        group="ingestion",
        kinds={"deltalake"},
        partitions_def=partitions.shards,
        deps=[dg.AssetDep("source_objects")],
        update=_update,
    )


def _update(
    workspace: "Workspace", _: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import RAW_DOCUMENTS
    from ragassets.stages.raw_documents import update_raw_documents

    return RAW_DOCUMENTS, update_raw_documents(workspace, shards, context)
