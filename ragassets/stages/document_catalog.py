"""One row per document in SQL: what it is, how far it came, where it is searchable."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ragassets.adapters.catalog import CatalogDocument
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    CLEAN_DOCUMENTS,
    INDEXED_CHUNKS,
    PARSED_DOCUMENTS,
    RAW_DOCUMENTS,
    SOURCE_OBJECTS,
    STAGES,
    UNIQUE_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.core.fingerprints import data_version
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import SHARD, RunContext
from ragassets.stages.dead_letters import failures_of
from ragassets.stages.dropped_versions import dropped_names
from ragassets.stages.inputs import good_rows, partitions_of

STAGE_MARKS = (RAW_DOCUMENTS, PARSED_DOCUMENTS, VALID_DOCUMENTS, CLEAN_DOCUMENTS, UNIQUE_DOCUMENTS)
"""Stages of whole documents, in order: the last one with a row says how far a document came."""


@dataclass(frozen=True)
class WrittenShard:
    """What was written for one shard."""

    data_version: str
    n_by_status: dict[str, int]


def update_document_catalog(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, WrittenShard]:
    """Write the catalog rows of some shards."""
    rows = catalog_rows(workspace, shards, context)
    written: dict[str, WrittenShard] = {}
    by_shard: dict[str, list[CatalogDocument]] = {shard: [] for shard in shards}
    for row in rows:
        by_shard[row.source_shard].append(row)
    for shard, of_shard in by_shard.items():
        workspace.catalog.replace_documents(shard, of_shard)
        version = data_version(
            (row.document_id, json.dumps([row.status, row.reason, row.n_chunks, row.content_hash]))
            for row in of_shard
        )
        written[shard] = WrittenShard(version, dict(Counter(row.status for row in of_shard)))
    return written


def catalog_rows(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> list[CatalogDocument]:
    """What the tables say of every living document of some shards."""
    tables = workspace.tables
    alive = tables.read(SOURCE_OBJECTS, partitions_of(shards), where=~pl.col("is_deleted"))
    frame = alive.select("document_id", "source", SHARD, "uri", "etag", "size_bytes", "modified_at")
    for stage, columns in (
        (RAW_DOCUMENTS, ("content_hash",)),
        (PARSED_DOCUMENTS, ("media_type", "parser", "n_pages")),
        (VALID_DOCUMENTS, ()),
        (CLEAN_DOCUMENTS, ("title", "language")),
        (UNIQUE_DOCUMENTS, ("duplicate_of",)),
    ):
        rows = good_rows(tables, stage, shards, ("document_id", *columns))
        marked = rows.select("document_id", *columns, pl.lit(value=True).alias(f"_in_{stage.name}"))
        frame = frame.join(marked, on="document_id", how="left")
    frame = frame.join(_chunk_counts(workspace, shards), on="document_id", how="left")
    frame = frame.join(_index_versions(workspace, shards), on="document_id", how="left")
    frame = frame.join(_first_failures(workspace, shards), on="document_id", how="left")
    return [_row(row, context) for row in frame.sort("document_id").iter_rows(named=True)]


def _chunk_counts(workspace: Workspace, shards: Sequence[str]) -> pl.DataFrame:
    """Chunks and tokens under the chunking of the first index version: the others differ little."""
    versions = workspace.config.index_versions
    dropped = dropped_names(workspace.tables)
    kept = [name for name in versions if name not in dropped]
    first = versions[next(iter(kept or versions))]
    chunks = good_rows(
        workspace.tables, CHUNKS, shards, ("document_id", "n_tokens"), chunking=first.chunking
    )
    return chunks.group_by("document_id").agg(
        pl.len().cast(pl.Int64).alias("n_chunks"), pl.col("n_tokens").sum()
    )


def _index_versions(workspace: Workspace, shards: Sequence[str]) -> pl.DataFrame:
    indexed = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{SHARD: shard} for shard in shards],
        columns=["document_id", "index_version"],
    )
    return indexed.group_by("document_id").agg(
        pl.col("index_version").unique().sort().alias("index_versions")
    )


def _first_failures(workspace: Workspace, shards: Sequence[str]) -> pl.DataFrame:
    """The earliest stage's failure of every document that has one."""
    failures = [
        failures_of(workspace.tables, stage, shards).select(
            "document_id",
            pl.lit(stage.name).alias("failed_stage"),
            "error_reason",
            "is_transient",
            "attempts",
        )
        for stage in STAGES
    ]
    return pl.concat(failures).unique("document_id", keep="first", maintain_order=True)


def _row(row: dict[str, Any], context: RunContext) -> CatalogDocument:
    stages = [stage.name for stage in STAGE_MARKS if row[f"_in_{stage.name}"]]
    if row["n_chunks"]:
        stages.append("chunks")
    if row["index_versions"]:
        stages.append("indexed_chunks")
    return CatalogDocument(
        document_id=row["document_id"],
        source=row["source"],
        source_shard=row[SHARD],
        uri=row["uri"],
        title=row["title"],
        media_type=row["media_type"],
        size_bytes=row["size_bytes"],
        content_hash=row["content_hash"],
        etag=row["etag"],
        modified_at=row["modified_at"],
        language=row["language"],
        parser=row["parser"],
        n_pages=row["n_pages"],
        status=_status(row),
        stage=row["failed_stage"] or (stages[-1] if stages else None),
        reason=row["error_reason"],
        duplicate_of=row["duplicate_of"],
        n_chunks=row["n_chunks"] or 0,
        n_tokens=row["n_tokens"] or 0,
        index_versions=tuple(row["index_versions"] or ()),
        updated_at=context.now(),
        run_id=context.run_id,
    )


def _status(row: dict[str, Any]) -> Any:
    if row["index_versions"]:
        return "searchable"
    if row["duplicate_of"]:
        return "duplicate"
    is_dead = row["failed_stage"] and (
        not row["is_transient"] or row["attempts"] >= MAX_TRANSIENT_ATTEMPTS
    )
    return "dead_letter" if is_dead else "pending"
