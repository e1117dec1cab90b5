"""What Dagster starts by itself, tick by tick, on the real graph and an instance in memory."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import EMBEDDINGS
from ragassets.defs.automation import COMMAND_TAG, SENSOR
from ragassets.defs.drop_job import drop_events
from ragassets.defs.events import DATA_VERSION_TAG, INPUT_EVENT_POINTER_TAG
from ragassets.defs.graph import AUTOMATED, build_definitions
from ragassets.defs.live_first import FILL_TAGS, LIVE_TAGS
from ragassets.stages.dropped_versions import Drop, DropState, write_drop
from ragassets.stages.dropping import Removal

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

SHARDS = ("handbook-000", "handbook-001")
V1 = {"chunking": "big", "embedding_model": "minilm"}
AUTO = {"chunking": "small", "embedding_model": "minilm"}
MANUAL = {**AUTO, "backfill": "manual"}
UPSTREAM = ("unique_documents", "clean_documents", "parsed_documents", "raw_documents")


def config(root: Path, **versions: Mapping[str, str]) -> Config:
    """One source of two shards, two chunkings, and these index versions."""
    return Config.model_validate(
        {
            "root": str(root),
            "sources": {"handbook": {"uri": "/documents", "shards": 2}},
            "chunkings": {"big": {}, "small": {"max_tokens": 64, "overlap_tokens": 8}},
            "index_versions": versions,
            "aliases": {"documents": {"live": "v1"}},
        }
    )


class Daemon:
    """Ticks of the sensor over one instance; what it asks for is made only when told so."""

    def __init__(
        self, instance: DagsterInstance, root: Path, **versions: Mapping[str, str]
    ) -> None:
        """Begin with an instance on which nothing ever ran, and these index versions."""
        self.instance, self.root = instance, root
        self.cursor = None
        self.configure(**versions)

    def configure(self, **versions: Mapping[str, str]) -> None:
        """Load other index versions, as a reload of the code location does."""
        self.config = config(self.root, **versions)
        self.definitions = build_definitions(self.config)

    def drop(self, version: str, state: DropState = "dropped") -> None:
        """Record a drop as `ragassets index drop` does, with its events."""
        settings = self.config.index_versions[version]
        drop = Drop(
            version,
            state,
            datetime.now(UTC),
            "maria",
            "",
            settings.chunking,
            settings.embedding_set,
            "a-run",
        )
        write_drop(Workspace(self.config).tables, drop)
        removal = Removal(drop, 0, 0, settings.embedding_set, 0, settings.chunking, 0)
        if state == "dropped":
            for event in drop_events(self.instance, removal):
                self.instance.report_runless_asset_event(event)

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

    def make(
        self, asset: str, *partitions: str | None, version: str = "1", began: int | None = None
    ) -> None:
        """Report that partitions stand, with a data version, and where the log was at the start."""
        tags = {DATA_VERSION_TAG: version}
        if began is not None:
            tags[f"{INPUT_EVENT_POINTER_TAG}/input"] = str(began)
        for partition in partitions:
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset, partition=partition, tags=tags)
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
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """An automatic version, over documents that are there."""
    with DagsterInstance.ephemeral() as instance:
        started = Daemon(instance, tmp_path, v1=V1)
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
    daemon.configure(v1=V1, v2=MANUAL)
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
    daemon.configure(v1=V1, v2=AUTO)
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


def test_a_change_during_a_run_is_not_forgotten_when_the_run_ends(daemon: Daemon) -> None:
    """The run had read the older document; taken for an update, it would end the matter."""
    daemon.settle()
    began = daemon.instance.event_log_storage.get_maximum_record_id()
    daemon.make("unique_documents", "handbook-001", version="2")
    daemon.make("chunks", "big|handbook-001", began=began)
    assert daemon.tick()["chunks"] == {"big|handbook-001"}


def test_a_run_that_took_the_change_in_asks_for_nothing(daemon: Daemon) -> None:
    daemon.settle()
    daemon.make("unique_documents", "handbook-001", version="2")
    began = daemon.instance.event_log_storage.get_maximum_record_id()
    daemon.make("chunks", "big|handbook-001", began=began)
    assert "chunks" not in daemon.tick()


def test_a_changed_shard_asks_for_that_shard(daemon: Daemon) -> None:
    daemon.settle()
    daemon.make("unique_documents", "handbook-001", version="2")
    asked = daemon.tick()
    assert asked["chunks"] == {"big|handbook-001"}


def test_nothing_is_asked_for_before_the_documents_are_there(tmp_path: Path) -> None:
    with DagsterInstance.ephemeral() as instance:
        daemon = Daemon(instance, tmp_path, v1=V1)
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


class TestRetries:
    """What failed for a passing reason is asked for again when its time has come."""

    @staticmethod
    def fail(daemon: Daemon, *, attempts: int, minutes_ago: float) -> None:
        """Write the failure of one chunk of the live version."""
        spec = EMBEDDINGS.failures
        failed_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        row = {
            "source_shard": "handbook-001",
            "embedding_set": "big.minilm",
            "chunk_id": "c0",
            "failed_input_hash": "x",
            "is_transient": True,
            "attempts": attempts,
            "first_failed_at": failed_at,
            "last_failed_at": failed_at,
        }
        columns = {name: [row.get(name)] for name in spec.schema}
        partition = {"source_shard": "handbook-001", "embedding_set": "big.minilm"}
        tables = Workspace(daemon.config).tables
        frame = pl.DataFrame(columns, schema=spec.schema)
        tables.replace(tables.snapshot(spec), [partition], frame)

    def test_a_failure_is_asked_for_when_it_is_due_and_once(self, daemon: Daemon) -> None:
        daemon.settle()
        self.fail(daemon, attempts=1, minutes_ago=4)
        assert daemon.tick() == {}
        assert daemon.tick(seconds_from_now=90) == {"embeddings": {"big.minilm|handbook-001"}}
        # The run died and changed nothing: no loop.
        assert daemon.tick(seconds_from_now=100) == {}
        assert daemon.tick(seconds_from_now=3600) == {}

    def test_a_failure_that_comes_again_waits_longer(self, daemon: Daemon) -> None:
        daemon.settle()
        self.fail(daemon, attempts=1, minutes_ago=6)
        assert daemon.tick() == {"embeddings": {"big.minilm|handbook-001"}}
        self.fail(daemon, attempts=2, minutes_ago=0)
        daemon.make("embeddings", "big.minilm|handbook-001")
        assert daemon.tick() == {}
        assert daemon.tick(seconds_from_now=19 * 60) == {}
        asked = daemon.tick(seconds_from_now=21 * 60)
        assert asked == {"embeddings": {"big.minilm|handbook-001"}}

    def test_a_parked_failure_is_left_alone(self, daemon: Daemon) -> None:
        daemon.settle()
        self.fail(daemon, attempts=5, minutes_ago=10_000)
        assert daemon.tick() == {}


class TestDroppedVersions:
    """What a person dropped, nothing fills that starts by itself."""

    @pytest.fixture
    def dropped(self, daemon: Daemon) -> Daemon:
        """Two automatic versions were built, and `v2` was dropped."""
        daemon.configure(v1=V1, v2=AUTO)
        daemon.settle()
        daemon.drop("v2")
        return daemon

    def test_a_dropped_version_is_not_built_again_although_it_is_automatic(
        self, dropped: Daemon
    ) -> None:
        daemon = dropped
        asked = [daemon.tick() for _ in range(3)]
        keys = {key for tick in asked for partitions in tick.values() for key in partitions}
        assert not any("small" in str(key) or "v2" in str(key) for key in keys)

    def test_a_dropped_version_is_not_kept_current(self, dropped: Daemon) -> None:
        daemon = dropped
        daemon.settle()
        daemon.make("unique_documents", "handbook-001", version="2")
        asked = {key for tick in daemon.settle() for keys in tick.values() for key in keys}
        assert "big|handbook-001" in asked
        assert not any("small" in str(key) or "v2" in str(key) for key in asked)

    def test_one_that_is_being_dropped_is_left_alone_too(self, daemon: Daemon) -> None:
        daemon.configure(v1=V1, v2=AUTO)
        daemon.drop("v2", "dropping")
        keys = {key for tick in daemon.settle() for keys in tick.values() for key in keys}
        assert not any("small" in str(key) or "v2" in str(key) for key in keys)

    def test_begun_anew_it_is_filled_where_it_is_empty(self, dropped: Daemon) -> None:
        """Somebody filled one shard in the UI; Dagster takes the other one for made."""
        daemon = dropped
        daemon.settle()
        daemon.drop("v2", "begun_anew")
        daemon.make("chunks", "small|handbook-000")
        daemon.make("embeddings", "small.minilm|handbook-000")
        daemon.make("indexed_chunks", "v2|handbook-000")
        asked = daemon.settle()
        everything = {(name, key) for tick in asked for name, keys in tick.items() for key in keys}
        assert ("chunks", "small|handbook-001") in everything
        assert ("embeddings", "small.minilm|handbook-001") in everything
        assert ("indexed_chunks", "v2|handbook-001") in everything
        assert ("index_versions", "v2") in everything
        assert ("chunks", "small|handbook-000") not in everything
        assert daemon.tick() == {}

    def test_another_version_of_the_same_embeddings_fills_them_first(self, dropped: Daemon) -> None:
        """They went with the dropped one, and Dagster takes them for made."""
        daemon = dropped
        daemon.settle()
        daemon.configure(v1=V1, v2=AUTO, v3={**AUTO, "sparse": None})
        asked = daemon.settle()
        made = ["chunks", "embeddings", "indexed_chunks"]
        assert [name for tick in asked for name in tick if name in made][:3] == made
        assert asked[0]["chunks"] == of("small")
        indexed = [tick["indexed_chunks"] for tick in asked if "indexed_chunks" in tick]
        assert indexed == [of("v3")]

    def test_a_shared_chunking_stays_current_for_the_other(self, daemon: Daemon) -> None:
        daemon.configure(v1=V1, v2={**V1, "sparse": None})
        daemon.settle()
        drop = Drop("v2", "dropped", datetime.now(UTC), "maria", "", "big", "big.minilm", "a-run")
        write_drop(Workspace(daemon.config).tables, drop)
        daemon.make("unique_documents", "handbook-001", version="2")
        assert daemon.tick()["chunks"] == {"big|handbook-001"}
        daemon.make("embeddings", "big.minilm|handbook-001", version="2")
        assert daemon.tick()["indexed_chunks"] == {"v1|handbook-001"}


def test_the_sensor_runs_by_default(tmp_path: Path) -> None:
    sensor = build_definitions(config(tmp_path, v1=V1)).resolve_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.run_tags == FILL_TAGS
    assert FILL_TAGS == {
        "dagster/priority": "-10",
        "ragassets/automatic": "fill",
        "ragassets/backfill": "automatic",
    }
    assert LIVE_TAGS == {"dagster/priority": "5", "ragassets/automatic": "live"}
