"""Bytes to elements, by the chain of parsers, in several processes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache, partial

import polars as pl

from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.parsers.registry import default_parsers, has_all_converters
from ragassets.adapters.workers import map_in_processes
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DOCUMENT_IDENTITY, PARSED_DOCUMENTS, RAW_DOCUMENTS
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import SOURCE_VERSION, Failure, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.parsing import parse_document, parsing_fingerprint
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables, Tables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.errors import MissingConverterError, MissingRawBytesError
from ragassets.stages.inputs import good_rows, partitions_of

BATCH_DOCUMENTS = 128
"""Documents between two checkpoints: parsing is the slowest step before embedding."""

COLUMNS = (*DOCUMENT_IDENTITY, "content_hash")

Row = dict[str, object]


def update_parsed_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `parsed_documents` of some shards up to date; a report for each."""
    tables = PinnedTables(workspace.tables, PARSED_DOCUMENTS.outputs)
    raw = good_rows(tables, RAW_DOCUMENTS, shards, (*COLUMNS, SOURCE_VERSION))
    parsers = parsing_fingerprint(default_parsers())
    inputs = with_input_hash(
        raw,
        fingerprint(
            {
                "stage": "parsed_documents",
                "version": STAGE_VERSIONS["parsed_documents"],
                "parsers": parsers,
            }
        ),
        "uri",
        "output_hash",
    )

    def compute(keys: list[str]) -> Iterator[Outcome]:
        wanted = raw.filter(pl.col("document_id").is_in(keys)).sort("document_id")
        rows = wanted.select(COLUMNS).to_dicts()
        work = partial(_parse, workspace.config.root)
        results = map_in_processes(work, rows, n_workers=workspace.config.workers)
        yield from outcomes_in_batches(results, PARSED_DOCUMENTS, batch_size=BATCH_DOCUMENTS)

    return run_stage(
        PARSED_DOCUMENTS,
        partitions_of(shards),
        inputs,
        compute,
        tables=tables,
        context=replace(
            context, redriven=context.redriven | _unblocked(workspace, tables, raw, shards)
        ),
    )


def _unblocked(
    workspace: Workspace, tables: Tables, raw: pl.DataFrame, shards: Sequence[str]
) -> frozenset[str]:
    """Documents that failed for want of something outside of them that is there now.

    Neither converters nor the landing zone are part of the input hash: else installing a converter
    would recompute every document.
    """
    reasons = (MissingConverterError.reason, MissingRawBytesError.reason)
    failed = tables.read(
        PARSED_DOCUMENTS.outputs,
        partitions_of(shards),
        columns=["document_id", "error_reason"],
        where=pl.col("error_reason").is_in(reasons),
    )
    is_unconverted = pl.col("error_reason") == MissingConverterError.reason
    unconverted = failed.filter(is_unconverted)["document_id"].to_list()
    lost = failed.filter(~is_unconverted).join(raw, on="document_id", how="inner")
    return frozenset(unconverted if unconverted and has_all_converters() else ()) | frozenset(
        document
        for document, content_hash in lost.select("document_id", "content_hash").iter_rows()
        if workspace.landing_zone.holds(content_hash)
    )


@cache
def _landing_zone(root: str) -> LandingZone:
    return LandingZone(root)


def _parse(root: str, row: Row) -> tuple[str, list[Row] | Failure]:
    def parse(row: Row) -> list[Row]:
        data = _landing_zone(root).get(str(row["content_hash"]))
        parsed = parse_document(data, uri=str(row["uri"]), parsers=default_parsers())
        elements = [asdict(element) for element in parsed.elements]
        output = {
            "media_type": parsed.media_type,
            "title": parsed.title,
            "elements": elements,
            "is_ocr": parsed.is_ocr,
        }
        if parsed.record_metadata:
            output["metadata"] = json.dumps(parsed.record_metadata, sort_keys=True)
        return [
            row
            | {"metadata": None}
            | output
            | {
                "parser": parsed.parser,
                "n_pages": parsed.n_pages,
                "text": parsed.text,
                "output_hash": stable_hash(json.dumps(output, sort_keys=True)),
            }
        ]

    key = str(row["document_id"])
    return key, attempt(parse, row, key=key, stage="parsed_documents")
