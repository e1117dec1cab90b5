"""Updates of what is served before fills of what is under construction.

One sensor evaluates all conditions in one tick, and Dagster gives everything that it asks for the
same tags. Here its requests are parted: what a live version or a canary is made from gets a
priority above everything else and a place in the queue that no fill can take; the rest has the
lowest priority, and few runs at once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster import AssetKey

# What a sensor's tick returns, and what a backfill covers, has no public name.
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.sensor_definition import SensorExecutionData

AUTOMATIC_TAG = "ragassets/automatic"
"""Run tag of what starts by itself: `live` or `fill`."""

BACKFILL_TAG = "ragassets/backfill"
"""Run tag of fills; `dagster.yaml` bounds how many such runs there are at once."""

LIVE_TAGS = {
    # A command or a person starts runs of priority 0; an update of what is served is small, and
    # searches answer from yesterday until it is done.
    "dagster/priority": "5",
    AUTOMATIC_TAG: "live",
}

FILL_TAGS = {
    "dagster/priority": "-10",
    AUTOMATIC_TAG: "fill",
    BACKFILL_TAG: "automatic",
}

IsLive = Callable[[AssetKey, str | None], bool]
"""Whether a partition of an asset, or an asset without any, belongs to what is served."""


class LiveFirstSensor(dg.AutomationConditionSensorDefinition):
    """Evaluates conditions, and parts what they ask for in live updates and fills."""

    def asking(self, is_live: "Callable[[], IsLive]") -> "LiveFirstSensor":
        """Set who says what is live; asked once a tick."""
        self._is_live = is_live
        return self

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """The tick with its requests parted."""
        data = super().evaluate_tick(context)
        repository = context.repository_def
        if not data.run_requests or repository is None:
            return data
        parted = part_requests(data.run_requests, self._is_live(), repository.asset_graph)
        return SensorExecutionData(
            run_requests=parted,
            cursor=data.cursor,
            log_key=data.log_key,
            # Dagster leaves the type of the evaluated key open.
            automation_condition_evaluations=data.automation_condition_evaluations,  # pyright: ignore[reportUnknownMemberType]
        )


def part_requests(
    requests: Sequence[dg.RunRequest], is_live: IsLive, asset_graph: Any
) -> list[dg.RunRequest]:
    """The requests with the tags of what they are for; one that is for both becomes two.

    Args:
        requests: Of one tick: backfills over several partitions, and runs of single ones.
        is_live: Tells partitions apart.
        asset_graph: Dagster's own, to make backfills for.
    """
    return [part for request in requests for part in _parts(request, is_live, asset_graph)]


def _parts(request: dg.RunRequest, is_live: IsLive, asset_graph: Any) -> Iterator[dg.RunRequest]:
    subset = request.asset_graph_subset
    if subset is None:
        assets = request.asset_selection or ()
        is_for_live = any(is_live(asset, request.partition_key) for asset in assets)
        yield _tagged(request, is_live=is_for_live)
        return
    partitions = list(subset.iterate_asset_partitions())
    live = {entry for entry in partitions if is_live(entry.asset_key, entry.partition_key)}
    for some, is_for_live in ((live, True), (set(partitions) - live, False)):
        if some:
            covered = _subset(some, asset_graph)
            yield _tagged(
                request.with_replaced_attrs(asset_graph_subset=covered), is_live=is_for_live
            )


def _subset(partitions: set[AssetKeyPartitionKey], asset_graph: Any) -> AssetGraphSubset:
    # Dagster leaves the type of the graph's keys open.
    return AssetGraphSubset.from_asset_partition_set(  # pyright: ignore[reportUnknownMemberType]
        partitions, asset_graph
    )


def _tagged(request: dg.RunRequest, *, is_live: bool) -> dg.RunRequest:
    own = LIVE_TAGS if is_live else FILL_TAGS
    kept = {
        key: value for key, value in request.tags.items() if key not in (*LIVE_TAGS, *FILL_TAGS)
    }
    return request.with_replaced_attrs(tags={**kept, **own})
