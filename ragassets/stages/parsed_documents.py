"""Bytes to elements, by the chain of parsers, in several processes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial

import polars as pl

from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.parsers.registry import default_parsers
from ragassets.adapters.workers import map_in_processes
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import PARSED_DOCUMENTS, RAW_DOCUMENTS
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import Failure, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.parsing import parse_document, parsing_fingerprint
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.inputs import good_rows, partitions_of

BATCH_DOCUMENTS = 128
"""Documents between two checkpoints: parsing is the slowest step before embedding."""

COLUMNS = ("document_id", "uri", "source", "source_shard", "content_hash")

Row = dict[str, object]


def update_parsed_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `parsed_documents` of some shards up to date; a report for each."""
    raw = good_rows(workspace.tables, RAW_DOCUMENTS, shards, COLUMNS)
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
        tables=workspace.tables,
        context=context,
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
        return [
            row
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
