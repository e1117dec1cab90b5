"""Rows and points of shards that the configuration no longer has.

Shards retire when a source gets fewer of them, or leaves the configuration. No partition covers
them any more, so no stage would ever touch their rows again. They go when an index version is
sealed, a document at a time and only what that version is made of: a document that moved goes from
its old shard once it is settled in its new one, so that it is searchable all the while.

A source that left the configuration is treated like a listing that removes everything: its
documents stay, and stay searchable, until that is confirmed. Confirming turns them into tombstones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    DEAD_LETTERS,
    EMBEDDINGS,
    INDEX_INTENTS,
    INDEXED_CHUNKS,
    SOURCE_OBJECTS,
    STAGES,
    STREAM_POSITIONS,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import SHARD, RunContext, Stage
from ragassets.core.tables import TableSpec
from ragassets.stages.document_catalog import update_document_catalog
from ragassets.stages.indexed_chunks import add_intents, settle_intents
from ragassets.stages.inputs import partitions_of
from ragassets.stages.source_troubles import end_trouble


@dataclass(frozen=True)
class _Part:
    """The rows of one table that one index version is made of."""

    spec: TableSpec
    dimensions: Mapping[str, str]


def retire_shards(workspace: Workspace, index_version: str, context: RunContext) -> int:
    """Remove what an index version no longer needs of shards that are not configured.

    Killed anywhere, the next call finishes: the rows of `raw_documents`, which tell it of a shard,
    go last.

    Args:
        workspace: Where to read and write.
        index_version: The version whose chunks, vectors and points are looked at.
        context: Run id and clock.

    Returns:
        How many rows were removed.
    """
    parts = _parts(workspace, index_version)
    shards = _retired_shards(workspace, index_version, parts)
    if not shards:
        return 0
    kept = _documents_to_keep(workspace, index_version)
    n_removed = _retire_points(workspace, index_version, shards, kept)
    *others, raw = parts
    n_removed += sum(_drop_rows(workspace, part, shards, kept) for part in others)
    update_document_catalog(workspace, shards, context)
    return n_removed + _drop_rows(workspace, raw, shards, kept)


def removed_sources(workspace: Workspace) -> dict[str, int]:
    """Sources that left the configuration, with the documents that are kept of each."""
    configured = list(workspace.config.sources)
    rows = workspace.tables.read(
        SOURCE_OBJECTS,
        columns=["source"],
        where=~pl.col("is_deleted") & ~pl.col("source").is_in(configured),
    )
    return dict(rows.group_by("source").len().sort("source").iter_rows())


def describe_removed_source(name: str, n_documents: int) -> str:
    """What a person needs to know of a source that left the configuration."""
    return (
        f"source {name!r} is no longer configured; its {n_documents} documents are kept and stay"
        f" searchable. If they are to go, run `ragassets ingest {name} --confirm-deletions`"
    )


def forget_source(workspace: Workspace, name: str, now: datetime) -> int:
    """Turn the documents of a source that left the configuration into tombstones; how many.

    A stream that comes back is read from its beginning.
    """
    positions = workspace.tables.snapshot(STREAM_POSITIONS)
    if positions.version is not None:
        empty = STREAM_POSITIONS.empty_frame()
        workspace.tables.replace(positions, [{"source": name}], empty)
    end_trouble(workspace, name)
    snapshot = workspace.tables.snapshot(SOURCE_OBJECTS)
    rows = workspace.tables.read_at(snapshot, where=pl.col("source") == name)
    alive = rows.filter(~pl.col("is_deleted"))
    if alive.is_empty():
        return 0
    touched = sorted(set(alive[SHARD]))
    is_alive = ~pl.col("is_deleted")
    changed = rows.filter(pl.col(SHARD).is_in(touched)).with_columns(
        pl.when(is_alive).then(pl.lit(now)).otherwise("changed_at").alias("changed_at"),
        pl.lit(value=True).alias("is_deleted"),
    )
    workspace.tables.replace(snapshot, partitions_of(touched), changed)
    return alive.height


def _parts(workspace: Workspace, index_version: str) -> list[_Part]:
    """From the last table to the first: `raw_documents`, which tells of a shard, is at the end."""
    parts = [_Part(DEAD_LETTERS, {})]
    for stage in reversed(STAGES):
        dimensions = _dimensions(workspace, stage, index_version)
        if not stage.has_inline_failures:
            parts.append(_Part(stage.failures, dimensions))
        if stage is not INDEXED_CHUNKS:
            parts.append(_Part(stage.outputs, dimensions))
    return parts


def _dimensions(workspace: Workspace, stage: Stage, index_version: str) -> dict[str, str]:
    """The key of a stage's second dimension that belongs to an index version."""
    version = workspace.config.index_version(index_version)
    return {
        CHUNKS.name: {"chunking": version.chunking},
        EMBEDDINGS.name: {"embedding_set": version.embedding_set},
        INDEXED_CHUNKS.name: {"index_version": index_version},
    }.get(stage.name, {})


def _retired_shards(workspace: Workspace, index_version: str, parts: list[_Part]) -> list[str]:
    """Shards that are not configured and still have rows or intents."""
    configured = workspace.config.source_shards()
    of_version = _dimensions(workspace, INDEXED_CHUNKS, index_version)
    looked_at = [
        *parts,
        _Part(INDEXED_CHUNKS.outputs, of_version),
        _Part(INDEX_INTENTS, of_version),
    ]
    found: set[str] = set()
    for part in looked_at:
        rows = workspace.tables.read(
            part.spec,
            [part.dimensions] if part.dimensions else None,
            columns=[SHARD],
            where=~pl.col(SHARD).is_in(configured),
        )
        found.update(rows[SHARD])
    return sorted(found)


def _documents_to_keep(workspace: Workspace, index_version: str) -> list[str]:
    """Documents whose rows in retired shards are still needed.

    Those are the documents of a removed source until that is confirmed, and documents that are not
    settled in their new shard: not indexed, no duplicate, not given up on; or a retry is due.
    """
    configured = workspace.config.source_shards()
    objects = workspace.tables.read(
        SOURCE_OBJECTS, columns=["document_id", SHARD], where=~pl.col("is_deleted")
    )
    is_home_configured = pl.col(SHARD).is_in(configured)
    waiting, dead = _failed_documents(workspace, index_version)
    settled = (_searchable(workspace, index_version) | _duplicates(workspace) | dead) - waiting
    unsettled = objects.filter(~is_home_configured | ~pl.col("document_id").is_in(sorted(settled)))
    return unsettled["document_id"].to_list()


def _failed_documents(workspace: Workspace, index_version: str) -> tuple[set[str], set[str]]:
    """Documents with a failure in a configured shard: to be tried again, and given up on."""
    waiting: set[str] = set()
    dead: set[str] = set()
    for stage in STAGES:
        dimensions = _dimensions(workspace, stage, index_version)
        rows = workspace.tables.read(
            stage.outputs if stage.has_inline_failures else stage.failures,
            partitions_of(workspace.config.source_shards(), **dimensions),
            columns=["document_id", "is_transient", "attempts"],
            where=pl.col("failed_input_hash").is_not_null(),
        )
        is_waiting = pl.col("is_transient") & (pl.col("attempts") < MAX_TRANSIENT_ATTEMPTS)
        waiting.update(rows.filter(is_waiting)["document_id"])
        dead.update(rows.filter(~is_waiting)["document_id"])
    return waiting, dead


def _searchable(workspace: Workspace, index_version: str) -> set[str]:
    shards = workspace.config.source_shards()
    rows = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        partitions_of(shards, index_version=index_version),
        columns=["document_id"],
    )
    return set(rows["document_id"])


def _duplicates(workspace: Workspace) -> set[str]:
    rows = workspace.tables.read(
        UNIQUE_DOCUMENTS.outputs,
        partitions_of(workspace.config.source_shards()),
        columns=["document_id"],
        where=pl.col("duplicate_of").is_not_null(),
    )
    return set(rows["document_id"])


def _retire_points(
    workspace: Workspace, index_version: str, shards: list[str], kept: list[str]
) -> int:
    """Drop rows of `indexed_chunks`, then delete those of their points that no other row has."""
    partitions = partitions_of(shards, index_version=index_version)
    with workspace.index_writer(index_version) as store:
        rows = workspace.tables.read(
            INDEXED_CHUNKS.outputs,
            partitions,
            columns=["point_id", SHARD],
            where=~pl.col("document_id").is_in(kept),
        )
        if rows.height:
            add_intents(workspace, index_version, shards, dict(rows.iter_rows()))
        part = _Part(INDEXED_CHUNKS.outputs, {"index_version": index_version})
        n_removed = _drop_rows(workspace, part, shards, kept)
        settle_intents(workspace, store, index_version, shards)
    return n_removed


def _drop_rows(workspace: Workspace, part: _Part, shards: list[str], kept: list[str]) -> int:
    """Drop the rows of the other documents; how many."""
    snapshot = workspace.tables.snapshot(part.spec)
    rows = workspace.tables.read_at(snapshot, partitions_of(shards, **part.dimensions))
    staying = rows.filter(pl.col("document_id").is_in(kept))
    if staying.height < rows.height:
        touched = partitions_of(sorted(set(rows[SHARD])), **part.dimensions)
        workspace.tables.replace(snapshot, touched, staying)
    return rows.height - staying.height
