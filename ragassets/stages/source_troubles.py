"""Since when a source's queue does not answer: kept while it lasts, so that people are told."""

from datetime import datetime

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_TROUBLES


def note_trouble(workspace: Workspace, source: str, message: str, now: datetime) -> None:
    """Note that a queue does not answer; how it began stays until it does.

    Raises:
        ConcurrentWriteError: Somebody else noted something of this source meanwhile.
    """
    row: dict[str, object] = {"source": source, "began_at": now, "message": message}
    _write(workspace, source, [row], is_trouble=True)


def end_trouble(workspace: Workspace, source: str) -> None:
    """Note that a queue answers; nothing is written where nothing was wrong.

    Raises:
        ConcurrentWriteError: Somebody else noted something of this source meanwhile.
    """
    _write(workspace, source, [], is_trouble=False)


def _write(
    workspace: Workspace, source: str, rows: list[dict[str, object]], *, is_trouble: bool
) -> None:
    place = {"source": source}
    snapshot = workspace.tables.snapshot(SOURCE_TROUBLES)
    known = workspace.tables.read_at(snapshot, [place])
    if known.is_empty() == is_trouble:
        frame = pl.DataFrame(rows, schema=SOURCE_TROUBLES.schema)
        workspace.tables.replace(snapshot, [place], frame)
