"""`source_objects`: what the sources hold now, observed."""

import dagster as dg

from ragassets.defs.assets.stage_asset import OWNERS
from ragassets.defs.partitions import Partitions
from ragassets.defs.failures import failing_once
from ragassets.defs.resources import WorkspaceResource, now

CONFIRM_DELETIONS_TAG = "ragassets/confirm_deletions"
"""Run tag: sources, separated by commas, whose deletions are meant however many they are."""

SOURCES_TAG = "ragassets/sources"
"""Run tag: the sources to list, separated by commas; all of them where it is not given."""


def build_source_objects(partitions: Partitions) -> dg.AssetsDefinition:
    """The observed asset: a shard's data version changes only when its listing changed."""

    @dg.observable_source_asset(
        name="source_objects",
        description="URI, ETag, size and time of every object that the sources hold now. A vanished"
        " object stays as a tombstone; a listing that would remove too much removes nothing.",
        group_name="ingestion",
        partitions_def=partitions.shards,
        tags={"owner": OWNERS[0].removeprefix("team:")},
    )
    def source_objects(
        context: dg.OpExecutionContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.DataVersionsByPartition:
        from ragassets.stages.source_objects import discover

        with failing_once(context):
            tags = context.run.tags
            named = tags.get(SOURCES_TAG)
            found = discover(
                workspace.workspace,
                named.split(",") if named else list(workspace.config.sources),
                now=now(),
                confirmed=tags.get(CONFIRM_DELETIONS_TAG, "").split(","),
            )
            for source in found:
                context.log.info(
                    f"{source.source}: {source.n_objects} objects, {source.n_new} new,"
                    f" {source.n_changed} changed, {source.n_removed} removed"
                )
                if source.problem:
                    context.log.error(f"{source.source}: {source.problem}")
        return dg.DataVersionsByPartition(
            {shard: version for source in found for shard, version in source.data_versions.items()}
        )

    return source_objects
