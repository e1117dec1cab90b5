"""Replay of a window of time: its documents are fetched from their source again.

Nothing is computed here. The rows of the documents are doubted (`doubts.py`), and the ordinary
stages do the rest: they fetch the bytes, and what turns out to be as before goes no further. So a
replay that is killed anywhere is finished by the next run, and one that nobody needed costs the
fetching alone.
"""

from collections.abc import Sequence

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import RAW_DOCUMENTS, SOURCE_OBJECTS, STAGES
from ragassets.core.periods import Window
from ragassets.stages.doubts import doubt_failures, doubt_rows


def documents_in_window(workspace: Workspace, sources: Sequence[str], window: Window) -> list[str]:
    """Ids of the documents that the sources hold and that changed within a window, sorted.

    A change counts at both of its times: when the source says that it happened, and when we saw
    it. The first finds what was missed, the second what was done badly at that time.
    """
    rows = workspace.tables.read(
        SOURCE_OBJECTS,
        columns=["document_id"],
        where=pl.col("source").is_in(list(sources))
        & ~pl.col("is_deleted")
        & (_is_within(window, "modified_at") | _is_within(window, "changed_at")),
    )
    return rows["document_id"].sort().to_list()


def mark_for_replay(workspace: Workspace, sources: Sequence[str], window: Window) -> int:
    """Have the documents of a window fetched again; how many.

    What had been given up for a passing reason, in any stage, is tried again too. What failed for
    good is not: the same bytes would fail the same way.

    Raises:
        ConcurrentWriteError: A run changed the same partitions meanwhile.
    """
    documents = documents_in_window(workspace, sources, window)
    if documents:
        is_meant = pl.col("document_id").is_in(documents)
        for stage in STAGES:
            doubt_failures(workspace, stage, is_meant & pl.col("is_transient"))
        doubt_rows(workspace, RAW_DOCUMENTS, is_meant)
    return len(documents)


def _is_within(window: Window, column: str) -> pl.Expr:
    is_after = pl.col(column) >= window.since
    return is_after if window.until is None else is_after & (pl.col(column) < window.until)
