"""Schema, language, quality and safety: what fails is a dead letter and is not retried."""

import json
from collections.abc import Iterator, Sequence

from ragassets.adapters.workers import map_in_processes
from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import DOCUMENT_IDENTITY, PARSED_DOCUMENTS, VALID_DOCUMENTS
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import SOURCE_VERSION, Failure
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.settings import ValidationConfig
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables
from ragassets.core.validation import validate_document
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.inputs import (
    good_rows,
    partitions_of,
    rows_in_batches,
    with_source_input_hash,
)

Row = dict[str, object]


def update_valid_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `valid_documents` of some shards up to date; a report for each."""
    tables = PinnedTables(workspace.tables, VALID_DOCUMENTS.outputs)
    rules = {name: validation_rules(workspace.config, name) for name in workspace.config.sources}
    parsed = good_rows(tables, PARSED_DOCUMENTS, shards, (*DOCUMENT_IDENTITY, SOURCE_VERSION))
    inputs = with_source_input_hash(
        parsed, {name: _fingerprint(rule) for name, rule in rules.items()}, "output_hash"
    )

    def compute(keys: list[str]) -> Iterator[Outcome]:
        columns = (*DOCUMENT_IDENTITY, "title", "text", "media_type")
        for rows in rows_in_batches(
            tables, PARSED_DOCUMENTS, keys, shards, columns, batch_size=1024
        ):
            items = [(row, rules[row["source"]]) for row in rows.iter_rows(named=True)]
            results = map_in_processes(_validate, items, n_workers=workspace.config.workers)
            yield from outcomes_in_batches(results, VALID_DOCUMENTS, batch_size=1024)

    return run_stage(
        VALID_DOCUMENTS,
        partitions_of(shards),
        inputs,
        compute,
        tables=tables,
        context=context,
    )


def validation_rules(config: Config, source: str) -> ValidationConfig:
    """The general rules with the source's own languages."""
    accepted = config.source(source).languages
    if not accepted.accept:
        return config.validation
    return config.validation.model_copy(
        update={"accepted_languages": accepted.accept, "otherwise": accepted.otherwise}
    )


def _fingerprint(rules: ValidationConfig) -> str:
    return fingerprint(
        {
            "stage": "valid_documents",
            "version": STAGE_VERSIONS["valid_documents"],
            "rules": rules.model_dump(mode="json"),
        }
    )


def _validate(item: tuple[Row, ValidationConfig]) -> tuple[str, list[Row] | Failure]:
    row, rules = item

    def validate(row: Row) -> list[Row]:
        title = row["title"]
        valid = validate_document(
            uri=str(row["uri"]),
            title=title if isinstance(title, str) else None,
            text=str(row["text"]),
            media_type=str(row["media_type"]),
            config=rules,
        )
        return [
            {name: row[name] for name in DOCUMENT_IDENTITY}
            | {
                "language": valid.language,
                "language_confidence": valid.language_confidence,
                "n_words": valid.n_words,
                "quality": json.dumps(valid.quality, sort_keys=True),
                "output_hash": stable_hash(valid.language),
            }
        ]

    key = str(row["document_id"])
    return key, attempt(validate, row, key=key, stage="valid_documents")
