"""What the tables say that people may have to be told; read only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import polars as pl

from ragassets.adapters.deadlines import call_within
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DEAD_LETTERS, EMBEDDINGS, SOURCE_LISTINGS, SOURCE_TROUBLES
from ragassets.core.dead_letter_digest import COLUMNS
from ragassets.core.problems import Problem, counted
from ragassets.core.source_health import Listing, Trouble

Letters = tuple[int | None, pl.DataFrame | None]
"""The version of the dead letters, and all of them where it is another than that of last time."""

READ_SECONDS = 15.0
"""For all tables together, of the 60 that a sensor has. Object stores are asked for minutes before
they count as out of reach, and by then nobody would have been told of anything."""


@dataclass(frozen=True)
class Facts:
    """What the tables say; None for what could not be read in time."""

    listings: list[Listing] | None
    silent: list[Trouble] | None
    outages: list[Problem] | None
    letters: Letters | None
    troubles: dict[str, str]
    """What could not be read, and why: the type of an error."""


def read_facts(workspace: Workspace, *, letters_version: int | None) -> Facts:
    """Read everything at once.

    Args:
        workspace: Where to read.
        letters_version: Of the dead letters when they were last looked at.
    """
    calls: dict[str, Callable[[], object]] = {
        "listings": partial(read_listings, workspace),
        "silent": partial(read_troubles, workspace),
        "outages": partial(embedding_problems, workspace),
        "letters": partial(read_letters, workspace, letters_version),
    }
    outcomes = call_within(calls, seconds=READ_SECONDS)
    return Facts(
        listings=cast("list[Listing] | None", outcomes["listings"].answer),
        silent=cast("list[Trouble] | None", outcomes["silent"].answer),
        outages=cast("list[Problem] | None", outcomes["outages"].answer),
        letters=cast("Letters | None", outcomes["letters"].answer),
        troubles={
            name: type(outcome.error).__name__ if outcome.error else f"over {READ_SECONDS:g} s"
            for name, outcome in outcomes.items()
            if outcome.answer is None
        },
    )


def read_listings(workspace: Workspace) -> list[Listing]:
    """How the last listing of every configured source went."""
    rows = workspace.tables.read(SOURCE_LISTINGS).iter_rows(named=True)
    return [
        Listing.model_validate({**row, "message": row["message"] or ""})
        for row in rows
        if row["source"] in workspace.config.sources
    ]


def read_troubles(workspace: Workspace) -> list[Trouble]:
    """The sources whose queues do not answer."""
    rows = workspace.tables.read(SOURCE_TROUBLES).iter_rows(named=True)
    return [Trouble.model_validate(row) for row in rows]


def read_letters(workspace: Workspace, version: int | None) -> Letters:
    """The dead letters, if they are not those of this version."""
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
        title=f"the embedding service of {embedding_set} fails:"
        f" {counted(waiting.height, 'chunk')} of {counted(n_documents, 'document')} wait",
        details=(str(last["error_message"] or ""), "It is asked again by itself; nothing is lost."),
        commands=("ragassets doctor",),
        magnitude=waiting.height,
    )
