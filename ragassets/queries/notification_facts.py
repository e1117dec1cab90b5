"""What the tables say that people may have to be told; read only."""

from collections.abc import Mapping

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DEAD_LETTERS, EMBEDDINGS, SOURCE_LISTINGS
from ragassets.core.dead_letter_digest import COLUMNS
from ragassets.core.problems import Problem
from ragassets.core.source_health import Listing


def read_listings(workspace: Workspace) -> list[Listing]:
    """How the last listing of every configured source went."""
    rows = workspace.tables.read(SOURCE_LISTINGS).iter_rows(named=True)
    return [
        Listing.model_validate({**row, "message": row["message"] or ""})
        for row in rows
        if row["source"] in workspace.config.sources
    ]


def read_new_letters_since(
    workspace: Workspace, version: int | None
) -> tuple[int | None, pl.DataFrame | None]:
    """The version of the dead letters, and all of them where it is another than the given one."""
    snapshot = workspace.tables.snapshot(DEAD_LETTERS)
    if snapshot.version is None or snapshot.version == version:
        return snapshot.version, None
    return snapshot.version, workspace.tables.read_at(snapshot, columns=list(COLUMNS))


def embedding_problems(workspace: Workspace) -> list[Problem]:
    """Embedding services that did not answer: what waits for them was looked at by nobody yet."""
    waiting = workspace.tables.read(
        EMBEDDINGS.failures,
        columns=["embedding_set", "document_id", "error_message", "last_failed_at"],
        where=pl.col("failed_input_hash").is_not_null()
        & (pl.col("error_reason") == "embedding_service_unavailable")
        & (pl.col("attempts") == 0),
    )
    return [
        _outage(str(name), part.sort("last_failed_at").row(-1, named=True), part)
        for (name,), part in sorted(waiting.partition_by("embedding_set", as_dict=True).items())
    ]


def _outage(embedding_set: str, last: Mapping[str, object], waiting: pl.DataFrame) -> Problem:
    n_documents = waiting["document_id"].n_unique()
    return Problem(
        key=f"embedding_service/{embedding_set}",
        topic="embedding_service",
        severity="error",
        title=f"the embedding service of {embedding_set} fails: {waiting.height} chunks of"
        f" {n_documents} documents wait",
        details=(str(last["error_message"] or ""), "It is asked again by itself; nothing is lost."),
        commands=("ragassets doctor",),
        magnitude=waiting.height,
    )
