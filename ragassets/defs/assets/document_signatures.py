"""`_document_signatures`: what duplicate decisions compare, one signature a document."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.partitions import Partitions

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_document_signatures(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset, one partition a source shard."""
    return build_stage_asset(
        name="_document_signatures",
        description="MinHash signature of each clean text, computed once: what `unique_documents`"
        " compares.",
        group="ingestion",
        kinds={"python", "deltalake"},
        partitions_def=partitions.shards,
        deps=[dg.AssetDep("clean_documents")],
        update=_update,
    )


def _update(
    workspace: "Workspace", _: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import DOCUMENT_SIGNATURES
    from ragassets.stages.unique_documents import update_document_signatures

    return DOCUMENT_SIGNATURES, update_document_signatures(workspace, shards, context)
