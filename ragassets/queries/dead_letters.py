"""The dead letters: what every stage gave up on, with the reason and where the bytes are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DEAD_LETTERS
from ragassets.errors import ConfigurationError, UnknownNameError
from ragassets.queries.json_values import json_value
from ragassets.queries.remedies import remedy


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter; the columns of its table."""

    dead_letter_id: str
    document_id: str
    chunk_id: str | None
    source: str
    uri: str
    stage: str
    category: str
    reason: str
    error_type: str
    message: str
    attempts: int
    is_transient: bool
    first_failed_at: datetime
    last_failed_at: datetime
    run_id: str
    content_hash: str | None

    def as_json(self) -> dict[str, object]:
        """The public shape of an entry of `dead-letters list`."""
        return cast("dict[str, object]", json_value(self))


@dataclass(frozen=True)
class DeadLetterDetail:
    """A dead letter with all that helps to understand it."""

    letter: DeadLetter
    stack_trace: str
    raw_bytes: str | None
    """Where the document's bytes are kept; None when they were never fetched."""
    remedy: str

    def as_json(self) -> dict[str, object]:
        """The letter's fields and these."""
        return {
            **self.letter.as_json(),
            "stack_trace": self.stack_trace,
            "raw_bytes": self.raw_bytes,
            "remedy": self.remedy,
        }


def list_dead_letters(
    workspace: Workspace,
    *,
    source: str | None = None,
    stage: str | None = None,
    reason: str | None = None,
) -> list[DeadLetter]:
    """The dead letters that match, ordered by source, URI and stage.

    Raises:
        UnknownNameError: There is no such source; or there are dead letters, and none of that
            stage or reason: an empty list would hide a misspelling, so those that occur are named.
    """
    if source is not None:
        workspace.config.source(source)
    rows = workspace.tables.read(DEAD_LETTERS, columns=_COLUMNS)
    for column, value in (("stage", stage), ("reason", reason)):
        known = sorted(set(rows[column].to_list()))
        if value is not None and known and value not in known:
            raise UnknownNameError(kind=f"{column} of a dead letter", name=value, known=known)
    wanted = {"source": source, "stage": stage, "reason": reason}
    conditions = [pl.col(name) == value for name, value in wanted.items() if value is not None]
    found = rows.filter(*conditions) if conditions else rows
    ordered = found.sort("source", "uri", "stage", "dead_letter_id")
    return [DeadLetter(**row) for row in ordered.iter_rows(named=True)]


_COLUMNS = list(DeadLetter.__dataclass_fields__)


def show_dead_letters(workspace: Workspace, identifier: str) -> list[DeadLetterDetail]:
    """The dead letters of a document, or the one, whose id starts like this.

    Raises:
        ConfigurationError: None has such an id, or the ids of several documents start like it.
    """
    prefix = identifier.lower()
    by_letter = pl.col("dead_letter_id").str.starts_with(prefix)
    by_document = pl.col("document_id").str.starts_with(prefix)
    rows = workspace.tables.read(
        DEAD_LETTERS, columns=[*_COLUMNS, "stack_trace"], where=by_letter | by_document
    ).sort("stage", "dead_letter_id")
    if not prefix or rows.is_empty():
        raise _unusable(identifier, "is the start of no document id and no dead letter id")
    if rows["document_id"].n_unique() > 1:
        raise _unusable(identifier, f"is the start of {_some(rows)}: give more digits")
    return [_detail(workspace, row) for row in rows.iter_rows(named=True)]


def _unusable(identifier: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        key="dead letter",
        value=identifier,
        problem=problem,
        fix="See `ragassets dead-letters list`",
    )


def _some(rows: pl.DataFrame) -> str:
    ids: Sequence[str] = sorted(set(rows["document_id"].to_list()))
    return ", ".join(ids[:3]) + (" and others" if len(ids) > 3 else "")  # noqa: PLR2004


def _detail(workspace: Workspace, row: dict[str, object]) -> DeadLetterDetail:
    stack_trace = str(row.pop("stack_trace") or "")
    letter = DeadLetter(**row)  # pyright: ignore[reportArgumentType]
    return DeadLetterDetail(
        letter,
        stack_trace,
        workspace.landing_zone.location(letter.content_hash) if letter.content_hash else None,
        remedy(letter.reason),
    )
