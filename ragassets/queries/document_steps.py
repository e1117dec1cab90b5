"""How far one document came: a step for every stage, with what it made or why it failed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    CLEAN_DOCUMENTS,
    DOCUMENT_SIGNATURES,
    EMBEDDINGS,
    INDEXED_CHUNKS,
    PARSED_DOCUMENTS,
    RAW_DOCUMENTS,
    UNIQUE_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS, OUTPUT_COLUMNS
from ragassets.core.stages import SHARD, Stage
from ragassets.queries.documents import KnownDocument
from ragassets.stages.dropped_versions import dropped_names

StepState = Literal["ok", "duplicate", "failed", "pending", "not reached", "dropped"]

DETAILS: Mapping[str, tuple[str, ...]] = {
    RAW_DOCUMENTS.name: ("content_hash", "size_bytes", "etag", "version_id"),
    PARSED_DOCUMENTS.name: ("media_type", "parser", "n_pages", "is_ocr", "title"),
    VALID_DOCUMENTS.name: ("language", "language_confidence", "n_words"),
    CLEAN_DOCUMENTS.name: ("n_chars", "n_removed", "n_repaired_chars", "document_type"),
    UNIQUE_DOCUMENTS.name: ("duplicate_of", "similarity"),
}
"""Columns of each stage that a person asks for; not the text itself."""

DOCUMENT_STAGES = (
    RAW_DOCUMENTS,
    PARSED_DOCUMENTS,
    VALID_DOCUMENTS,
    CLEAN_DOCUMENTS,
    UNIQUE_DOCUMENTS,
)


@dataclass(frozen=True)
class StepFailure:
    """Why a stage could not do it."""

    reason: str
    category: str
    error_type: str
    message: str
    attempts: int
    is_retried: bool
    """Whether the next run tries again by itself."""
    first_failed_at: datetime
    last_failed_at: datetime
    run_id: str


@dataclass(frozen=True)
class Step:
    """One stage, under one chunking, embedding set or index version where it has several."""

    stage: str
    under: str | None
    state: StepState
    n_rows: int
    n_failed: int
    run_id: str | None
    computed_at: datetime | None
    input_hash: str | None
    output_hash: str | None
    failure: StepFailure | None
    details: Mapping[str, object]
    pipeline_version: str | None = None
    """What computed its newest row; None where an earlier release did."""
    source_version: str | None = None
    """Which state of the source's object that was: version id or ETag."""


def document_steps(workspace: Workspace, document: KnownDocument) -> Iterator[Step]:
    """Every stage, in the order of the graph; one step for each thing that it has several of."""
    is_open = not document.is_deleted
    n_chunks: dict[str, int] = {}
    for stage in DOCUMENT_STAGES:
        step = _step(workspace, document, stage, None, is_open=is_open, n_expected=1)
        if stage is RAW_DOCUMENTS and step.state == "ok" and step.details["etag"] != document.etag:
            step = replace(step, state="pending")
        yield step
        is_open = is_open and step.n_rows > 0 and step.state != "duplicate"
    config = workspace.config
    dropped = dropped_names(workspace.tables)
    kept = {name: v for name, v in config.index_versions.items() if name not in dropped}
    for chunking in dict.fromkeys(v.chunking for v in kept.values()):
        step = _step(workspace, document, CHUNKS, chunking, is_open=is_open, n_expected=1)
        n_chunks[chunking] = step.n_rows
        yield step
    for name, chunking in {v.embedding_set: v.chunking for v in kept.values()}.items():
        n_expected = n_chunks[chunking]
        yield _step(
            workspace, document, EMBEDDINGS, name, is_open=n_expected > 0, n_expected=n_expected
        )
    for name, version in kept.items():
        n_expected = n_chunks[version.chunking]
        yield _step(
            workspace, document, INDEXED_CHUNKS, name, is_open=n_expected > 0, n_expected=n_expected
        )
    for name in (name for name in config.index_versions if name in dropped):
        step = _step(workspace, document, INDEXED_CHUNKS, name, is_open=False, n_expected=1)
        yield replace(step, state="dropped")


def _step(
    workspace: Workspace,
    document: KnownDocument,
    stage: Stage,
    under: str | None,
    *,
    is_open: bool,
    n_expected: int,
) -> Step:
    rows = _rows(workspace, document, stage, under)
    failures = _failures(workspace, document, stage, under)
    first = rows.row(0, named=True) if rows.height else None
    details = {name: first[name] for name in DETAILS.get(stage.name, ())} if first else {}
    failure = _failure(failures.row(0, named=True), document.uri) if failures.height else None
    return Step(
        stage=stage.name,
        under=under,
        state=_state(rows.height, failure, details, is_open=is_open, n_expected=n_expected),
        n_rows=rows.height,
        n_failed=failures.height,
        run_id=first["run_id"] if first else None,
        computed_at=first["computed_at"] if first else None,
        input_hash=first["input_hash"] if first else None,
        output_hash=first["output_hash"] if first else None,
        failure=failure,
        details=details,
        pipeline_version=first["pipeline_version"] if first else None,
        source_version=first["source_version"] if first else None,
    )


def _state(
    n_rows: int,
    failure: StepFailure | None,
    details: Mapping[str, object],
    *,
    is_open: bool,
    n_expected: int,
) -> StepState:
    if failure is not None:
        return "pending" if failure.is_retried else "failed"
    if n_rows and details.get("duplicate_of"):
        return "duplicate"
    if n_rows >= n_expected and n_rows:
        return "ok"
    return "pending" if is_open else "not reached"


def _partition(stage: Stage, document: KnownDocument, under: str | None) -> dict[str, str]:
    dimensions = [name for name in stage.partition_by if name != SHARD]
    return {SHARD: document.source_shard} | dict.fromkeys(dimensions, under or "")


def _rows(
    workspace: Workspace, document: KnownDocument, stage: Stage, under: str | None
) -> pl.DataFrame:
    bookkeeping = tuple(OUTPUT_COLUMNS)
    return workspace.tables.read(
        stage.outputs,
        [_partition(stage, document, under)],
        columns=list(dict.fromkeys([*DETAILS.get(stage.name, ()), *bookkeeping])),
        where=(pl.col("document_id") == document.document_id) & pl.col("output_hash").is_not_null(),
    ).sort("computed_at", descending=True)


def _failures(
    workspace: Workspace, document: KnownDocument, stage: Stage, under: str | None
) -> pl.DataFrame:
    # A signature is half of a duplicate decision; users know the public stage.
    stages = (DOCUMENT_SIGNATURES, stage) if stage is UNIQUE_DOCUMENTS else (stage,)
    return pl.concat(
        workspace.tables.read(
            part.outputs if part.has_inline_failures else part.failures,
            [_partition(part, document, under)],
            columns=[
                "error_reason",
                "error_category",
                "error_type",
                "error_message",
                "attempts",
                "is_transient",
                "first_failed_at",
                "last_failed_at",
                "failed_run_id",
            ],
            where=(pl.col("document_id") == document.document_id)
            & pl.col("failed_input_hash").is_not_null(),
        )
        for part in stages
    ).sort("first_failed_at")


def _failure(row: Mapping[str, object], uri: str) -> StepFailure:
    values = dict(row)
    attempts = cast("int", values["attempts"])
    return StepFailure(
        reason=str(values["error_reason"]),
        category=str(values["error_category"]),
        error_type=str(values["error_type"]),
        message=str(values["error_message"]).removeprefix(f"{uri}: "),
        attempts=attempts,
        is_retried=bool(values["is_transient"]) and attempts < MAX_TRANSIENT_ATTEMPTS,
        first_failed_at=cast("datetime", values["first_failed_at"]),
        last_failed_at=cast("datetime", values["last_failed_at"]),
        run_id=str(values["failed_run_id"]),
    )
