"""Exact and near-duplicate decisions: signatures shard by shard, decisions over the whole corpus.

A document's signature is computed once (`_document_signatures`). The decisions are a pure function
of the signatures of all shards, so they equal a fresh build whatever arrived when; a shard's rows
are written only where they changed.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial

import polars as pl

from ragassets.adapters.workers import map_in_processes
from ragassets.adapters.workspace import Workspace
from ragassets.core.access import duplicate_scope
from ragassets.core.asset_tables import (
    CLEAN_DOCUMENTS,
    DOCUMENT_IDENTITY,
    DOCUMENT_SIGNATURES,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.deduplication import resolve_duplicates, sign_document
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import SOURCE_VERSION, Failure, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.settings import DeduplicationConfig
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.inputs import good_rows, partitions_of, rows_in_batches

Row = dict[str, object]


def update_document_signatures(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `_document_signatures` of some shards up to date; a report for each."""
    tables = PinnedTables(workspace.tables, DOCUMENT_SIGNATURES.outputs)
    config = workspace.config
    clean = good_rows(tables, CLEAN_DOCUMENTS, shards, (*DOCUMENT_IDENTITY, SOURCE_VERSION))
    parameters = config.deduplication.signature_parameters()
    inputs = with_input_hash(
        clean,
        fingerprint(
            {
                "stage": "_document_signatures",
                "version": STAGE_VERSIONS["_document_signatures"],
                "parameters": parameters,
            }
        ),
        "output_hash",
    )

    def compute(keys: list[str]) -> Iterator[Outcome]:
        for rows in rows_in_batches(
            tables, CLEAN_DOCUMENTS, keys, shards, (*DOCUMENT_IDENTITY, "text"), batch_size=1024
        ):
            work = partial(_sign, config.deduplication)
            results = map_in_processes(work, rows.to_dicts(), n_workers=config.workers)
            yield from outcomes_in_batches(results, DOCUMENT_SIGNATURES, batch_size=1024)

    return run_stage(
        DOCUMENT_SIGNATURES,
        partitions_of(shards),
        inputs,
        compute,
        tables=tables,
        context=context,
    )


def _sign(config: DeduplicationConfig, row: Row) -> tuple[str, list[Row] | Failure]:
    def sign(row: Row) -> list[Row]:
        signature = sign_document(str(row["text"]), config)
        return [
            {name: row[name] for name in DOCUMENT_IDENTITY}
            | {
                "text_hash": signature.text_hash,
                "minhash": signature.minhash,
                "n_shingles": signature.n_shingles,
                "output_hash": stable_hash(signature.text_hash, signature.minhash),
            }
        ]

    key = str(row["document_id"])
    return key, attempt(sign, row, key=key, stage="unique_documents")


def update_unique_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `unique_documents` of some shards up to date; a report for each."""
    tables = PinnedTables(workspace.tables, UNIQUE_DOCUMENTS.outputs)
    config = workspace.config
    signatures = good_rows(
        tables,
        DOCUMENT_SIGNATURES,
        config.source_shards(),
        (*DOCUMENT_IDENTITY, "text_hash", "minhash", "n_shingles", SOURCE_VERSION),
    )
    scopes = {
        name: json.dumps(duplicate_scope(tenant=source.tenant, acl=source.acl))
        for name, source in config.sources.items()
    }
    scoped = signatures.with_columns(
        pl.col("source").replace_strict(scopes, return_dtype=pl.String).alias("scope")
    )
    decisions = resolve_duplicates(scoped, config.deduplication).select(
        "document_id", "duplicate_of", "similarity"
    )
    decided = (
        signatures.filter(pl.col("source_shard").is_in(list(shards)))
        .select(*DOCUMENT_IDENTITY, SOURCE_VERSION)
        .join(decisions, on="document_id")
        .with_columns(pl.col("similarity").cast(pl.String).alias("decision"))
    )
    inputs = with_input_hash(
        decided,
        fingerprint({"stage": "unique_documents", "version": STAGE_VERSIONS["unique_documents"]}),
        "duplicate_of",
        "decision",
    )

    def compute(keys: list[str]) -> Iterator[Outcome]:
        rows = decided.filter(pl.col("document_id").is_in(keys))
        hashes = [stable_hash(*row) for row in rows.select("duplicate_of", "decision").iter_rows()]
        yield Outcome(
            rows.select(*DOCUMENT_IDENTITY, "duplicate_of", "similarity").with_columns(
                pl.Series("output_hash", hashes, dtype=pl.String)
            )
        )

    return run_stage(
        UNIQUE_DOCUMENTS,
        partitions_of(shards),
        inputs,
        compute,
        tables=tables,
        context=context,
    )
