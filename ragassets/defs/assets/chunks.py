"""`chunks`: spans of surviving documents under each chunking."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.config import Config
from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.automation import keep_versions_current
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import CHUNKING, Partitions
from ragassets.defs.version_keys import VersionKeys

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_chunks(partitions: Partitions, keys: VersionKeys) -> dg.AssetsDefinition:
    """The asset, one partition a source shard and chunking."""
    return build_stage_asset(
        name="chunks",
        description="Chunks of the surviving documents under one chunking, with their place in the"
        " clean text. A new chunking parses nothing again.",
        group="ingestion",
        kinds={"python", "deltalake"},
        partitions_def=partitions.chunks,
        deps=[
            dg.AssetDep("unique_documents", partition_mapping=partitions.shard_dimension),
            dg.AssetDep("clean_documents", partition_mapping=partitions.shard_dimension),
        ],
        update=_update,
        dimension=CHUNKING,
        automation_condition=keep_versions_current(keys),
        settings=_settings,
        backfill_policy=dg.BackfillPolicy.multi_run(16),
    )


def _settings(config: Config, chunking: str) -> Metadata:
    rules = config.chunking(chunking)
    return {
        "strategy": rules.strategy,
        "max_tokens": rules.max_tokens,
        "overlap_tokens": rules.overlap_tokens,
    }


def _update(
    workspace: "Workspace", chunking: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import CHUNKS
    from ragassets.stages.chunks import update_chunks

    return CHUNKS, update_chunks(workspace, chunking, shards, context)
