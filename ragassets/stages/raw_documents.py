"""Fetch each object, hash it, keep its bytes in the landing zone."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import Failure, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.inputs import partitions_of

FETCH_THREADS = 8
"""Fetching waits for a disk or a network, not for a core."""

FINGERPRINT = fingerprint({"stage": "raw_documents", "version": STAGE_VERSIONS["raw_documents"]})

Row = dict[str, object]


def update_raw_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `raw_documents` of some shards up to date; a report for each."""
    objects = workspace.tables.read(
        SOURCE_OBJECTS, partitions_of(shards), where=~pl.col("is_deleted")
    )
    inputs = with_input_hash(objects, FINGERPRINT, "uri", "etag")

    def compute(keys: list[str]) -> Iterator[Outcome]:
        wanted = objects.filter(pl.col("document_id").is_in(keys)).sort("document_id")
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            results = pool.map(partial(_fetch, workspace), wanted.iter_rows(named=True))
            yield from outcomes_in_batches(results, RAW_DOCUMENTS, batch_size=256)

    return run_stage(
        RAW_DOCUMENTS,
        partitions_of(shards),
        inputs,
        compute,
        tables=workspace.tables,
        context=context,
    )


def _fetch(workspace: Workspace, row: Row) -> tuple[str, list[Row] | Failure]:
    def fetch(row: Row) -> list[Row]:
        data = workspace.source(str(row["source"])).fetch(str(row["uri"]))
        content_hash = workspace.landing_zone.put(data)
        return [
            row
            | {
                "content_hash": content_hash,
                "size_bytes": len(data),
                "output_hash": stable_hash(content_hash),
            }
        ]

    key = str(row["document_id"])
    return key, attempt(fetch, row, key=key, stage="raw_documents")
