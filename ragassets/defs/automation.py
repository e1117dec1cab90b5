"""What Dagster starts by itself: index versions that are missing or behind.

The conditions stand on the assets from `chunks` on, and one sensor evaluates them. They look at
data versions, so a partition that was made again with the same content asks for nothing; each asks
once: what failed waits for a change, for `ragassets index build` or for a person.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ragassets.config import Config

SENSOR = "keep_index_versions"

TICK_SECONDS = 10
"""An idle tick over 1,024 shards takes half a second."""

BACKFILL_TAG = "ragassets/backfill"
"""Run tag of what the sensor starts; `dagster.yaml` bounds how many such runs there are at once."""

RUN_TAGS = {
    # What a command or a person starts has priority 0 and goes first.
    "dagster/priority": "-10",
    BACKFILL_TAG: "automatic",
}

COMMAND_TAG = "ragassets/command"
"""Run tag of the runs that a `ragassets` command computes in its own process."""

_Condition = dg.AutomationCondition


class BelongsToCurrentVersion(dg.AutomationCondition[dg.AssetKey]):
    """True for partitions of automatic keys, and of keys that were begun.

    A version with `backfill: manual` waits for a person; what somebody began is kept current.
    """

    def __init__(self, dimension: str | None, automatic: Collection[str]) -> None:
        """Tell partitions apart by a dimension's key; by the whole key where there is but one."""
        self._dimension = dimension
        self._automatic = frozenset(automatic)

    @property
    def name(self) -> str:
        """What the UI shows."""
        return f"{self._dimension or 'index_version'} is automatic, or was begun"

    @property
    def requires_cursor(self) -> bool:
        """Nothing is remembered from tick to tick."""
        return False

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Ask the configuration, and the event log for what was begun."""
        view = context.asset_graph_view
        partitions_def = view.asset_graph.get(context.key).partitions_def
        if partitions_def is None:
            return dg.AutomationResult(context, context.candidate_subset)
        begun = view.instance.get_materialized_partitions(context.key)
        wanted = self._automatic | {self._key(partition) for partition in begun}
        chosen = {key for key in partitions_def.get_partition_keys() if self._key(key) in wanted}
        current = view.get_subset_from_partition_keys(context.key, partitions_def, chosen)
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection(current))

    def _key(self, partition: str) -> str:
        if self._dimension is None:
            return partition
        # Keys of several dimensions are joined in the order of the dimensions' names, and
        # `source_shard` comes last of all that the graph has.
        return partition.rsplit("|", 1)[0]


COMMAND_PAUSE = timedelta(seconds=10)
"""A command that did something so recently may be between two of its runs."""


class NoCommandAtWork(dg.AutomationCondition[dg.AssetKey]):
    """True while no `ragassets` command computes: it goes through all stages by itself.

    Should a run slip in nevertheless, one of the two loses against the tables' check for concurrent
    writers, and its step tries again.
    """

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "no command is at work"

    @property
    def requires_cursor(self) -> bool:
        """Nothing is remembered from tick to tick."""
        return False

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Look for a run of a command that is going on, or ended just now."""
        view = context.asset_graph_view
        is_busy = is_command_at_work(view.instance, view.effective_dt)
        subset = context.get_empty_subset() if is_busy else context.candidate_subset
        return dg.AutomationResult(context, subset)


def is_command_at_work(instance: dg.DagsterInstance, now: datetime) -> bool:
    """Whether a `ragassets` command has a run that is going on, or ended just now."""
    tags = {COMMAND_TAG: "true"}
    going_on = RunsFilter(statuses=[DagsterRunStatus.STARTED], tags=tags)
    just_now = RunsFilter(tags=tags, updated_after=now - COMMAND_PAUSE)
    return any(map(instance.get_runs_count, (going_on, just_now)))


def keep_versions_current(
    dimension: str | None, automatic: Collection[str]
) -> _Condition[dg.AssetKey]:
    """Ask for partitions that are missing or whose inputs changed, once all inputs are there."""
    return (
        BelongsToCurrentVersion(dimension, automatic)
        & _asked_for(_Condition.missing().newly_true() | _inputs_changed())
        & ~_Condition.any_deps_missing()
        & _at_rest()
    ).with_label("missing or behind")


def follow_changes() -> _Condition[dg.AssetKey]:
    """Ask when an input changed, whether or not others are missing."""
    return (_asked_for(_inputs_changed()) & _at_rest()).with_label("an input changed")


def follow_changes_of_any() -> _Condition[dg.AssetKey]:
    """Ask when an input changed, even while others are being made.

    For an asset over all shards: under a steady stream of changes some shard is always being made,
    and waiting for the end of it would be for ever. What changes meanwhile asks again.
    """
    return (
        _asked_for(_inputs_changed()) & ~_Condition.in_progress() & NoCommandAtWork()
    ).with_label("any input changed")


def build_automation_sensor(*assets: str) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates the conditions of these assets, running by default."""
    return dg.AutomationConditionSensorDefinition(
        SENSOR,
        target=dg.AssetSelection.assets(*assets),
        run_tags=RUN_TAGS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=TICK_SECONDS,
        # The daemon could not evaluate conditions of our own.
        use_user_code_server=True,
        description="Builds index versions with `backfill: auto`, and keeps those current that"
        " were begun. Its runs have the lowest priority.",
    )


def automatic_keys(config: Config) -> dict[str, list[str]]:
    """The chunkings, embedding sets and index versions that need no person to be built."""
    automatic = {
        name: version
        for name, version in config.index_versions.items()
        if version.backfill == "auto"
    }
    return {
        "chunkings": sorted({version.chunking for version in automatic.values()}),
        "embedding_sets": sorted({version.embedding_set for version in automatic.values()}),
        "index_versions": sorted(automatic),
    }


def _asked_for(trigger: _Condition[dg.AssetKey]) -> _Condition[dg.AssetKey]:
    """From the trigger on, until it was asked for or made.

    Unlike `since_last_handled` the first look counts: what is missing then is to be built too.
    """
    return trigger.since(_Condition.newly_requested() | _Condition.newly_updated())


def _inputs_changed() -> _Condition[Any]:
    # Dagster leaves the type of this parameter open.
    return _Condition.any_deps_match(  # pyright: ignore[reportUnknownMemberType]
        _Condition.data_version_changed()
    )


def _at_rest() -> _Condition[dg.AssetKey]:
    """Neither the partition nor an input is being made."""
    return ~_Condition.any_deps_in_progress() & ~_Condition.in_progress() & NoCommandAtWork()
