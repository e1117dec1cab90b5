"""The dead letters of all stages: what a stage gave up on, with the reason.

A failure that is still to be tried again is pending, not dead: `why` and `status` show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
from ragassets.core.tables import PinnedTables, Tables
from ragassets.stages.inputs import good_rows, partitions_of


@dataclass(frozen=True)
class ShardLetters:
    """The dead letters of one shard."""

    rows: pl.DataFrame
    n_new_documents: int
    """Documents with a letter that the table did not hold yet."""


def update_dead_letters(workspace: Workspace, shards: Sequence[str]) -> dict[str, ShardLetters]:
    """Gather the dead letters of some shards and write what changed."""
    tables = PinnedTables(workspace.tables, DEAD_LETTERS)
    before = _by_shard(tables.read(DEAD_LETTERS, partitions_of(shards)))
    after = _by_shard(gather_dead_letters(tables, shards))
    nothing = DEAD_LETTERS.empty_frame()
    pairs = {shard: (before.get(shard, nothing), after.get(shard, nothing)) for shard in shards}
    moved = [shard for shard, (old, new) in pairs.items() if not old.equals(new)]
    if moved:
        rows = pl.concat([pairs[shard][1] for shard in moved])
        tables.replace(tables.snapshot(DEAD_LETTERS), partitions_of(moved), rows)
    return {shard: ShardLetters(new, _n_new(old, new)) for shard, (old, new) in pairs.items()}


def _by_shard(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = rows.sort("dead_letter_id").partition_by(SHARD, as_dict=True, maintain_order=True)
    return {str(shard): part for (shard,), part in parts.items()}


def _n_new(before: pl.DataFrame, after: pl.DataFrame) -> int:
    new = after.join(before, on=["dead_letter_id", "last_failed_at"], how="anti")
    return new["document_id"].n_unique()


def gather_dead_letters(tables: Tables, shards: Sequence[str]) -> pl.DataFrame:
    """Failures that stand for good, from every stage, in the columns of `DEAD_LETTERS`."""
    hashes = good_rows(tables, RAW_DOCUMENTS, shards, ("document_id", "content_hash")).select(
        "document_id", "content_hash"
    )
    letters = [_letters_of(tables, stage, shards) for stage in STAGES]
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


def failures_of(tables: Tables, stage: Stage, shards: Sequence[str]) -> pl.DataFrame:
    """All failure rows of a stage for some shards, under every chunking, set or version."""
    spec = stage.outputs if stage.has_inline_failures else stage.failures
    return tables.read(
        spec,
        [{SHARD: shard} for shard in shards],
        where=pl.col("failed_input_hash").is_not_null(),
    )


def _letters_of(tables: Tables, stage: Stage, shards: Sequence[str]) -> pl.DataFrame:
    dead = ~pl.col("is_transient") | (pl.col("attempts") >= MAX_TRANSIENT_ATTEMPTS)
    failures = failures_of(tables, stage, shards).filter(dead)
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
        pl.col("failed_pipeline_version").alias("pipeline_version"),
    )
