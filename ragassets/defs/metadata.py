"""The keys of materialization metadata, in one place, and how reports become metadata."""

from collections.abc import Mapping, Sequence

import dagster as dg

N_INPUTS = "n_inputs"
N_COMPUTED = "n_computed"
N_REUSED = "n_reused"
N_REMOVED = "n_removed"
N_FAILED = "n_failed"
N_NEWLY_FAILED = "n_newly_failed"
ROW_COUNT = "dagster/row_count"
"""Dagster plots this one by itself."""
SECONDS = "seconds"
PREVIEW = "preview"
TABLE = "table"

PREVIEW_ROWS = 5
PREVIEW_CHARS = 80


def markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """A Markdown table of the first rows, long cells cut."""
    if not rows:
        return dg.MetadataValue.md("_no rows_")
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[name]) for name in columns] for row in rows[:PREVIEW_ROWS]]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cell(value: object) -> str:
    text = "" if value is None else " ".join(str(value).split())
    cut = text if len(text) <= PREVIEW_CHARS else f"{text[:PREVIEW_CHARS]}…"
    return cut.replace("|", "\\|")
