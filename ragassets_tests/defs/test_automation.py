"""What Dagster starts by itself, tick by tick, on the real graph and an instance in memory."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus

from ragassets.config import Config
from ragassets.defs.automation import COMMAND_TAG, RUN_TAGS, SENSOR
from ragassets.defs.events import DATA_VERSION_TAG
from ragassets.defs.graph import AUTOMATED, build_definitions

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

SHARDS = ("handbook-000", "handbook-001")
V1 = {"chunking": "big", "embedding_model": "minilm"}
MANUAL = {"chunking": "small", "embedding_model": "minilm", "backfill": "manual"}
UPSTREAM = ("unique_documents", "clean_documents", "parsed_documents", "raw_documents")


def config(**versions: Mapping[str, str]) -> Config:
    """One source of two shards, two chunkings, and these index versions."""
    return Config.model_validate(
        {
            "sources": {"handbook": {"uri": "/documents", "shards": 2}},
            "chunkings": {"big": {}, "small": {"max_tokens": 64, "overlap_tokens": 8}},
            "index_versions": versions,
            "aliases": {"documents": {"live": "v1"}},
        }
    )


class Daemon:
    """Ticks of the sensor over one instance; what it asks for is made only when told so."""

    def __init__(self, instance: DagsterInstance, settings: Config) -> None:
        """Begin with an instance on which nothing ever ran."""
        self.instance = instance
        self.cursor = None
        self.configure(settings)

    def configure(self, settings: Config) -> None:
        """Load another configuration, as a reload of the code location does."""
        self.definitions = build_definitions(settings)

    def tick(self, seconds_from_now: float = 0) -> dict[str, set[str | None]]:
        """Evaluate once; the partitions that are asked for, by asset."""
        result = dg.evaluate_automation_conditions(
            self.definitions,
            self.instance,
            cursor=self.cursor,
            evaluation_time=datetime.now(UTC) + timedelta(seconds=seconds_from_now),
        )
        self.cursor = result.cursor
        keys = {name: result.get_requested_partitions(AssetKey(name)) for name in AUTOMATED}
        return {name: set(partitions) for name, partitions in keys.items() if partitions}

    def make(self, asset: str, *partitions: str | None, version: str = "1") -> None:
        """Report that partitions stand, with a data version."""
        for partition in partitions:
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset, partition=partition, tags={DATA_VERSION_TAG: version}
                )
            )

    def settle(self) -> list[dict[str, set[str | None]]]:
        """Tick, making whatever is asked for, until nothing is; every tick's requests."""
        ticks: list[dict[str, set[str | None]]] = []
        for _ in range(8):
            asked = self.tick()
            if not asked:
                return ticks
            ticks.append(asked)
            for asset, partitions in asked.items():
                self.make(asset, *partitions)
        pytest.fail(f"it never comes to rest: {ticks}")


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """An automatic version, over documents that are there."""
    with DagsterInstance.ephemeral() as instance:
        started = Daemon(instance, config(v1=V1))
        for asset in UPSTREAM:
            started.make(asset, *SHARDS)
        yield started


def of(dimension: str) -> set[str]:
    """The keys of a two-dimensional asset under one key."""
    return {f"{dimension}|{shard}" for shard in SHARDS}


def test_an_automatic_version_is_built_from_chunks_to_alias(daemon: Daemon) -> None:
    """Nobody has to do anything but write the entry."""
    asked = daemon.settle()
    everything = {(name, key) for tick in asked for name, keys in tick.items() for key in keys}
    assert {("chunks", key) for key in of("big")} <= everything
    assert {("embeddings", key) for key in of("big.minilm")} <= everything
    assert {("indexed_chunks", key) for key in of("v1")} <= everything
    assert {("index_versions", "v1"), ("live_index", None)} <= everything
    assert daemon.tick() == {}


def test_a_manual_version_waits_and_is_kept_current_once_begun(daemon: Daemon) -> None:
    daemon.configure(config(v1=V1, v2=MANUAL))
    asked = {key for tick in daemon.settle() for keys in tick.values() for key in keys}
    assert not any("small" in str(key) or "v2" in str(key) for key in asked)

    daemon.make("chunks", *of("small"))
    daemon.make("embeddings", *of("small.minilm"))
    daemon.make("indexed_chunks", *of("v2"))
    daemon.make("index_versions", "v2")
    daemon.settle()
    daemon.make("unique_documents", "handbook-001", version="2")
    asked = {key for tick in daemon.settle() for keys in tick.values() for key in keys}
    assert {"big|handbook-001", "small|handbook-001"} <= asked
    assert not any("handbook-000" in str(key) for key in asked)


def test_a_new_automatic_version_asks_only_for_what_is_its_own(daemon: Daemon) -> None:
    """The chunks of the live version are not touched."""
    daemon.settle()
    daemon.configure(config(v1=V1, v2={**MANUAL, "backfill": "auto"}))
    asked = daemon.settle()
    everything = {(name, key) for tick in asked for name, keys in tick.items() for key in keys}
    assert {("chunks", key) for key in of("small")} <= everything
    assert ("index_versions", "v2") in everything
    assert not any("big" in str(key) or key == "v1" for _, key in everything)


def test_equal_content_asks_for_nothing(daemon: Daemon) -> None:
    """A run that computed nothing new must not wake what is downstream of it."""
    daemon.settle()
    daemon.make("unique_documents", *SHARDS)
    daemon.make("chunks", *of("big"))
    assert daemon.tick() == {}


def test_a_changed_shard_asks_for_that_shard(daemon: Daemon) -> None:
    daemon.settle()
    daemon.make("unique_documents", "handbook-001", version="2")
    asked = daemon.tick()
    assert asked["chunks"] == {"big|handbook-001"}


def test_nothing_is_asked_for_before_the_documents_are_there() -> None:
    with DagsterInstance.ephemeral() as instance:
        daemon = Daemon(instance, config(v1=V1))
        assert daemon.tick() == {}
        daemon.make("unique_documents", *SHARDS)
        daemon.make("clean_documents", "handbook-000")
        assert daemon.tick()["chunks"] == {"big|handbook-000"}


def test_what_failed_is_not_asked_for_again(daemon: Daemon) -> None:
    """Run retries and steps have tried again already; an endless loop would cost a night of GPU."""
    assert "chunks" in daemon.tick()
    for _ in range(5):
        assert daemon.tick() == {}


def test_a_command_at_work_is_not_disturbed(daemon: Daemon) -> None:
    """`ragassets ingest` goes through all stages by itself; two writers would race."""
    run = daemon.instance.create_run_for_job(
        daemon.definitions.resolve_job_def("chunk_documents"),
        status=DagsterRunStatus.STARTED,
        tags={COMMAND_TAG: "true"},
    )
    assert daemon.tick(seconds_from_now=60) == {}
    daemon.instance.report_run_failed(run)
    assert daemon.tick(seconds_from_now=2) == {}  # its next run may be about to start
    assert daemon.tick(seconds_from_now=60)["chunks"] == of("big")


def test_the_sensor_runs_by_default_with_the_lowest_priority() -> None:
    sensor = build_definitions(config(v1=V1)).resolve_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert RUN_TAGS == {"dagster/priority": "-10", "ragassets/backfill": "automatic"}
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.run_tags == RUN_TAGS
