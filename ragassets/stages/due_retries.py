"""Which partitions hold a failure that is to be tried again now."""

from datetime import datetime

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.retry_delays import retry_due_at
from ragassets.core.stages import SHARD, Stage


def due_retries(workspace: Workspace, stage: Stage, now: datetime) -> dict[str, datetime]:
    """The partitions of a stage whose failures are due, by their key in Dagster.

    A run tries every failure of its partition that is not parked, so the one that is due first
    decides.

    Args:
        workspace: Where the stage's rows are.
        stage: Which stage.
        now: The time.

    Returns:
        Partition key to the moment since when something is due.
    """
    rows = workspace.tables.read(
        stage.outputs if stage.has_inline_failures else stage.failures,
        columns=[*stage.partition_by, "attempts", "first_failed_at", "last_failed_at"],
        where=pl.col("failed_input_hash").is_not_null()
        & pl.col("is_transient")
        & (pl.col("attempts") < MAX_TRANSIENT_ATTEMPTS),
    )
    due: dict[str, datetime] = {}
    # What failed in one run failed at one time: an outage over all chunks is one row here.
    for row in rows.unique().iter_rows(named=True):
        moment = retry_due_at(
            attempts=row["attempts"],
            first_failed_at=row["first_failed_at"],
            last_failed_at=row["last_failed_at"],
        )
        if moment <= now:
            # In Dagster, keys of several dimensions are in the order of the dimensions' names.
            others = sorted(column for column in stage.partition_by if column != SHARD)
            key = "|".join(row[column] for column in (*others, SHARD))
            due[key] = min(moment, due.get(key, moment))
    return due
