"""The keys of materialization metadata, in one place, and how values are shown in the UI."""

import re
from collections.abc import Mapping, Sequence

import dagster as dg

Metadata = Mapping[str, dg.MetadataValue | str | int | float]

N_DOCUMENTS = "n_documents"
N_CHUNKS = "n_chunks"
N_INPUTS = "n_inputs"
N_COMPUTED = "n_computed"
N_NEW_ROWS = "n_new_rows"
N_NEW_DOCUMENTS = "n_new_documents"
N_REUSED = "n_reused"
N_TAKEN_OVER = "n_taken_over"
"""Of the reused, those that were missing in the partition and made before elsewhere."""
N_REMOVED = "n_removed"
N_FAILED = "n_failed"
N_NEWLY_FAILED = "n_newly_failed"
N_PARTITIONS = "n_partitions_together"
"""Partitions that the step took together: `seconds` is the time of all of them."""
ROW_COUNT = "dagster/row_count"
"""Dagster shows and plots this one by itself."""
SECONDS = "seconds"
PREVIEW = "preview"
FAILURES = "failures"
TABLE = "table"
MADE_FROM = "made_from"
"""Links to the upstream partitions."""

PREVIEW_ROWS = 5
_URI = re.compile(r"[a-z][a-z0-9+.-]*://")
URI_CHARS = 48
TEXT_CHARS = 80
"""The UI folds Markdown of more than about a thousand characters away."""


def markdown_table(
    rows: Sequence[Mapping[str, object]], *, n_rows: int = PREVIEW_ROWS
) -> dg.MarkdownMetadataValue:
    """A Markdown table of the first rows, long cells cut."""
    return dg.MetadataValue.md(markdown_rows(rows[:n_rows]) if rows else "_no rows_")


def markdown_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """The Markdown of a table of all rows; nothing without rows."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[name]) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """One line; what means something in Markdown is escaped: a document must not draw in the UI."""
    text = "" if value is None else " ".join(str(value).split())
    if _URI.match(text):
        # The end of a URI tells documents apart, the beginning of anything else.
        text = text if len(text) <= URI_CHARS else f"…{text[-URI_CHARS:]}"
    elif len(text) > TEXT_CHARS:
        text = f"{text[:TEXT_CHARS]}…"
    return escaped(text)


def escaped(text: str) -> str:
    """The text with what means something in Markdown escaped."""
    for character in "\\|`*<[":
        text = text.replace(character, f"\\{character}")
    return text
