"""Asset events with a data version and metadata of their own for every partition of a run.

Dagster gives all partitions that a step took together one data version. Then a partition's data
version would depend on which others were in its run, and what is downstream of it would be asked
for although nothing changed. So a step logs its events itself, and tells Dagster to log none.
`ragassets_tests/defs/test_dagster_behaviour.py` watches over what this module relies on.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster import DagsterInstance

# What conditions compute with has no public name.
from dagster._core.asset_graph_view.entity_subset import EntitySubset

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs.metadata import MADE_FROM, Metadata
from ragassets.defs.upstream_links import UpstreamLinks

DATA_VERSION_TAG = "dagster/data_version"
IS_USER_PROVIDED_TAG = "dagster/data_version_is_user_provided"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_DATA_VERSION_TAG = "dagster/input_data_version"
INPUT_EVENT_POINTER_TAG = "dagster/input_event_pointer"

DROPPED = "dropped"
"""Data version of a partition whose rows went with an index version."""

EVENTS_PER_PARTITION = 3
"""Between two ticks a partition is made once, seldom twice."""

PARTITIONS_AT_ONCE = 1_000
"""In one question: each is a variable of an SQL statement, and databases bound those."""

LOGGED_BY_STEP: Metadata = {"__source_asset_observation__": dg.MetadataValue.bool(True)}
"""Metadata of an output for which Dagster logs no event: what it marks the outputs of observable
sources with, because their function has logged the observations by then."""


class PartitionEvents:
    """Logs the materializations of one step, partition by partition."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """Begin before any input is read: a later change of an input makes the partitions stale."""
        self._context = context
        self._inputs = _input_tags(context)
        self._upstream = UpstreamLinks(context)

    def log(self, partition: str, data_version: str, metadata: Metadata) -> None:
        """Record that a partition stands, with what it holds and what was done for it."""
        key = self._context.asset_key
        self._context.log_event(
            dg.AssetMaterialization(
                key,
                partition=partition,
                metadata={**metadata, MADE_FROM: self._upstream.of(partition)},
                tags={
                    DATA_VERSION_TAG: data_version,
                    IS_USER_PROVIDED_TAG: "true",
                    CODE_VERSION_TAG: STAGE_VERSIONS[key.to_user_string()],
                    **self._inputs,
                },
            )
        )

    def result(
        self, check_results: Sequence[dg.AssetCheckResult] = ()
    ) -> dg.MaterializeResult[Any]:
        """What the asset returns, with the results of the checks that are part of it."""
        return dg.MaterializeResult(metadata=dict(LOGGED_BY_STEP), check_results=check_results)


def began_at(
    instance: DagsterInstance, asset: dg.AssetKey, subset: EntitySubset[dg.AssetKey]
) -> dict[str, int]:
    """Where the event log stood when the newest run of each partition began.

    An event that does not say so is taken for made from all that was there before it.
    """
    partitions = sorted(subset.expensively_compute_partition_keys())
    began: dict[str, int] = {}
    for record in _newest_records(instance, asset, partitions):
        made = record.asset_materialization
        if made is None or made.partition is None or made.partition in began:
            continue
        prefix = f"{INPUT_EVENT_POINTER_TAG}/"
        pointers = [
            int(value)
            for tag, value in (made.tags or {}).items()
            if tag.startswith(prefix) and value.isdigit()
        ]
        began[made.partition] = min(pointers, default=record.storage_id)
    return began


def _newest_records(
    instance: DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]
) -> Iterator[dg.EventLogRecord]:
    """The last events of some partitions, newest first."""
    for start in range(0, len(partitions), PARTITIONS_AT_ONCE):
        some = partitions[start : start + PARTITIONS_AT_ONCE]
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=some)
        limit = EVENTS_PER_PARTITION * len(some)
        yield from instance.fetch_materializations(wanted, limit=limit).records


def log_observation(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    asset: str,
    partition: str,
    data_version: str,
    metadata: Metadata,
) -> None:
    """Record what a partition of an observed asset holds now."""
    context.log_event(
        dg.AssetObservation(
            asset,
            partition=partition,
            metadata=dict(metadata),
            tags={DATA_VERSION_TAG: data_version},
        )
    )


def _input_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Provenance: where the event log stood when the step began.

    Dagster calls a partition stale when an upstream partition has an event with another data
    version after this point. One number for all upstream partitions saves a query for each of them.
    """
    newest = context.instance.event_log_storage.get_maximum_record_id()
    pointer = "NULL" if newest is None else str(newest)
    inputs = context.assets_def.asset_deps[context.asset_key]
    return {
        tag: value
        for name in sorted(key.to_user_string() for key in inputs)
        for tag, value in (
            (f"{INPUT_DATA_VERSION_TAG}/{name}", f"at {pointer}"),
            (f"{INPUT_EVENT_POINTER_TAG}/{name}", pointer),
        )
    }
