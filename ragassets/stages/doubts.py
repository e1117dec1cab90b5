"""Makes the ordinary stages do again what an audit found to be wrong; mends nothing itself.

A row is doubted by taking the hash of its input away: the engine then takes it for changed,
computes it anew, and keeps what is there until the replacement is. A point is doubted by naming
it among the points that a run is about to write: the next run writes it again where it is wanted,
and deletes it where no row has it. Both are what a run that was killed leaves behind, so whatever
happens to a repair, the next ingestion finishes it.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import INDEX_INTENTS, RAW_DOCUMENTS
from ragassets.core.incremental import DOUBTED
from ragassets.core.stages import Stage
from ragassets.stages.indexed_chunks import add_intents, settle_intents
from ragassets.stages.inputs import partitions_of


def doubt_rows(workspace: Workspace, stage: Stage, where: pl.Expr) -> int:
    """Have these output rows computed again; how many. They stay until their successors are there.

    Raises:
        ConcurrentWriteError: A run changed the same partitions meanwhile.
    """
    spec = stage.outputs
    snapshot = workspace.tables.snapshot(spec)
    is_doubted = where & pl.col("output_hash").is_not_null()
    places = workspace.tables.read_at(snapshot, columns=list(spec.partition_by), where=is_doubted)
    partitions = places.unique().to_dicts()
    if partitions:
        rows = workspace.tables.read_at(snapshot, partitions).with_columns(
            pl.when(is_doubted)
            .then(pl.lit(DOUBTED))
            .otherwise(pl.col("input_hash"))
            .alias("input_hash")
        )
        workspace.tables.replace(snapshot, partitions, rows)
    return places.height


def doubt_failures(workspace: Workspace, stage: Stage, where: pl.Expr) -> int:
    """Have these failures of a stage tried again, from the first attempt on; how many.

    Raises:
        ConcurrentWriteError: A run changed the same partitions meanwhile.
    """
    spec = stage.outputs if stage.has_inline_failures else stage.failures
    snapshot = workspace.tables.snapshot(spec)
    is_meant = where & pl.col("failed_input_hash").is_not_null()
    places = workspace.tables.read_at(snapshot, columns=list(spec.partition_by), where=is_meant)
    partitions = places.unique().to_dicts()
    if partitions:
        rows = workspace.tables.read_at(snapshot, partitions).with_columns(
            pl.when(is_meant).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
            # 1, so that what asks for due retries asks for it.
            for name, value in (("failed_input_hash", DOUBTED), ("attempts", 1))
        )
        workspace.tables.replace(snapshot, partitions, rows)
    return places.height


def doubt_points(workspace: Workspace, index_version: str, points: Mapping[str, str]) -> None:
    """Have these points written again, or deleted where no row has them.

    Args:
        workspace: Where to record it.
        index_version: Whose points they are.
        points: Point id to source shard; where nobody knows it, an empty one.
    """
    shards = workspace.config.source_shards()
    placed = {name: shard or shards[0] for name, shard in points.items()}
    homes = sorted(set(placed.values()))
    with workspace.index_writer(index_version):
        add_intents(workspace, index_version, homes, placed)


def clear_left_over_version(workspace: Workspace, index_version: str) -> None:
    """Delete the doubted points of a version that is not configured: no run would do it."""
    intents = workspace.tables.read(INDEX_INTENTS, [{"index_version": index_version}])
    shards: Sequence[str] = intents["source_shard"].unique().sort().to_list()
    with workspace.index_writer(index_version) as store:
        if index_version in store.list_collections():
            settle_intents(workspace, store, index_version, shards)
            return
    snapshot = workspace.tables.snapshot(INDEX_INTENTS)
    partitions = partitions_of(shards, index_version=index_version)
    if partitions:
        workspace.tables.replace(snapshot, partitions, INDEX_INTENTS.empty_frame())


def doubt_raw_bytes(workspace: Workspace, content_hashes: Sequence[str]) -> None:
    """Have these bytes fetched again; damaged ones are removed, else nobody would replace them.

    The rows go first: killed in between, the damaged bytes are found again.
    """
    doubt_rows(workspace, RAW_DOCUMENTS, pl.col("content_hash").is_in(list(content_hashes)))
    for content_hash in content_hashes:
        if not workspace.landing_zone.holds(content_hash):
            workspace.landing_zone.delete(content_hash)
