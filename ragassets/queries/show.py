"""The text that a stage made of a document."""

from dataclasses import dataclass
from typing import Literal, cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, CLEAN_DOCUMENTS, PARSED_DOCUMENTS
from ragassets.core.stages import SHARD
from ragassets.errors import MissingOutputError
from ragassets.queries.documents import KnownDocument, find_document
from ragassets.queries.json_values import json_value
from ragassets.queries.why import explain

TEXT_STAGES = {"parsed": PARSED_DOCUMENTS, "clean": CLEAN_DOCUMENTS}


@dataclass(frozen=True)
class ShownText:
    """A document's text after one stage."""

    uri: str
    stage: str
    text: str

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets show --json`: fields may be added, none goes."""
        return cast("dict[str, object]", json_value(self))


@dataclass(frozen=True)
class ShownChunk:
    """One chunk; its offsets count characters of the clean text."""

    chunk_id: str
    text: str
    start_char: int
    end_char: int
    n_tokens: int
    page: int | None


@dataclass(frozen=True)
class ShownChunks:
    """A document's chunks under one chunking, in the order of the text."""

    uri: str
    stage: Literal["chunks"]
    chunking: str
    chunks: tuple[ShownChunk, ...]

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets show --stage chunks --json`; fields may be added."""
        return cast("dict[str, object]", json_value(self))


def show_text(workspace: Workspace, argument: str, *, stage: str) -> ShownText:
    """The text after `parsed` or `clean`.

    Raises:
        UnknownDocumentError: No source has the document.
        MissingOutputError: The stage made nothing of it.
    """
    document = find_document(workspace, argument)
    rows = workspace.tables.read(
        TEXT_STAGES[stage].outputs,
        [{SHARD: document.source_shard}],
        columns=["text"],
        where=(pl.col("document_id") == document.document_id) & pl.col("text").is_not_null(),
    )
    if rows.is_empty():
        raise _missing(workspace, document, TEXT_STAGES[stage].name)
    return ShownText(document.uri, stage, str(rows["text"][0]))


def show_chunks(workspace: Workspace, argument: str, *, chunking: str | None = None) -> ShownChunks:
    """The chunks under a chunking, by default that of the first automatic index version.

    Raises:
        UnknownNameError: There is no such chunking.
        UnknownDocumentError: No source has the document.
        MissingOutputError: It was not chunked.
    """
    name = chunking or _default_chunking(workspace)
    workspace.config.chunking(name)
    document = find_document(workspace, argument)
    rows = workspace.tables.read(
        CHUNKS.outputs,
        [{SHARD: document.source_shard, "chunking": name}],
        columns=list(ShownChunk.__dataclass_fields__),
        where=pl.col("document_id") == document.document_id,
    ).sort("start_char", "end_char")
    if rows.is_empty():
        raise _missing(workspace, document, f"chunks ({name})")
    chunks = tuple(ShownChunk(**row) for row in rows.iter_rows(named=True))
    return ShownChunks(document.uri, "chunks", name, chunks)


def _default_chunking(workspace: Workspace) -> str:
    versions = list(workspace.config.index_versions.values())
    automatic = [version for version in versions if version.backfill == "auto"]
    chosen = next(iter([*automatic, *versions]), None)
    return chosen.chunking if chosen else next(iter(workspace.config.chunkings), "")


def _missing(workspace: Workspace, document: KnownDocument, stage: str) -> MissingOutputError:
    verdict = explain(workspace, document).verdict
    return MissingOutputError(uri=document.uri, stage=stage, explanation=verdict)
