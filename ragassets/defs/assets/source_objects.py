"""`source_objects`: what the sources hold now, observed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ragassets.config import Config
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS
from ragassets.defs.events import LOGGED_BY_STEP, log_observation
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import Partitions
from ragassets.defs.resources import WorkspaceResource, now

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.stages.source_objects import SourceDiscovery

CONFIRM_DELETIONS_TAG = "ragassets/confirm_deletions"
"""Run tag: sources, separated by commas, whose deletions are meant however many they are."""

SOURCES_TAG = "ragassets/sources"
"""Run tag: the sources to list, separated by commas; all of them where it is not given."""

NAME = "source_objects"


class ObservationRequest(dg.Config):
    """What a person who starts the job in the UI can say."""

    sources: list[str] = Field(
        default_factory=list, description="The sources to list; empty for all of them."
    )
    confirm_deletions: list[str] = Field(
        default_factory=list,
        description="Sources that really lost as many documents as their listing says, more than"
        " max_delete_share allows: delete them.",
    )


def build_source_objects(partitions: Partitions, config: Config) -> dg.AssetsDefinition:
    """The observed asset: a shard's data version changes only when its listing changed."""

    # `observable_source_asset` knows neither owners nor kinds, nor metadata of a partition.
    @dg.multi_observable_source_asset(
        name=NAME,
        specs=[
            dg.AssetSpec(
                NAME,
                description="URI, ETag, size and time of every object that the sources hold now. A"
                " vanished object stays as a tombstone; a listing that would remove too much"
                " removes nothing.",
                group_name="ingestion",
                kinds={"deltalake"},
                owners=OWNERS,
                code_version=STAGE_VERSIONS[NAME],
                partitions_def=partitions.shards,
                metadata={"sources": _configured(config)},
            )
        ],
    )
    def source_objects(
        context: dg.AssetExecutionContext,
        config: ObservationRequest,
        workspace: dg.ResourceParam[WorkspaceResource],
    ) -> dg.ObserveResult:
        tags = context.run.tags
        named = config.sources or _names(tags.get(SOURCES_TAG))
        confirmed = [*config.confirm_deletions, *_names(tags.get(CONFIRM_DELETIONS_TAG))]
        with failing_once(context):
            for name in config.sources:
                workspace.config.source(name)
            sources = named or list(workspace.config.sources)
            observe(context, workspace.workspace, sources, confirmed=confirmed)
        return dg.ObserveResult(metadata=dict(LOGGED_BY_STEP))

    return source_objects


def observe(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    workspace: "Workspace",
    sources: Sequence[str],
    *,
    confirmed: Sequence[str],
) -> None:
    """List some sources, record what changed, and log an observation for each of their shards.

    Args:
        context: Of the step.
        workspace: Where to read and write.
        sources: Which ones.
        confirmed: Those whose deletions are meant, however many.
    """
    from ragassets.stages.source_objects import discover

    for source in discover(workspace, sources, now=now(), confirmed=confirmed):
        if source.problem:
            context.log.error("%s: %s", source.source, source.problem)
        for shard, version in source.data_versions.items():
            log_observation(context, NAME, shard, version, shown_discovery(source))


def _names(tag: str | None) -> list[str]:
    return tag.split(",") if tag else []


def shown_discovery(source: "SourceDiscovery") -> Metadata:
    """What the UI shows of how a source was discovered."""
    return {
        "source": source.source,
        "n_objects_of_source": source.n_objects,
        "n_new": source.n_new,
        "n_changed": source.n_changed,
        metadata.N_REMOVED: source.n_removed,
        "problem": source.problem or "none",
        **(
            {}
            if source.n_behind is None
            else {
                "n_messages_behind": source.n_behind,
                "n_without_identity": source.n_without_identity,
            }
        ),
    }


def _configured(config: Config) -> dg.MarkdownMetadataValue:
    rows = [
        {"source": name, "uri": source.uri, "shards": source.shards}
        for name, source in config.sources.items()
    ]
    return metadata.markdown_table(rows, n_rows=len(rows))
