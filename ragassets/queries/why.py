"""Why one document is searchable or not: one sentence, and what to do about it."""

from dataclasses import dataclass
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import INDEXED_CHUNKS, RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.queries.document_steps import DOCUMENT_STAGES, Step, document_steps
from ragassets.queries.documents import KnownDocument, find_document
from ragassets.queries.forgotten import Tombstone, find_tombstone
from ragassets.queries.json_values import json_value
from ragassets.queries.remedies import remedy
from ragassets.queries.search import aliases_by_version


@dataclass(frozen=True)
class Appearance:
    """An index version that holds the document."""

    index_version: str
    aliases: tuple[str, ...]
    """Aliases that serve it; without one it is found by `search --index` only."""
    n_chunks: int


@dataclass(frozen=True)
class Duplicate:
    """The document that stands for this one."""

    document_id: str
    uri: str
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """Why a document is searchable, or not."""

    uri: str
    source: str
    document_id: str
    source_shard: str
    verdict: str
    """One sentence."""
    searchable: bool
    """Whether an alias serves it, under its own URI."""
    remedy: str
    """What to do; empty when nothing needs to be done."""
    modified_at: datetime
    is_deleted: bool
    duplicate_of: Duplicate | None
    index_versions: tuple[Appearance, ...]
    stages: tuple[Step, ...]
    other_sources: tuple[str, ...]
    tenant: str | None = None
    """Of its source, as configured now: `search --tenant` finds it for this one only."""
    forgotten: bool = False
    """Whether somebody had it removed for good."""

    def as_json(self) -> dict[str, object]:
        """All of it."""
        return cast("dict[str, object]", json_value(self))


def explain_document(workspace: Workspace, argument: str) -> Explanation:
    """Follow a document, given by URI or path, through every stage.

    Raises:
        UnknownDocumentError: No source has it.
    """
    stone = find_tombstone(workspace, argument)
    if stone is not None:
        return _explain_forgotten(*stone)
    return explain(workspace, find_document(workspace, argument))


def _explain_forgotten(uri: str, stone: Tombstone) -> Explanation:
    why = f": {stone.reason}" if stone.reason else ""
    return Explanation(
        uri=uri,
        source=stone.source,
        document_id=stone.document_id,
        source_shard="",
        verdict=f"forgotten by {stone.actor} at {_time(stone.forgotten_at)}{why}; no ingestion"
        " takes it in again",
        searchable=False,
        remedy="Take it in again: ragassets forget --undo, then ragassets ingest",
        modified_at=stone.forgotten_at,
        is_deleted=True,
        duplicate_of=None,
        index_versions=(),
        stages=(),
        other_sources=(),
        forgotten=True,
    )


def explain(workspace: Workspace, document: KnownDocument) -> Explanation:
    """Follow a known document through every stage."""
    steps = tuple(document_steps(workspace, document))
    serving = aliases_by_version(workspace)
    appearances = tuple(
        Appearance(step.under or "", serving.get(step.under or "", ()), step.n_rows)
        for step in steps
        if step.stage == INDEXED_CHUNKS.name and step.n_rows and step.state != "dropped"
    )
    duplicate = _duplicate(workspace, steps)
    failed = next((step for step in steps if step.failure is not None), None)
    verdict = _verdict(workspace, document, steps, appearances, duplicate)
    source = workspace.config.sources.get(document.source)
    is_searchable = any(entry.aliases for entry in appearances)
    return Explanation(
        uri=document.uri,
        source=document.source,
        document_id=document.document_id,
        source_shard=document.source_shard,
        verdict=verdict,
        searchable=is_searchable,
        remedy=remedy(failed.failure.reason) if failed and failed.failure else "",
        modified_at=document.modified_at,
        is_deleted=document.is_deleted,
        duplicate_of=duplicate,
        index_versions=appearances,
        stages=steps,
        other_sources=document.other_sources,
        tenant=source.tenant if source else None,
    )


def _duplicate(workspace: Workspace, steps: tuple[Step, ...]) -> Duplicate | None:
    decision = next((step for step in steps if step.state == "duplicate"), None)
    if decision is None:
        return None
    survivor = str(decision.details["duplicate_of"])
    rows = workspace.tables.read(
        SOURCE_OBJECTS, columns=["uri"], where=pl.col("document_id") == survivor
    )
    uri = str(rows["uri"][0]) if rows.height else survivor
    return Duplicate(survivor, uri, float(cast("float", decision.details["similarity"]) or 0.0))


def _verdict(  # noqa: PLR0911 - one line for each state that a document can be in
    workspace: Workspace,
    document: KnownDocument,
    steps: tuple[Step, ...],
    appearances: tuple[Appearance, ...],
    duplicate: Duplicate | None,
) -> str:
    if document.is_deleted:
        gone = f"it is gone from source {document.source!r} since {_time(document.changed_at)}"
        if appearances:
            return f"still searchable, although {gone}: the next run removes it"
        return f"not searchable: {gone}"
    if appearances:
        return _appearance_verdict(steps, appearances)
    failed = next((step for step in steps if step.failure is not None), None)
    if failed is not None and failed.failure is not None:
        failure = failed.failure
        if failure.is_retried:
            # An outage counts for nobody.
            tried = f"failed {failure.attempts} times" if failure.attempts else "met an outage"
            return (
                f"not searchable yet: {failed.stage} {tried}"
                f" ({failure.reason}) and is tried again by the next run: {failure.message}"
            )
        return f"not searchable: {failed.stage} failed: {failure.reason}: {failure.message}"
    if duplicate is not None:
        return _duplicate_verdict(workspace, duplicate)
    waiting = next((step for step in steps if step.state == "pending"), None)
    dropped = [step.under or "" for step in steps if step.state == "dropped"]
    if waiting is None and dropped:
        names = ", ".join(dropped)
        return (
            f"not searchable: no index version is left, {names} was dropped; build one with"
            f" `ragassets index build {dropped[0]}`"
        )
    stage = waiting.stage if waiting else RAW_DOCUMENTS.name
    return f"not searchable yet: {stage} has not run on it; run `ragassets ingest`"


def _appearance_verdict(steps: tuple[Step, ...], appearances: tuple[Appearance, ...]) -> str:
    served = [entry for entry in appearances if entry.aliases]
    names = ", ".join(
        f"{entry.index_version} (alias {', '.join(entry.aliases)})"
        if entry.aliases
        else f"{entry.index_version} (no alias)"
        for entry in (served or appearances)
    )
    text = f"searchable in {names}"
    if not served:
        text = f"searchable with --index only, no alias serves it: in {names}"
    n_failed = max(step.n_failed for step in steps if step.stage != RAW_DOCUMENTS.name)
    waiting = next((step for step in steps if step.state == "pending"), None)
    if waiting is not None and waiting.stage in {stage.name for stage in DOCUMENT_STAGES}:
        return f"{text}, in an older state: {waiting.stage} has not taken in its last change"
    return f"{text}, but {n_failed} of its chunks failed" if n_failed else text


def _duplicate_verdict(workspace: Workspace, duplicate: Duplicate) -> str:
    rows = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        columns=["index_version"],
        where=pl.col("document_id") == duplicate.document_id,
    )
    serving = aliases_by_version(workspace)
    served = any(serving.get(name) for name in set(rows["index_version"]))
    kind = "the same text as" if duplicate.similarity >= 1 else "a near-duplicate of"
    return (
        f"not searchable under its own name: it is {kind} {duplicate.uri} (similarity"
        f" {duplicate.similarity:.2f}), which {'is' if served else 'is not'} searchable"
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"
