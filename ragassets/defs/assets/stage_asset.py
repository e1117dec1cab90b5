"""The shape that all stage assets share: take the run's partitions, update the stage, report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from ragassets.config import Config
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs.events import PartitionEvents
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import Metadata
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import partition_key, run_context, shards_by_dimension
from ragassets.defs.stage_metadata import stage_metadata

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.stages import RunContext, Stage, StageReport

Update = Callable[
    ["Workspace", str, Sequence[str], "RunContext"], "tuple[Stage, Mapping[str, StageReport]]"
]
"""Brings some shards up to date, under one key of the other dimension (`""` without one)."""

Settings = Callable[[Config, str], Metadata]
"""What of the configuration decides the output under a key of the other dimension, for the UI."""

OWNERS = ["team:data-platform"]

SHARDS_AT_ONCE = 64
"""Bounds the memory of a run over many shards; each commit costs about 0.1 s, however many."""

RETRY_POLICY = dg.RetryPolicy(
    max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""For errors of the machine and of services: those of a document never reach Dagster."""


def build_stage_asset(  # noqa: PLR0913 - by keyword only, and each is one property of the asset
    *,
    name: str,
    description: str,
    group: str,
    kinds: set[str],
    partitions_def: dg.PartitionsDefinition[str],
    deps: Sequence[dg.AssetDep],
    update: Update,
    dimension: str | None = None,
    settings: Settings = lambda _config, _key: {},
    pool: str | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    shards_at_once: int | None = SHARDS_AT_ONCE,
    automation_condition: dg.AutomationCondition[dg.AssetKey] | None = None,
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
        settings: Metadata about the key of the second dimension.
        pool: What limits how many steps run at once, across runs.
        backfill_policy: How many partitions one run takes; one where it is not given.
        shards_at_once: Shards that are held in memory and committed together; all when None.
        automation_condition: When Dagster starts a run by itself; never when None.
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
        automation_condition=automation_condition,
    )
    def stage_asset(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.MaterializeResult[Any]:
        events = PartitionEvents(context)
        with failing_once(context):
            stage_context = run_context(context, workspace)
            for key, shards in _parts(context, dimension, shards_at_once):
                started = time.monotonic()
                stage, reports = update(workspace.workspace, key, shards, stage_context)
                seconds = time.monotonic() - started
                other = {dimension: key} if dimension is not None else {}
                shown = stage_metadata(workspace, stage, reports, other, seconds=seconds)
                for shard, report in reports.items():
                    events.log(
                        partition_key(shard, dimension, key),
                        report.data_version,
                        {**shown[shard], **settings(workspace.config, key)},
                    )
        return events.result()

    return stage_asset


def _parts(
    context: dg.AssetExecutionContext, dimension: str | None, shards_at_once: int | None
) -> Iterator[tuple[str, list[str]]]:
    """The run's shards by the key of the other dimension, cut to what is worked on at once."""
    for key, shards in shards_by_dimension(context, dimension).items():
        size = shards_at_once or len(shards)
        for start in range(0, len(shards), size):
            yield key, shards[start : start + size]
