"""Clean text of surviving documents to chunks, under one chunking."""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import CHUNKS, CLEAN_DOCUMENTS, DOCUMENT_IDENTITY, UNIQUE_DOCUMENTS
from ragassets.core.chunk_boundaries import BlockLike
from ragassets.core.chunk_tokens import IntArray, Tokenizer
from ragassets.core.chunking import chunk_document
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import SOURCE_VERSION, Failure
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.settings import ChunkingConfig
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables, Tables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.build_windows import in_chunking_window
from ragassets.stages.dropped_versions import refuse_dropped_alone
from ragassets.stages.inputs import (
    good_rows,
    partitions_of,
    rows_in_batches,
    with_source_input_hash,
)
from ragassets.stages.recorded_settings import record_settings

SHARED = ("title", "language", "document_type")
"""What a chunk has of its document beside its identity and its metadata."""

Row = dict[str, object]


def update_chunks(
    workspace: Workspace, chunking: str, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `chunks` of some shards under one chunking up to date; a report for each.

    Raises:
        ConfigurationError: The chunking was another one when it was built.
        IndexVersionError: Only versions that were dropped need it.
    """
    versions = workspace.config.index_versions.items()
    users = [name for name, version in versions if version.chunking == chunking]
    refuse_dropped_alone(workspace, context, users)
    tables = PinnedTables(workspace.tables, CHUNKS.outputs, CHUNKS.failures)
    documents = chunk_inputs(workspace, chunking, shards, tables)
    inputs = in_chunking_window(workspace, chunking, documents, shards, tables)
    record_settings(workspace, "chunkings", chunking, context)
    return run_stage(
        CHUNKS,
        partitions_of(shards, chunking=chunking),
        inputs,
        lambda keys: chunk_documents(workspace, chunking, keys, shards, tables),
        tables=tables,
        context=context,
    )


def chunk_documents(
    workspace: Workspace, chunking: str, keys: Sequence[str], shards: Sequence[str], tables: Tables
) -> Iterator[Outcome]:
    """Split the clean texts of the given documents, which lie in these shards; nothing is written.

    A plan asks here too, so that it counts what the run will make.
    """
    config = workspace.config
    tokenizer = workspace.tokenizer(chunking)
    rules = {name: chunking_rules(config, chunking, name) for name in config.sources}
    columns = (*DOCUMENT_IDENTITY, "text", "blocks", "metadata", *SHARED)
    for rows in rows_in_batches(tables, CLEAN_DOCUMENTS, keys, shards, columns, batch_size=256):
        # Tokenizing many texts at once uses all cores, and takes longer than all else here.
        offsets = tokenizer.offsets_batch(rows["text"].to_list())
        results = (
            _chunk(row, chunking, rules[row["source"]], tokenizer, found)
            for row, found in zip(rows.iter_rows(named=True), offsets, strict=True)
        )
        yield from outcomes_in_batches(results, CHUNKS, batch_size=256)


def chunk_inputs(
    workspace: Workspace, chunking: str, shards: Sequence[str], tables: Tables
) -> pl.DataFrame:
    """The documents that are chunked, hashed over all that decides their chunks."""
    config, tokenizer = workspace.config, workspace.tokenizer(chunking)
    return with_source_input_hash(
        surviving_documents(tables, shards),
        {
            name: _fingerprint(chunking_rules(config, chunking, name), tokenizer)
            for name in config.sources
        },
        "output_hash",
    )


def surviving_documents(tables: Tables, shards: Sequence[str]) -> pl.DataFrame:
    """Identity, source version and clean `output_hash` of the documents that are no duplicates."""
    unique = good_rows(
        tables,
        UNIQUE_DOCUMENTS,
        shards,
        ("document_id",),
        where=pl.col("duplicate_of").is_null(),
    )
    clean = good_rows(tables, CLEAN_DOCUMENTS, shards, (*DOCUMENT_IDENTITY, SOURCE_VERSION))
    return clean.join(unique.select("document_id"), on="document_id")


def chunking_rules(config: Config, chunking: str, source: str) -> ChunkingConfig:
    """The chunking with what the source's document type overrides."""
    rules = config.chunking(chunking)
    override = config.document_types.get(config.source(source).document_type or "")
    if override is None:
        return rules
    return ChunkingConfig.model_validate(
        rules.model_dump() | override.model_dump(exclude_none=True)
    )


def _fingerprint(rules: ChunkingConfig, tokenizer: Tokenizer) -> str:
    return fingerprint(
        {
            "stage": "chunks",
            "version": STAGE_VERSIONS["chunks"],
            "rules": rules.model_dump(mode="json", exclude={"tokenizer"}),
            "tokenizer": tokenizer.fingerprint,
        }
    )


def _chunk(
    row: Row, chunking: str, rules: ChunkingConfig, tokenizer: Tokenizer, offsets: IntArray
) -> tuple[str, list[Row] | Failure]:
    def chunk(row: Row) -> list[Row]:
        blocks = cast("list[Mapping[str, object]]", row["blocks"])
        made = chunk_document(
            str(row["document_id"]),
            str(row["text"]),
            [cast("BlockLike", SimpleNamespace(**block)) for block in blocks],
            rules,
            tokenizer,
            offsets=offsets,
        )
        shared = {name: row[name] for name in (*DOCUMENT_IDENTITY, *SHARED)}
        # Only where there is any, so that documents without keep their hashes.
        metadata = [str(row["metadata"])] if row["metadata"] is not None else []
        return [
            shared
            | {"metadata": row["metadata"]}
            | {
                "chunk_id": item.chunk_id,
                "chunking": chunking,
                "text": item.text,
                "text_hash": item.text_hash,
                "n_tokens": item.n_tokens,
                "start_char": item.start_char,
                "end_char": item.end_char,
                "page": item.page,
                "headings": list(item.headings),
                "output_hash": stable_hash(
                    item.text_hash,
                    item.page,
                    *map(str, shared.values()),
                    *item.headings,
                    *metadata,
                ),
            }
            for item in made
        ]

    key = str(row["document_id"])
    return key, attempt(chunk, row, key=key, stage="chunks")
