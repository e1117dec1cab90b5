"""`embeddings`: vectors of chunks under each embedding set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.config import Config
from ragassets.defs.assets.stage_asset import build_stage_asset
from ragassets.defs.automation import keep_versions_current
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import EMBEDDING_SET, Partitions
from ragassets.defs.version_keys import VersionKeys

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport


def build_embeddings(partitions: Partitions, keys: VersionKeys) -> dg.AssetsDefinition:
    """The asset, one partition a source shard and embedding set."""
    return build_stage_asset(
        name="embeddings",
        description="One vector a chunk under one embedding model. A text that was embedded before"
        " is not embedded again.",
        group="embedding",
        kinds={"python", "huggingface", "deltalake"},
        partitions_def=partitions.embeddings,
        deps=[dg.AssetDep("chunks", partition_mapping=partitions.chunks_to_embeddings)],
        update=_update,
        dimension=EMBEDDING_SET,
        automation_condition=keep_versions_current(keys),
        settings=_settings,
        pool="embedding",
        # A model loads in seconds: many partitions a run, so that it loads once.
        backfill_policy=dg.BackfillPolicy.multi_run(64),
    )


def _settings(config: Config, embedding_set: str) -> Metadata:
    chunking, name = config.embedding_sets()[embedding_set]
    model = config.embedding_model(name)
    return {
        "chunking": chunking,
        "provider": model.provider,
        "model": model.model,
        "revision": model.revision or "none given",
        "dim": model.dim,
    }


def _update(
    workspace: "Workspace", embedding_set: str, shards: Sequence[str], context: "RunContext"
) -> "tuple[Stage, Mapping[str, StageReport]]":
    from ragassets.core.asset_tables import EMBEDDINGS
    from ragassets.stages.embeddings import update_embeddings

    return EMBEDDINGS, update_embeddings(workspace, embedding_set, shards, context)
