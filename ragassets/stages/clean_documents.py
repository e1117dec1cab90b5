"""Elements to clean text with blocks: noise removed, Unicode repaired, personal data redacted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from ragassets.adapters.workers import map_in_processes
from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import (
    CLEAN_DOCUMENTS,
    DOCUMENT_IDENTITY,
    PARSED_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.core.cleaning import clean_document
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import SOURCE_VERSION, Failure
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.settings import CleaningConfig
from ragassets.core.stages import Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.inputs import (
    good_rows,
    partitions_of,
    rows_in_batches,
    with_source_input_hash,
)

Row = dict[str, object]


def update_clean_documents(
    workspace: Workspace, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `clean_documents` of some shards up to date; a report for each."""
    tables = PinnedTables(workspace.tables, CLEAN_DOCUMENTS.outputs)
    config = workspace.config
    rules = {name: cleaning_rules(config, name) for name in config.sources}
    types = {name: source.document_type for name, source in config.sources.items()}
    columns = (*DOCUMENT_IDENTITY, "language", SOURCE_VERSION)
    valid = good_rows(tables, VALID_DOCUMENTS, shards, columns)
    parsed = good_rows(tables, PARSED_DOCUMENTS, shards, ("document_id",))
    languages: dict[str, str | None] = dict(valid.select("document_id", "language").iter_rows())
    inputs = with_source_input_hash(
        valid.drop("output_hash").join(parsed, on="document_id"),
        {name: _fingerprint(rules[name], types[name]) for name in rules},
        "output_hash",
        "language",
    )

    def compute(keys: list[str]) -> Iterator[Outcome]:
        columns = (*DOCUMENT_IDENTITY, "title", "metadata", "media_type", "elements")
        for rows in rows_in_batches(
            tables, PARSED_DOCUMENTS, keys, shards, columns, batch_size=1024
        ):
            items = [
                (
                    row
                    | {
                        "language": languages[row["document_id"]],
                        "document_type": types[row["source"]],
                    },
                    rules[row["source"]],
                )
                for row in rows.iter_rows(named=True)
            ]
            results = map_in_processes(_clean, items, n_workers=config.workers)
            yield from outcomes_in_batches(results, CLEAN_DOCUMENTS, batch_size=1024)

    return run_stage(
        CLEAN_DOCUMENTS,
        partitions_of(shards),
        inputs,
        compute,
        tables=tables,
        context=context,
    )


def cleaning_rules(config: Config, source: str) -> CleaningConfig:
    """The general rules with what the source wants redacted."""
    return config.cleaning.model_copy(
        update={"redact": (*config.cleaning.redact, *config.source(source).redact)}
    )


def _fingerprint(rules: CleaningConfig, document_type: str | None) -> str:
    return fingerprint(
        {
            "stage": "clean_documents",
            "version": STAGE_VERSIONS["clean_documents"],
            "rules": rules.model_dump(mode="json"),
            "document_type": document_type,
        }
    )


def _clean(item: tuple[Mapping[str, object], CleaningConfig]) -> tuple[str, list[Row] | Failure]:
    row, rules = item

    def clean(row: Mapping[str, object]) -> list[Row]:
        title = row["title"]
        document = clean_document(
            uri=str(row["uri"]),
            elements=cast("list[Mapping[str, object]]", row["elements"]),
            title=title if isinstance(title, str) else None,
            config=rules,
        )
        output = {
            "title": document.title,
            "text": document.text,
            "blocks": [block._asdict() for block in document.blocks],
            "language": row["language"],
            "document_type": row["document_type"],
        }
        if row["metadata"] is not None:
            output["metadata"] = row["metadata"]
        return [
            {name: row[name] for name in (*DOCUMENT_IDENTITY, "media_type", "metadata")}
            | output
            | {
                "n_chars": len(document.text),
                "n_removed": sum(document.n_removed.values()),
                "n_repaired_chars": document.n_repaired_chars,
                "output_hash": stable_hash(json.dumps(output, sort_keys=True)),
            }
        ]

    key = str(row["document_id"])
    return key, attempt(clean, row, key=key, stage="clean_documents")
