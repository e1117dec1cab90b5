"""Asset events with a data version and metadata of their own for every partition of a run.

Dagster gives all partitions that a step took together one data version. Then a partition's data
version would depend on which others were in its run, and what is downstream of it would be asked
for although nothing changed. So a step logs its events itself, and tells Dagster to log none.
`ragassets_tests/defs/test_dagster_behaviour.py` watches over what this module relies on.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

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
