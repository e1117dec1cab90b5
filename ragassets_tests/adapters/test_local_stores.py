"""What every embedded store has to stand: kills, other processes, absent packages."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragassets.adapters.vector_store import open_vector_store
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import VectorStore
from ragassets.errors import ConfigurationError, SystemResourceError, VectorStoreLockedError
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.points import points_of

CONFIG = CollectionConfig(dim=8, sparse=None)
EMBEDDER = FakeEmbedder(dim=8)
PACKAGES = {"faiss": "faiss", "chroma": "chromadb"}

WORK = """
import sys
from ragassets_tests.adapters.test_local_stores import work
work(sys.argv[1], int(sys.argv[2]))
"""


@pytest.fixture(params=sorted(PACKAGES))
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is not there yet."""
    return f"{request.param}:{tmp_path / 'store'}"


def opened(location: str, *, timeout_seconds: float = 5) -> VectorStore:
    return open_vector_store(location, timeout_seconds=timeout_seconds)


def texts_at(round_number: int, step: int) -> list[str]:
    return [f"round {round_number} step {step} chunk {number}" for number in range(40)]


def work(location: str, round_number: int) -> None:
    """Write, overwrite, delete, create, switch and drop until somebody kills it."""
    with opened(location) as store:
        for step in range(10_000):
            store.ensure_collection("v1", CONFIG)
            store.upsert("v1", points_of(EMBEDDER, texts_at(round_number, step)))
            store.upsert("v1", points_of(EMBEDDER, ["overwritten"], metadata={"step": step}))
            gone = points_of(EMBEDDER, [f"short-lived {step}"])
            store.upsert("v1", gone)
            store.delete("v1", gone.point_ids)
            store.flush("v1")
            sys.stdout.write(f"{step}\n")
            sys.stdout.flush()
            spare, other = f"spare-{step % 2}", f"spare-{(step + 1) % 2}"
            store.ensure_collection(spare, CONFIG)
            store.upsert(spare, points_of(EMBEDDER, ["x"]))
            store.switch_alias("documents", spare, expected=store.alias_target("documents"))
            store.drop_collection(other)


@pytest.mark.slow
def test_a_store_killed_at_any_moment_opens_and_keeps_what_was_flushed(location: str) -> None:
    """Create, write, overwrite, delete, switch and drop are all interrupted."""
    moments = random.Random(7)
    acknowledged: set[str] = set()
    for round_number in range(6):
        command = [sys.executable, "-c", WORK, location, str(round_number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "0\n"
            time.sleep(moments.uniform(0, 1.0))
            worker.send_signal(signal.SIGKILL)
            n_steps = 1 + worker.stdout.read().count("\n")
        for step in range(n_steps):
            acknowledged.update(points_of(EMBEDDER, texts_at(round_number, step)).point_ids)
        with opened(location) as store:
            assert store.retrieve("v1", sorted(acknowledged)).keys() == acknowledged
            points = list(store.scroll("v1"))
            assert store.count("v1") == len(points) == len({p.point_id for p in points})
            target = store.alias_target("documents")
            assert target is None or store.count(target) == 1
            for name in store.list_collections():
                assert store.collection_config(name) == CONFIG
                store.count(name)
    assert len(acknowledged) >= 6 * 40


def test_one_owner_at_a_time(location: str) -> None:
    """Two writers of one directory would not see each other's points."""
    with opened(location) as first:
        first.ensure_collection("v1", CONFIG)
        with (
            opened(location, timeout_seconds=0.1) as second,
            pytest.raises(VectorStoreLockedError, match="held by process"),
        ):
            second.upsert("v1", points_of(EMBEDDER, ["one"]))
    with opened(location, timeout_seconds=0.1) as second:
        second.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert second.count("v1") == 1


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better no write than half of one."""
    with opened(location) as store:
        store.ensure_collection("v1", CONFIG)
        monkeypatch.setattr(store, "_min_free_bytes", 10**18)
        with pytest.raises(SystemResourceError, match=r"MiB are free, 953674316\d* MiB"):
            store.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert store.count("v1") == 0


def test_an_absent_package_is_named_with_what_installs_it(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import error says neither who needs it nor how to get it."""
    scheme = location.partition(":")[0]
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError) as caught:
        opened(location)
    assert f"needs the package {PACKAGES[scheme]}, which is not installed" in str(caught.value)
    assert str(caught.value).endswith(f"pip install 'ragassets[{scheme}]'")
