"""`indexed_chunks`: the points of each index version's collection."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.config import Config
from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.automation import keep_versions_current
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import INDEX_VERSION, Partitions
from ragassets.defs.version_keys import VersionKeys

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_indexed_chunks(partitions: Partitions, keys: VersionKeys) -> dg.AssetsDefinition:
    """The asset, one partition a source shard and index version."""
    return build_stage_asset(
        name="indexed_chunks",
        description="Points of one index version's collection: written, verified, then the old ones"
        " deleted. A rebuilt collection embeds nothing again.",
        group="indexing",
        kinds={"qdrant", "deltalake"},
        partitions_def=partitions.indexed_chunks,
        deps=[dg.AssetDep("embeddings", partition_mapping=partitions.embeddings_to_indexed_chunks)],
        update=_update,
        dimension=INDEX_VERSION,
        automation_condition=keep_versions_current(keys),
        settings=_settings,
        pool="vector_store",
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )


def _settings(config: Config, index_version: str) -> Metadata:
    version = config.index_version(index_version)
    return {
        "embedding_set": version.embedding_set,
        "distance": version.distance,
        "sparse": version.sparse or "none",
        "quantization": version.quantization,
    }


def _update(
    workspace: "Workspace", index_version: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import INDEXED_CHUNKS
    from ragassets.stages.dropping import begin_anew
    from ragassets.stages.indexed_chunks import update_indexed_chunks

    if context.is_requested:
        begin_anew(workspace, index_version, context)
    return INDEXED_CHUNKS, update_indexed_chunks(workspace, index_version, shards, context)
