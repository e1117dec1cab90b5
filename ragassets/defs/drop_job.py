"""Dropping index versions as a Dagster run, so that the UI shows who dropped what, and why."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from dagster import AssetKey, DagsterInstance
from pydantic import Field

from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import RETRY_POLICY
from ragassets.defs.events import DATA_VERSION_TAG, DROPPED, IS_USER_PROVIDED_TAG
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import CHUNKING, EMBEDDING_SET, INDEX_VERSION
from ragassets.defs.resources import WorkspaceResource, now
from ragassets.defs.runtime import partition_key

if TYPE_CHECKING:
    from ragassets.stages.dropping import Removal

DROP_INDEX_VERSIONS = "drop_index_versions"
STEP = "remove_index_versions"
"""The one step of the job: Dagster wants another name for it."""

EXPIRED_REASON = "not configured any more, and its retention is over"


class DropRequest(dg.Config):
    """Which index versions go, and why."""

    index_versions: list[str] = Field(default_factory=list)
    is_expired: bool = False
    """Also all that are not configured any more and whose retention is over."""
    actor: str = "dagster"
    reason: str = ""
    is_now: bool = False
    """Drop them within their retention; needs a reason."""


@dg.op(
    name=STEP,
    description="Removes collections, rows and judgements of index versions that no alias uses.",
    pool="vector_store",
    retry_policy=RETRY_POLICY,
)
def drop_index_versions_op(
    context: dg.OpExecutionContext,
    config: DropRequest,
    workspace: dg.ResourceParam[WorkspaceResource],
) -> None:
    """Remove what was asked for, one version after the other."""
    from ragassets.core.stages import RunContext
    from ragassets.stages.dropping import expired_versions, finish_drop, remove_version

    opened = workspace.workspace
    run = RunContext(context.run.run_id, now)
    with failing_once(context):
        names = list(config.index_versions)
        reasons = dict.fromkeys(names, config.reason)
        if config.is_expired:
            found = expired_versions(opened, now())
            reasons |= {
                name: config.reason or EXPIRED_REASON
                for name, obstacle in found.items()
                if obstacle is None
            }
        for name, reason in reasons.items():
            removal = remove_version(
                opened, name, run, actor=config.actor, reason=reason, is_now=config.is_now
            )
            for event in drop_events(context.instance, removal):
                context.log_event(event)
            finish_drop(opened, name)


@dg.job(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
    name=DROP_INDEX_VERSIONS,
    description="Drop index versions; the run config says which.",
    executor_def=dg.in_process_executor,
)
def drop_index_versions() -> None:
    """The one step."""
    drop_index_versions_op()


def run_config(request: DropRequest) -> dict[str, object]:
    """What the job is started with."""
    return {"ops": {STEP: {"config": request.model_dump()}}}


def build_drop_schedule() -> dg.ScheduleDefinition:
    """Drops every night what is not configured any more; off until somebody turns it on.

    A wrong configuration file that is deployed for an hour must not cost a collection.
    """
    return dg.ScheduleDefinition(
        name="drop_expired_index_versions",
        job_name=DROP_INDEX_VERSIONS,
        cron_schedule="30 3 * * *",
        run_config=run_config(DropRequest(is_expired=True)),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Drops index versions that are not configured any more, once their retention"
        " is over.",
    )


def drop_events(instance: DagsterInstance, removal: "Removal") -> Iterator[dg.AssetMaterialization]:
    """The drop in the history of every partition that is empty now.

    Dagster cannot take back that a partition was made. Its data version says that nothing is in it,
    and automation takes that for missing (`defs/automation.py`).
    """
    drop = removal.drop
    facts: Metadata = {
        "state": "dropped",
        "dropped_by": drop.actor,
        "reason": drop.reason or "no reason given",
    }
    yield _event(
        "index_versions",
        drop.index_version,
        {
            **facts,
            "n_points": removal.n_points,
            metadata.N_REMOVED: removal.n_indexed_chunks,
            "embeddings_removed": removal.n_embeddings,
            "chunks_removed": removal.n_chunks,
        },
    )
    for asset, dimension, key in (
        ("indexed_chunks", INDEX_VERSION, drop.index_version),
        ("embeddings", EMBEDDING_SET, removal.embedding_set),
        ("chunks", CHUNKING, removal.chunking),
    ):
        made = instance.get_materialized_partitions(AssetKey(asset)) if key else ()
        for partition in sorted(made):
            of_key, _, shard = partition.rpartition("|")
            if key is not None and of_key == key:
                yield _event(asset, partition_key(shard, dimension, key), facts)


def _event(asset: str, partition: str, facts: Metadata) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset,
        partition=partition,
        metadata=dict(facts),
        tags={DATA_VERSION_TAG: DROPPED, IS_USER_PROVIDED_TAG: "true"},
    )
