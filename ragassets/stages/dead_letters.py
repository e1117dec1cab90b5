"""The dead letters of all stages: what a stage gave up on, with the reason.

A failure that is still to be tried again is pending, not dead: `why` and `status` show it.
"""

from collections.abc import Sequence

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    DEAD_LETTERS,
    DOCUMENT_SIGNATURES,
    RAW_DOCUMENTS,
    STAGES,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.fingerprints import data_version, stable_hash
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import SHARD, Stage
from ragassets.stages.inputs import good_rows, partitions_of


def update_dead_letters(workspace: Workspace, shards: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Gather the dead letters of some shards and write what changed; the rows of each shard."""
    snapshot = workspace.tables.snapshot(DEAD_LETTERS)
    before = workspace.tables.read_at(snapshot, partitions_of(shards))
    after = gather_dead_letters(workspace, shards)
    moved = [
        shard for shard in shards if not _of_shard(before, shard).equals(_of_shard(after, shard))
    ]
    if moved:
        rows = after.filter(pl.col(SHARD).is_in(moved))
        workspace.tables.replace(snapshot, partitions_of(moved), rows)
    return {shard: _of_shard(after, shard) for shard in shards}


def gather_dead_letters(workspace: Workspace, shards: Sequence[str]) -> pl.DataFrame:
    """Failures that stand for good, from every stage, in the columns of `DEAD_LETTERS`."""
    hashes = good_rows(
        workspace.tables, RAW_DOCUMENTS, shards, ("document_id", "content_hash")
    ).select("document_id", "content_hash")
    letters = [_letters_of(workspace, stage, shards) for stage in STAGES]
    return (
        pl.concat(letters)
        .join(hashes, on="document_id", how="left")
        .select(DEAD_LETTERS.schema.names())
        .sort("dead_letter_id")
    )


def dead_letters_data_version(rows: pl.DataFrame) -> str:
    """Hash of a shard's dead letters: which ones, with which outcome."""
    return data_version(
        (str(name), f"{reason} {attempts}")
        for name, reason, attempts in rows.select(
            "dead_letter_id", "reason", "attempts"
        ).iter_rows()
    )


def failures_of(workspace: Workspace, stage: Stage, shards: Sequence[str]) -> pl.DataFrame:
    """All failure rows of a stage for some shards, under every chunking, set or version."""
    spec = stage.outputs if stage.has_inline_failures else stage.failures
    return workspace.tables.read(
        spec,
        [{SHARD: shard} for shard in shards],
        where=pl.col("failed_input_hash").is_not_null(),
    )


def _letters_of(workspace: Workspace, stage: Stage, shards: Sequence[str]) -> pl.DataFrame:
    dead = ~pl.col("is_transient") | (pl.col("attempts") >= MAX_TRANSIENT_ATTEMPTS)
    failures = failures_of(workspace, stage, shards).filter(dead)
    # A signature is half of a duplicate decision; users know the public stage.
    name = UNIQUE_DOCUMENTS.name if stage is DOCUMENT_SIGNATURES else stage.name
    dimensions = [column for column in stage.partition_by if column != SHARD]
    ids = [stable_hash(name, *key) for key in failures.select(*dimensions, stage.key).iter_rows()]
    chunk_id = pl.col("chunk_id") if stage.key == "chunk_id" else pl.lit(None, dtype=pl.String)
    return failures.select(
        pl.Series("dead_letter_id", ids, dtype=pl.String),
        "document_id",
        "uri",
        "source",
        SHARD,
        chunk_id.alias("chunk_id"),
        pl.lit(name).alias("stage"),
        pl.col("error_category").alias("category"),
        pl.col("error_reason").alias("reason"),
        "error_type",
        pl.col("error_message").alias("message"),
        "stack_trace",
        "is_transient",
        "attempts",
        "first_failed_at",
        "last_failed_at",
        pl.col("failed_run_id").alias("run_id"),
    )


def _of_shard(rows: pl.DataFrame, shard: str) -> pl.DataFrame:
    return rows.filter(pl.col(SHARD) == shard).sort("dead_letter_id")
