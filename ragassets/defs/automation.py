"""What Dagster starts by itself: index versions that are missing or behind.

The conditions stand on the assets from `chunks` on, and one sensor evaluates them. They look at
data versions, so a partition that was made again with the same content asks for nothing; each asks
once. A document or chunk that failed for a passing reason is asked for again when its time has come
(`core/retry_delays.py`); a run that failed as a whole waits for a change, for `ragassets index
build` or for a person. Which keys the conditions may ask for is said in `defs/version_keys.py`.
"""

from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ragassets.defs.events import DATA_VERSION_TAG, DROPPED, began_at
from ragassets.defs.live_first import FILL_TAGS, IsLive, LiveFirstSensor
from ragassets.defs.version_keys import VersionKeys, key_of

SENSOR = "keep_index_versions"

TICK_SECONDS = 10
"""An idle tick over 1,024 shards takes half a second."""

COMMAND_TAG = "ragassets/command"
"""Run tag of the runs that a `ragassets` command computes in its own process."""

_Condition = dg.AutomationCondition


class Memoryless(dg.AutomationCondition[dg.AssetKey]):
    """A condition that looks at what is, and remembers nothing from tick to tick."""

    @property
    def requires_cursor(self) -> bool:
        """No."""
        return False


class BelongsToCurrentVersion(Memoryless):
    """True for partitions of automatic keys, and of keys that were begun; never of dropped ones.

    A version with `backfill: manual` waits for a person; what somebody began is kept current, until
    somebody drops it.
    """

    def __init__(self, keys: VersionKeys) -> None:
        """Ask these keys."""
        self._keys = keys

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "is automatic, or was begun, and is not dropped"

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Ask the configuration and what was dropped, and the event log for what was begun."""
        view = context.asset_graph_view
        partitions_def = view.asset_graph.get(context.key).partitions_def
        if partitions_def is None:
            return dg.AutomationResult(context, context.candidate_subset)
        asset = context.key.to_user_string()
        begun = view.instance.get_materialized_partitions(context.key)
        wanted = self._keys.current(asset, map(key_of, begun), view.effective_dt)
        chosen = {key for key in partitions_def.get_partition_keys() if key_of(key) in wanted}
        current = view.get_subset_from_partition_keys(context.key, partitions_def, chosen)
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection(current))


class IsEmptied(Memoryless):
    """True for partitions that Dagster takes for made, and whose rows went with a dropped version.

    Only where somebody needs them again: the version was begun anew, or another one came.
    """

    def __init__(self, keys: VersionKeys) -> None:
        """Ask these keys."""
        self._keys = keys

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "was emptied with a dropped version"

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Ask what was ever dropped, and for those keys alone the event log."""
        view = context.asset_graph_view
        partitions_def = view.asset_graph.get(context.key).partitions_def
        asset, now = context.key.to_user_string(), view.effective_dt
        suspects = self._keys.ever_emptied(asset, now)
        if partitions_def is None or not suspects:
            return dg.AutomationResult(context, context.get_empty_subset())
        tags = view.instance.event_log_storage.get_latest_tags_by_partition(
            context.key,
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            [DATA_VERSION_TAG],
            [key for key in partitions_def.get_partition_keys() if key_of(key) in suspects],
        )
        emptied = {key for key, found in tags.items() if found[DATA_VERSION_TAG] == DROPPED}
        subset = view.get_subset_from_partition_keys(context.key, partitions_def, emptied)
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection(subset))


class IsDueForRetry(Memoryless):
    """True for partitions with a failure that may pass and whose time has come.

    A run that tries it again moves that time, so what stays true belongs to a run that died.
    """

    def __init__(self, keys: VersionKeys) -> None:
        """Ask these keys."""
        self._keys = keys

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "a failure is to be tried again"

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Ask the failed rows."""
        view = context.asset_graph_view
        partitions_def = view.asset_graph.get(context.key).partitions_def
        due = self._keys.due_for_retry(context.key.to_user_string(), view.effective_dt)
        if partitions_def is None or not due:
            return dg.AutomationResult(context, context.get_empty_subset())
        known = due.intersection(partitions_def.get_partition_keys())
        subset = view.get_subset_from_partition_keys(context.key, partitions_def, known)
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection(subset))


class MadeFromOlderInputs(Memoryless):
    """True for partitions whose newest run began before an input was made.

    Such a run ends what was to be done about older changes, not about those: without this, a
    document that changes while its chunks are being made would never be chunked again.
    """

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "an input was made after the run began"

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Compare the inputs' newest events with where the log stood when the run began."""
        view, key = context.asset_graph_view, context.key
        found = context.get_empty_subset()
        partitions_def = view.asset_graph.get(key).partitions_def
        if partitions_def is None or context.candidate_subset.is_empty:
            return dg.AutomationResult(context, found)
        began = began_at(view.instance, key, context.candidate_subset)
        storage = view.instance.event_log_storage
        for parent in view.asset_graph.get(key).parent_keys:
            newest = storage.get_latest_storage_id_by_partition(
                parent, dg.DagsterEventType.ASSET_MATERIALIZATION
            )
            parent_def = view.asset_graph.get(parent).partitions_def
            # Runs over many partitions leave few moments.
            for moment in sorted(set(began.values())):
                late = {name for name, event in newest.items() if event > moment}
                if parent_def is None or not late:
                    continue
                late &= set(parent_def.get_partition_keys())
                of_moment = {name for name, at in began.items() if at == moment}
                made = view.get_subset_from_partition_keys(key, partitions_def, of_moment)
                inputs = view.get_subset_from_partition_keys(parent, parent_def, late)
                behind = view.compute_child_subset(key, inputs).compute_intersection(made)
                found = found.compute_union(behind)
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection(found))


COMMAND_PAUSE = timedelta(seconds=10)
"""A command that did something so recently may be between two of its runs."""


class NoCommandAtWork(Memoryless):
    """True while no `ragassets` command computes: it goes through all stages by itself.

    Should a run slip in nevertheless, one of the two loses against the tables' check for concurrent
    writers, and its step tries again.
    """

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "no command is at work"

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


def keep_versions_current(keys: VersionKeys) -> _Condition[dg.AssetKey]:
    """Ask for partitions that are missing, behind or due for a retry, once all inputs are there."""
    is_missing = _Condition.missing() | IsEmptied(keys)
    return (
        BelongsToCurrentVersion(keys)
        & _asked_for(is_missing.newly_true() | _inputs_changed() | IsDueForRetry(keys).newly_true())
        & ~_any_input(_Condition.missing() | IsEmptied(keys))
        & _at_rest()
    ).with_label("missing, behind or due")


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


def build_automation_sensor(keys: VersionKeys, *assets: str) -> LiveFirstSensor:
    """The sensor that evaluates the conditions of these assets, running by default."""

    def who_is_live() -> IsLive:
        live = {asset: keys.live(asset) for asset in assets}

        def is_live(asset: dg.AssetKey, partition: str | None) -> bool:
            wanted = live.get(asset.to_user_string())
            # Dead letters, the catalog and the aliases tell of what is served.
            return wanted is None or partition is None or key_of(partition) in wanted

        return is_live

    return LiveFirstSensor(
        SENSOR,
        target=dg.AssetSelection.assets(*assets),
        # What it asks for is parted afterwards; without that it would all be fills.
        run_tags=FILL_TAGS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=TICK_SECONDS,
        # The daemon could not evaluate conditions of our own.
        use_user_code_server=True,
        description="Builds index versions with `backfill: auto`, and keeps those current that"
        " were begun. Updates of a version that is served, or is a canary, go first; fills have the"
        " lowest priority.",
    ).asking(who_is_live)


def _asked_for(trigger: _Condition[dg.AssetKey]) -> _Condition[dg.AssetKey]:
    """From the trigger on, until it was asked for or made.

    Unlike `since_last_handled` the first look counts: what is missing then is to be built too.
    """
    took_it_in = _Condition.newly_updated() & ~MadeFromOlderInputs()
    # Where both are new in one tick, Dagster lets the end win. But what changed right after a
    # request is not what was asked for.
    asked_before = _Condition.newly_requested() & ~trigger
    return trigger.since(asked_before | took_it_in)


def _inputs_changed() -> _Condition[Any]:
    return _any_input(_Condition.data_version_changed())


def _any_input(condition: _Condition[Any]) -> _Condition[Any]:
    # Dagster leaves the type of this parameter open.
    return _Condition.any_deps_match(condition)  # pyright: ignore[reportUnknownMemberType]


def _at_rest() -> _Condition[dg.AssetKey]:
    """Neither the partition nor an input is being made."""
    return ~_Condition.any_deps_in_progress() & ~_Condition.in_progress() & NoCommandAtWork()
