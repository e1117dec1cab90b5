"""What surrounds a stage in a Dagster run: its context, its progress, the partitions it takes."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterRun

from ragassets.defs.automation import COMMAND_TAG
from ragassets.defs.live_first import AUTOMATIC_TAG
from ragassets.defs.partitions import SHARD
from ragassets.defs.resources import WorkspaceResource, now

if TYPE_CHECKING:
    from ragassets.core.stages import RunContext

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, its inputs done and its inputs to do."""

PROGRESS: dict[str, Progress] = {}
"""Progress callbacks of runs that a command computes in its own process, by run id."""

LOG_EVERY_SECONDS = 10
"""Often enough to see that a stage moves, too seldom to fill the event log."""


def run_context(context: dg.AssetExecutionContext, resource: WorkspaceResource) -> "RunContext":
    """What a stage knows of this run."""
    from ragassets.core.stages import RunContext

    run: DagsterRun = context.run
    return RunContext(
        run_id=run.run_id,
        now=now,
        checkpoints=resource.workspace.checkpoints,
        is_requested=not {COMMAND_TAG, AUTOMATIC_TAG} & run.tags.keys(),
        progress=PROGRESS.get(run.run_id, _log_progress(context)),
    )


def _log_progress(context: dg.AssetExecutionContext) -> Progress:
    last = time.monotonic()

    def log(stage: str, n_done: int, n_total: int) -> None:
        nonlocal last
        if n_total and time.monotonic() - last > LOG_EVERY_SECONDS:
            last = time.monotonic()
            context.log.info("%s: %s of %s", stage, n_done, n_total)

    return log


def shards_by_dimension(
    context: dg.AssetExecutionContext, dimension: str | None
) -> dict[str, list[str]]:
    """The run's source shards, by the key of the other dimension (`""` where there is none)."""
    groups: dict[str, list[str]] = {}
    for key in context.partition_keys:
        if isinstance(key, dg.MultiPartitionKey) and dimension is not None:
            keys = key.keys_by_dimension
            groups.setdefault(keys[dimension], []).append(keys[SHARD])
        else:
            groups.setdefault("", []).append(key)
    return groups


def partition_key(shard: str, dimension: str | None, key: str) -> str:
    """The partition key of a shard and a key of the other dimension."""
    if dimension is None:
        return shard
    return dg.MultiPartitionKey({SHARD: shard, dimension: key})
