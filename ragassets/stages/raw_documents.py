"""Fetch each object, hash it, keep its bytes in the landing zone."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import PARSED_DOCUMENTS, RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.core.fingerprints import content_hash, data_version, fingerprint, stable_hash
from ragassets.core.incremental import DOUBTED, SOURCE_VERSION, Failure, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.sources import fetch_version
from ragassets.core.stages import SHARD, Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables, Tables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.errors import MissingRawBytesError, ObjectGoneError, SourceUnavailableError
from ragassets.stages.inputs import good_rows, partitions_of
from ragassets.stages.source_witness import SourceWitness, listed_object, open_witness

FETCH_THREADS = 8
"""Fetching waits for a disk or a network, not for a core."""

FINGERPRINT = fingerprint({"stage": "raw_documents", "version": STAGE_VERSIONS["raw_documents"]})

_BARE_ETAG = pl.col("etag").str.strip_chars('"')
"""What a source without versions has instead of a version id."""

Row = dict[str, object]


def update_raw_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `raw_documents` of some shards up to date; a report for each."""
    tables = PinnedTables(workspace.tables, RAW_DOCUMENTS.outputs)
    _restore_lost_bytes(workspace, tables, shards)
    objects = tables.read(SOURCE_OBJECTS, partitions_of(shards), where=~pl.col("is_deleted"))
    inputs = _with_hash(objects.with_columns(_BARE_ETAG.alias(SOURCE_VERSION)))

    def compute(keys: list[str]) -> Iterator[Outcome]:
        wanted = objects.filter(pl.col("document_id").is_in(keys)).sort("document_id")
        witnesses = {
            str(name): open_witness(workspace, str(name), tables)
            for name in wanted["source"].unique()
        }
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            results = pool.map(partial(_fetch, workspace, witnesses), wanted.iter_rows(named=True))
            yield from outcomes_in_batches(results, RAW_DOCUMENTS, batch_size=256)

    return run_stage(
        RAW_DOCUMENTS,
        partitions_of(shards),
        inputs,
        compute,
        tables=tables,
        context=context,
    )


def shards_behind(workspace: Workspace, shards: Sequence[str]) -> dict[str, str]:
    """Shards whose `raw_documents` are not what their source holds, to a hash of what that is.

    What failed on the state of now does not count: it is tried again when it is due.
    """
    tables, partitions = workspace.tables, partitions_of(shards)
    known = tables.read(
        SOURCE_OBJECTS,
        partitions,
        columns=["document_id", SHARD, "uri", "etag", "is_deleted", "changed_at"],
    )
    wanted = _with_hash(known.filter(~pl.col("is_deleted")))
    places = ["document_id", SHARD, "input_hash"]
    columns = [*places, "failed_input_hash", "run_id"]
    rows = tables.read(RAW_DOCUMENTS.outputs, partitions, columns=columns)
    failed = rows.drop("input_hash").rename({"failed_input_hash": "input_hash"})
    settled = pl.concat([rows.select(places), failed.select(places)])
    missing = wanted.join(settled, on=places, how="anti")
    superfluous = rows.join(wanted, on=["document_id", SHARD], how="anti")
    doubted = rows.filter(pl.col("input_hash") == DOUBTED)
    behind = {str(shard) for frame in (missing, superfluous) for shard in frame[SHARD].unique()}
    states = _by_shard(known.filter(pl.col(SHARD).is_in(sorted(behind))), "etag", "changed_at")
    doubts = _by_shard(doubted, "run_id")
    return {
        # With the time and the run: a state that comes back, and a new doubt, are new reasons.
        shard: data_version(
            [
                *(
                    (name, f"{etag} {changed_at}")
                    for name, etag, changed_at in states.get(shard, ())
                ),
                *doubts.get(shard, ()),
            ]
        )
        for shard in sorted(behind)
    }


def state_of_shards(workspace: Workspace, shards: Sequence[str]) -> str:
    """Changes with every commit that may change what `shards_behind` says; costs two small reads.

    To be asked before `shards_behind`, so that what is committed in between counts as new.
    """
    versions = [
        workspace.tables.snapshot(spec).version for spec in (SOURCE_OBJECTS, RAW_DOCUMENTS.outputs)
    ]
    return stable_hash(FINGERPRINT, *versions, *shards)


def _by_shard(rows: pl.DataFrame, *columns: str) -> dict[str, list[tuple[Any, ...]]]:
    """Id and these columns of every row, by its shard."""
    parts = rows.select(SHARD, "document_id", *columns).partition_by(
        SHARD, as_dict=True, include_key=False
    )
    return {str(shard): part.rows() for (shard,), part in parts.items()}


def _with_hash(objects: pl.DataFrame) -> pl.DataFrame:
    return with_input_hash(objects, FINGERPRINT, "uri", "etag")


def _fetch(
    workspace: Workspace, witnesses: Mapping[str, SourceWitness], row: Row
) -> tuple[str, list[Row] | Failure]:
    source = str(row["source"])
    is_outage = False

    def fetch(row: Row) -> list[Row]:
        nonlocal is_outage
        wanted = listed_object(row)
        try:
            fetched = fetch_version(workspace.source(source), wanted)
        except ObjectGoneError:
            raise
        except SourceUnavailableError:
            is_outage = witnesses[source].is_down()
            raise
        witnesses[source].note_success(wanted)
        landed = workspace.landing_zone.put(fetched.data)
        return [
            row
            | {
                "content_hash": landed,
                "size_bytes": len(fetched.data),
                "output_hash": stable_hash(landed),
                "version_id": fetched.version_id or None,
                SOURCE_VERSION: fetched.version_id or None,
            }
        ]

    key = str(row["document_id"])
    result = attempt(fetch, row, key=key, stage="raw_documents")
    if isinstance(result, Failure) and is_outage:
        # A source that is down for all looked at none of them.
        result = dataclasses.replace(result, n_attempts=0)
    return key, result


def _restore_lost_bytes(workspace: Workspace, tables: Tables, shards: Sequence[str]) -> None:
    """Fetch again what the landing zone has lost or damaged, as parsing found out.

    The rows stay as they are: the same bytes lie under the same name again. Where the source cannot
    give them, parsing says so again.
    """
    lost = tables.read(
        PARSED_DOCUMENTS.outputs,
        partitions_of(shards),
        columns=["document_id"],
        where=pl.col("error_reason") == MissingRawBytesError.reason,
    )
    if lost.is_empty():
        return
    is_lost = pl.col("document_id").is_in(lost["document_id"].to_list())
    columns = (
        "document_id",
        "uri",
        "source",
        "content_hash",
        "etag",
        "size_bytes",
        "modified_at",
        "version_id",
    )
    rows = good_rows(tables, RAW_DOCUMENTS, shards, columns, where=is_lost)
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        list(pool.map(partial(_restore, workspace), rows.iter_rows(named=True)))


def _restore(workspace: Workspace, row: Row) -> None:
    def restore(row: Row) -> None:
        wanted, landing_zone = str(row["content_hash"]), workspace.landing_zone
        if landing_zone.holds(wanted):
            return
        wanted_version = listed_object(row, version_id=str(row["version_id"] or ""))
        data = workspace.source(str(row["source"])).fetch(wanted_version)
        if content_hash(data) == wanted:
            landing_zone.delete(wanted)  # damaged bytes of the right size would be kept
            landing_zone.put(data)

    attempt(restore, row, key=str(row["document_id"]), stage="raw_documents")
