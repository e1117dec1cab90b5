"""The shape that all stage assets share: take the run's partitions, update the stage, report."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs.failures import failing_once
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import (
    PartitionEvent,
    multi_key,
    report_partitions,
    run_context,
    shards_by_dimension,
    stage_events,
)

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport

Update = Callable[
    ["Workspace", str, Sequence[str], "RunContext"], "tuple[Stage, Mapping[str, StageReport]]"
]
"""Brings some shards up to date, under one key of the other dimension (`""` where there is none)."""

OWNERS = ["team:data-platform"]

RETRY_POLICY = dg.RetryPolicy(
    max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For errors of the machine and of services: those of a document never reach Dagster."""


def build_stage_asset(
    *,
    name: str,
    description: str,
    group: str,
    kinds: set[str],
    partitions_def: dg.PartitionsDefinition[str],
    deps: Sequence[dg.AssetDep],
    update: Update,
    dimension: str | None = None,
    pool: str | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
) -> dg.AssetsDefinition:
    """Make the asset of one stage.

    Args:
        name: The stage's and the asset's name.
        description: What a person reads in the UI; Markdown.
        group: The layer.
        kinds: What it is made with, for the UI.
        partitions_def: Shards, alone or with `dimension`.
        deps: Upstream assets with their partition mappings.
        update: The stage itself.
        dimension: Name of the second dimension.
        pool: What limits how many steps run at once, across runs.
        backfill_policy: How many partitions one run takes; one where it is not given.
    """

    @dg.asset(
        name=name,
        description=description,
        group_name=group,
        kinds=kinds,
        owners=OWNERS,
        code_version=STAGE_VERSIONS[name],
        partitions_def=partitions_def,
        deps=deps,
        pool=pool,
        retry_policy=RETRY_POLICY,
        backfill_policy=backfill_policy or dg.BackfillPolicy.multi_run(1),
    )
    def stage_asset(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[None]:
        events: dict[str, PartitionEvent] = {}
        with failing_once(context):
            stage_context = run_context(context, workspace)
            for key, shards in shards_by_dimension(context, dimension).items():
                started = time.monotonic()
                stage, reports = update(workspace.workspace, key, shards, stage_context)
                seconds = time.monotonic() - started
                other = {dimension: key} if dimension is not None else {}
                made = stage_events(workspace, stage, reports, seconds, **other)
                events |= {multi_key(shard, dimension, key): e for shard, e in made.items()}
        return report_partitions(context, events)

    return stage_asset
