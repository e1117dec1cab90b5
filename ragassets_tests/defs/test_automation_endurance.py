"""Fifty ticks of what Dagster starts by itself, with changes, failures and idle runs.

The content of a partition is the version of the documents that it was made from, so that it can be
said after every tick what is behind, what was asked for, and what must not be asked for again.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from ragassets_tests.defs.test_automation import AUTO, MANUAL, SHARDS, UPSTREAM, V1, Daemon

pytestmark = [pytest.mark.filterwarnings("ignore::dagster.BetaWarning"), pytest.mark.slow]

N_TICKS = 50
CALM = 38
"""From this tick on nothing fails, and nothing changes after one last change of everything."""
PATIENCE = 2
"""Ticks that something may be behind before it is asked for."""

VERSIONS = {"v1": ("big", "big.minilm"), "v2": ("small", "small.minilm")}
UNBEGUN = "v3"

Partition = tuple[str, str]


class World:
    """What stands, what it was made from, and what was asked for."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        """Documents of version 1 in every shard, and nothing made of them."""
        self.daemon, self.random = daemon, random.Random(seed)
        self.documents = dict.fromkeys(SHARDS, 1)
        self.made: dict[Partition, str] = {}
        """The input of every partition that stands."""
        self.asked: set[tuple[Partition, str]] = set()
        self.behind: dict[tuple[Partition, str], int] = {}
        self.n_failed = 0

    def partitions(self) -> Iterator[Partition]:
        """Every partition of the versions, in the order in which a run would make them."""
        for stage in (0, 1):
            for version in VERSIONS.values():
                for shard in SHARDS:
                    yield ("chunks", "embeddings")[stage], f"{version[stage]}|{shard}"
        for version in VERSIONS:
            for shard in SHARDS:
                yield "indexed_chunks", f"{version}|{shard}"
        for version in VERSIONS:
            yield "index_versions", version

    def input(self, partition: Partition) -> str | None:
        """What a partition would be made from now; None where something of it is missing."""
        asset, key = partition
        name, _, shard = key.partition("|")
        match asset:
            case "chunks":
                return str(self.documents[shard])
            case "embeddings":
                chunking = next(c for c, s in VERSIONS.values() if s == name)
                return self.made.get(("chunks", f"{chunking}|{shard}"))
            case "indexed_chunks":
                return self.made.get(("embeddings", f"{VERSIONS[name][1]}|{shard}"))
            case _:
                parts = [self.made.get(("indexed_chunks", f"{key}|{shard}")) for shard in SHARDS]
                return None if None in parts else "+".join(map(str, parts))

    def change(self, *shards: str) -> None:
        """Edit documents."""
        for shard in shards:
            self.documents[shard] += 1
            self.daemon.make("unique_documents", shard, version=str(self.documents[shard]))

    def make(self, partition: Partition) -> None:
        """A run that ends well."""
        found = self.input(partition)
        assert found is not None, f"{partition} was asked for before its inputs were there"
        self.made[partition] = found
        self.daemon.make(*partition, version=found)

    def disturb(self) -> None:
        """Edits, and runs of other people, some of which had read their inputs before the edit."""
        began = self.daemon.instance.event_log_storage.get_maximum_record_id() or 0
        inputs = {partition: self.input(partition) for partition in self.partitions()}
        if self.random.random() < 0.3:
            self.change(self.random.choice(SHARDS))
        possible = [partition for partition, found in inputs.items() if found is not None]
        if self.random.random() < 0.3 and possible:
            partition = self.random.choice(possible)
            version = str(inputs[partition])
            self.made[partition] = version
            self.daemon.make(*partition, version=version, began=began)

    def tick(self, *, failure_share: float) -> bool:
        """One tick, and the runs that it asks for; whether it asked for any."""
        requested = {
            (asset, str(key)) for asset, keys in self.daemon.tick().items() for key in keys
        }
        assert not any(UNBEGUN in key for _, key in requested)
        self._check_requests(requested)
        self._check_patience(requested)
        for partition in self.partitions():
            if partition not in requested:
                continue
            if self.random.random() < failure_share:
                self.n_failed += 1
            else:
                self.make(partition)
        for asset, key in requested:
            if asset in ("dead_letters", "document_catalog"):
                self.daemon.make(asset, key)
            if asset == "live_index":
                self.daemon.make(asset, None)
        return bool(requested)

    def _check_requests(self, requested: set[Partition]) -> None:
        """The same input is asked for once, however the run ends."""
        for partition in self.partitions():
            if partition in requested:
                found = self.input(partition)
                assert found is not None, partition
                assert (partition, found) not in self.asked, f"{partition} is asked for again"
                self.asked.add((partition, found))

    def _check_patience(self, requested: set[Partition]) -> None:
        """What is behind is asked for soon, whatever else fails."""
        waiting = {
            (partition, found)
            for partition in self.partitions()
            if (found := self.input(partition)) is not None
            and self.made.get(partition) != found
            and (partition, found) not in self.asked
            and partition not in requested
        }
        self.behind = {entry: self.behind.get(entry, 0) + 1 for entry in waiting}
        starving = {entry: age for entry, age in self.behind.items() if age > PATIENCE}
        assert starving == {}


@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_ticks_neither_starve_nor_loop_and_end_in_peace(tmp_path: Path, seed: int) -> None:
    """An automatic version, one that is being filled, and one that nobody began."""
    with DagsterInstance.ephemeral() as instance:
        daemon = Daemon(instance, tmp_path, v1=V1, v2=AUTO, v3={**MANUAL, "sparse": None})
        for asset in UPSTREAM:
            daemon.make(asset, *SHARDS)
        world = World(daemon, seed)
        quiet = [False] * N_TICKS
        for number in range(N_TICKS):
            if number < CALM:
                world.disturb()
            elif number == CALM:
                world.change(*SHARDS)
            quiet[number] = not world.tick(failure_share=0.25 if number < CALM else 0.0)
    assert world.n_failed >= 5
    assert any(quiet[:CALM]), "there was always something to do: too much was asked for"
    assert quiet[-1]
    assert {key: world.made.get(key) for key in world.partitions()} == {
        key: world.input(key) for key in world.partitions()
    }
    last = {str(version) for version in world.documents.values()}
    assert {world.made["chunks", f"{c}|{s}"] for c in ("big", "small") for s in SHARDS} == last
