"""Behaviour of Dagster that we rely on: when one of these fails, Dagster has changed."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import DagsterInstance

from ragassets.defs.events import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG,
    INPUT_EVENT_POINTER_TAG,
    LOGGED_BY_STEP,
)
from ragassets.defs.ingest import RANGE_END_TAG, RANGE_START_TAG

ABC = dg.StaticPartitionsDefinition(["a", "b", "c"])


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as opened:
        yield opened


def materializations(
    instance: DagsterInstance, asset: str
) -> dict[str | None, list[dg.AssetMaterialization]]:
    """Events of an asset by partition, newest first."""
    found: dict[str | None, list[dg.AssetMaterialization]] = {}
    for record in instance.fetch_materializations(dg.AssetKey(asset), limit=100).records:
        event = record.asset_materialization
        assert event is not None
        found.setdefault(event.partition, []).append(event)
    return found


def data_version(event: dg.AssetMaterialization) -> str:
    """What the event says of its partition's content."""
    assert event.tags is not None
    return event.tags[DATA_VERSION_TAG]


def run_range(
    assets: list[dg.AssetsDefinition], instance: DagsterInstance, first: str, last: str
) -> dg.ExecuteInProcessResult:
    """One run over a range of partitions, in this process."""
    definitions = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("job", selection="*")])
    return definitions.resolve_job_def("job").execute_in_process(
        instance=instance, tags={RANGE_START_TAG: first, RANGE_END_TAG: last}
    )


def test_range_tags_make_one_run_take_several_partitions(instance: DagsterInstance) -> None:
    """`ingest` runs a stage over all its shards in one process, so that a model loads once."""
    seen: list[list[str]] = []

    @dg.asset(partitions_def=ABC)
    def plain(context: dg.AssetExecutionContext) -> None:
        seen.append(list(context.partition_keys))

    assert run_range([plain], instance, "b", "c").success
    assert seen == [["b", "c"]]
    assert set(materializations(instance, "plain")) == {"b", "c"}


def test_range_tags_select_in_both_dimensions(instance: DagsterInstance) -> None:
    """A run takes some shards under one chunking: all keys between the two, not the whole grid."""
    seen: list[str] = []
    grid = dg.MultiPartitionsDefinition(
        {"source_shard": ABC, "chunking": dg.StaticPartitionsDefinition(["x", "y"])}
    )

    @dg.asset(partitions_def=grid)
    def plain(context: dg.AssetExecutionContext) -> None:
        seen.extend(context.partition_keys)

    assert run_range([plain], instance, "y|a", "y|c").success
    assert seen == ["y|a", "y|b", "y|c"]


def test_dagster_itself_gives_all_partitions_of_a_run_one_data_version(
    instance: DagsterInstance,
) -> None:
    """The reason why steps log their own events (`defs/events.py`)."""

    @dg.asset(partitions_def=ABC)
    def plain(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion("shared"))

    run_range([plain], instance, "a", "b")
    found = materializations(instance, "plain")

    assert {key: data_version(events[0]) for key, events in found.items()} == {
        "a": "shared",
        "b": "shared",
    }


def test_an_output_that_is_marked_as_logged_gets_no_event_of_dagsters_own(
    instance: DagsterInstance,
) -> None:
    """So each partition has exactly one event: ours, with its own data version."""

    @dg.asset(partitions_def=ABC, code_version="7")
    def own(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        for key in context.partition_keys:
            context.log_event(
                dg.AssetMaterialization(
                    "own", partition=key, tags={DATA_VERSION_TAG: key, CODE_VERSION_TAG: "7"}
                )
            )
        return dg.MaterializeResult(metadata=dict(LOGGED_BY_STEP))

    run_range([own], instance, "a", "b")
    found = materializations(instance, "own")

    assert {key: [data_version(event) for event in events] for key, events in found.items()} == {
        "a": ["a"],
        "b": ["b"],
    }


@pytest.mark.filterwarnings("ignore:.*multi_observable_source_asset.*:dagster.BetaWarning")
def test_an_observation_that_is_marked_as_logged_gets_no_event_of_dagsters_own(
    instance: DagsterInstance,
) -> None:
    """The same for observed assets; their run names no partition."""

    @dg.multi_observable_source_asset(specs=[dg.AssetSpec("seen", partitions_def=ABC)])
    def seen(context: dg.AssetExecutionContext) -> dg.ObserveResult:
        context.log_event(
            dg.AssetObservation("seen", partition="b", tags={DATA_VERSION_TAG: "new"})
        )
        return dg.ObserveResult(metadata=dict(LOGGED_BY_STEP))

    definitions = dg.Definitions(
        assets=[seen], jobs=[dg.define_asset_job("job", dg.AssetSelection.assets("seen"))]
    )
    definitions.resolve_job_def("job").execute_in_process(instance=instance)
    records = instance.fetch_observations(dg.AssetKey("seen"), limit=10).records

    assert [record.partition_key for record in records] == ["b"]


def test_a_run_over_a_range_plans_every_partition(instance: DagsterInstance) -> None:
    """The UI shows partitions as running, and as failed when the run dies before their event."""

    @dg.asset(partitions_def=ABC)
    def unlucky(context: dg.AssetExecutionContext) -> None:
        message = "no"
        raise RuntimeError(message)

    definitions = dg.Definitions(assets=[unlucky], jobs=[dg.define_asset_job("job", selection="*")])
    definitions.resolve_job_def("job").execute_in_process(
        instance=instance, tags={RANGE_START_TAG: "a", RANGE_END_TAG: "b"}, raise_on_error=False
    )
    storage = instance.event_log_storage
    look = storage.get_latest_asset_partition_materialization_attempts_without_materializations

    assert set(look(dg.AssetKey("unlucky"))) == {"a", "b"}


@pytest.mark.parametrize(("pointer", "is_stale"), [("before", True), ("after", False)])
def test_a_partition_is_stale_when_its_input_changed_after_the_event_pointer(
    instance: DagsterInstance, pointer: str, is_stale: bool
) -> None:
    """One number for all inputs replaces the pointer to each input's event (`_input_tags`)."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    @dg.asset(partitions_def=ABC, code_version="1")
    def parent() -> None: ...

    @dg.asset(partitions_def=ABC, code_version="1", deps=[parent])
    def child() -> None: ...

    def report(asset: str, version: str, **tags: str) -> None:
        tags = {DATA_VERSION_TAG: version, CODE_VERSION_TAG: "1", **tags}
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset, partition="a", tags=tags)
        )

    def newest() -> str:
        return str(instance.event_log_storage.get_maximum_record_id())

    report("parent", "old")
    before = newest()
    report("parent", "new")
    at = before if pointer == "before" else newest()
    report(
        "child",
        "any",
        **{f"{INPUT_DATA_VERSION_TAG}/parent": "-", f"{INPUT_EVENT_POINTER_TAG}/parent": at},
    )
    graph = dg.Definitions(assets=[parent, child]).resolve_asset_graph()

    loading = LoadingContextForTest(instance)
    status = CachingStaleStatusResolver(instance, graph, loading).get_status(
        dg.AssetKey("child"), "a"
    )

    assert status is (StaleStatus.STALE if is_stale else StaleStatus.FRESH)


def test_a_failure_that_allows_no_retries_ends_a_retry_policy(instance: DagsterInstance) -> None:
    """A permanent error must not wait for its retries."""
    attempts: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=3))
    def unlucky() -> None:
        attempts.append(1)
        raise dg.Failure(description="for good", allow_retries=False)

    dg.materialize([unlucky], instance=instance, raise_on_error=False)

    assert len(attempts) == 1


def test_any_object_may_be_a_resource(instance: DagsterInstance) -> None:
    """`WorkspaceResource` is a plain class: its configuration is a pydantic model of our own."""

    class Plain:
        answer = 42

    seen: list[int] = []

    @dg.asset
    def asks(workspace: dg.ResourceParam[Plain]) -> None:
        seen.append(workspace.answer)

    assert dg.materialize([asks], instance=instance, resources={"workspace": Plain()}).success
    assert seen == [42]


@pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning")
def test_a_failed_blocking_check_keeps_the_materialization_and_stops_what_is_downstream(
    instance: DagsterInstance,
) -> None:
    """A version that is not sealed: its numbers are kept, nobody serves it, nothing is retried."""
    n_tries, n_served = [], []

    @dg.asset(
        partitions_def=ABC,
        check_specs=[dg.AssetCheckSpec("good", asset="version", blocking=True, partitions_def=ABC)],
        retry_policy=dg.RetryPolicy(max_retries=2),
    )
    def version(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        n_tries.append(1)
        context.log_event(dg.AssetMaterialization("version", partition=context.partition_key))
        result = dg.AssetCheckResult(check_name="good", passed=False)
        return dg.MaterializeResult(metadata=dict(LOGGED_BY_STEP), check_results=[result])

    @dg.asset(deps=[dg.AssetDep("version", partition_mapping=dg.AllPartitionMapping())])
    def live() -> None:
        n_served.append(1)

    definitions = dg.Definitions(
        assets=[version, live], jobs=[dg.define_asset_job("job", selection="*")]
    )
    run = definitions.resolve_job_def("job").execute_in_process(
        instance=instance, partition_key="b", raise_on_error=False
    )
    (evaluation,) = run.get_asset_check_evaluations()
    assert not run.success
    assert (evaluation.partition, evaluation.blocking) == ("b", True)
    assert list(materializations(instance, "version")) == ["b"]
    assert (len(n_tries), n_served) == (1, [])
