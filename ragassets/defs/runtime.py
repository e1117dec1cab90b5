"""What every stage asset does around its stage: run context, per-partition reports, data versions."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterRun

from ragassets.core.fingerprints import stable_hash
from ragassets.defs import metadata
from ragassets.defs.partitions import SHARD
from ragassets.defs.resources import WorkspaceResource, now

if TYPE_CHECKING:
    from ragassets.core.stages import RunContext, Stage, StageReport

DATA_VERSION_TAG = "dagster/data_version"
IS_USER_PROVIDED_TAG = "dagster/data_version_is_user_provided"
CODE_VERSION_TAG = "dagster/code_version"

DEFER_EVENTS_TAG = "dagster/defer_asset_events"
"""Run tag: Dagster leaves asset events to the step. A run over several partitions gives all of them
one data version otherwise; `ragassets_tests/defs/test_dagster_behaviour.py` watches over it."""

Metadata = Mapping[str, dg.MetadataValue | str | int | float]
PartitionEvent = tuple[str, Metadata]
"""Data version and metadata of one partition."""


def run_context(
    context: dg.AssetExecutionContext, resource: WorkspaceResource
) -> "RunContext":
    """What a stage knows of this run."""
    from ragassets.core.stages import RunContext

    run: DagsterRun = context.run
    return RunContext(
        run_id=run.run_id,
        now=now,
        checkpoints=resource.workspace.checkpoints,
        progress=PROGRESS.get(run.run_id, _log_progress(context)),
    )


PROGRESS: dict[str, Callable[[str, int, int], None]] = {}
"""Progress callbacks of runs that a command computes in its own process, by run id."""


def _log_progress(context: dg.AssetExecutionContext) -> Callable[[str, int, int], None]:
    """Log every tenth of a stage, at most every ten seconds."""
    last = time.monotonic()

    def log(stage: str, n_done: int, n_total: int) -> None:
        nonlocal last
        if n_total and time.monotonic() - last > 10:  # noqa: PLR2004
            last = time.monotonic()
            context.log.info(f"{stage}: {n_done} of {n_total}")

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


def report_partitions(
    context: dg.AssetExecutionContext, events: Mapping[str, PartitionEvent]
) -> dg.MaterializeResult[None]:
    """Give every partition of the run its own metadata and data version.

    Args:
        context: The step's context.
        events: By partition key.
    """
    key = context.asset_key
    code_version = context.assets_def.code_versions_by_key.get(key) or "1"
    if context.run.tags.get(DEFER_EVENTS_TAG) == "true":
        for partition, (data_version, values) in events.items():
            context.log_event(
                dg.AssetMaterialization(
                    key,
                    partition=partition,
                    metadata=dict(values),
                    tags={
                        DATA_VERSION_TAG: data_version,
                        IS_USER_PROVIDED_TAG: "true",
                        CODE_VERSION_TAG: code_version,
                    },
                )
            )
        return dg.MaterializeResult()
    for partition, (_, values) in events.items():
        context.add_asset_metadata(dict(values), asset_key=key, partition_key=partition)
    versions = [version for _, (version, _) in sorted(events.items())]
    shared = versions[0] if len(versions) == 1 else stable_hash(*versions)
    return dg.MaterializeResult(data_version=dg.DataVersion(shared))


def stage_events(
    resource: WorkspaceResource,
    stage: "Stage",
    reports: Mapping[str, "StageReport"],
    seconds: float,
    **dimension: str,
) -> dict[str, PartitionEvent]:
    """Events of a stage's partitions, by source shard."""
    return {
        shard: (
            report.data_version,
            {
                metadata.N_INPUTS: report.n_inputs,
                metadata.N_COMPUTED: report.n_computed,
                metadata.N_REUSED: report.n_reused,
                metadata.N_REMOVED: report.n_removed,
                metadata.N_FAILED: report.n_failed,
                metadata.N_NEWLY_FAILED: report.n_newly_failed,
                metadata.ROW_COUNT: report.n_rows,
                metadata.SECONDS: round(seconds, 3),
                metadata.TABLE: dg.MetadataValue.path(
                    f"{resource.config.root}/tables/{stage.name}"
                ),
                metadata.PREVIEW: _preview(resource, stage, shard, dimension),
            },
        )
        for shard, report in reports.items()
    }


def _preview(
    resource: WorkspaceResource, stage: "Stage", shard: str, dimension: Mapping[str, str]
) -> dg.MetadataValue:
    """The first rows of a partition, without the columns that are long or that nobody can read."""
    skipped = {"elements", "blocks", "vector", "minhash", "quality", SHARD, *dimension}
    if stage.key == "document_id" and "chunk_id" not in stage.content:
        skipped.add("text")
    columns = [name for name in stage.content if name not in skipped][:8]
    rows = resource.workspace.tables.read(
        stage.outputs, [{SHARD: shard, **dimension}], columns=[*columns, "output_hash"]
    )
    good = rows.drop_nulls("output_hash").select(columns).head(metadata.PREVIEW_ROWS)
    return metadata.markdown_table(good.to_dicts())


def multi_key(shard: str, dimension: str | None, key: str) -> str:
    """The partition key of a shard and a key of the other dimension."""
    if dimension is None:
        return shard
    return dg.MultiPartitionKey({SHARD: shard, dimension: key})

