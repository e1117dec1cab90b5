"""`parsed_documents`: bytes to titles, paragraphs, list items and tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.partitions import Partitions

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_parsed_documents(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""
    return build_stage_asset(
        name="parsed_documents",
        description="Titles, paragraphs, list items and tables of each document, with the parser"
        " that read them.",
        group="ingestion",
        kinds={"python", "deltalake"},
        partitions_def=partitions.shards,
        deps=[dg.AssetDep("raw_documents")],
        update=_update,
    )


def _update(
    workspace: "Workspace", _: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import PARSED_DOCUMENTS
    from ragassets.stages.parsed_documents import update_parsed_documents

    return PARSED_DOCUMENTS, update_parsed_documents(workspace, shards, context)
