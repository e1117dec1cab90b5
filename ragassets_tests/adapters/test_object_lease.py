"""One writer at a time through an object: takers, the dead, the paused and the unreachable."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PreconditionError
from obstore.store import MemoryStore

from ragassets.adapters.fenced_store import FencedStore
from ragassets.adapters.object_lease import ObjectLease
from ragassets.adapters.object_storage import open_root
from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.leases import Holder, Lease
from ragassets.errors import LeaseLostError, StorageUnavailableError, VectorStoreLockedError
from ragassets_tests.fakes import InMemoryVectorStore
from ragassets_tests.qdrant_loopback import loopback_qdrant
from ragassets_tests.s3_server import BUCKET, S3Server, running_s3

PATH = "locks/v1/lease.json"
TTL = 0.6


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lease_on(
    store: object,
    *,
    timeout: float = 0.0,
    clock: Clock | None = None,
    ttl: float = TTL,
    renewing: bool = False,
) -> ObjectLease:
    """A lease with a short time, by default one that nobody renews."""
    return ObjectLease(
        store,
        PATH,
        name="s3://bucket/locks/v1",
        timeout_seconds=timeout,
        ttl_seconds=ttl,
        monotonic=clock or time.monotonic,
        is_renewing=renewing,
    )


def read(store: MemoryStore) -> Lease:
    """What the object says."""
    return Lease.from_json(bytes(store.get(PATH).bytes()))


def test_a_second_writer_is_told_who_holds_the_lease_and_what_to_do() -> None:
    """Host, process and since when: enough to find it, on whatever machine."""
    store = MemoryStore()
    first = lease_on(store)
    first.acquire()
    with pytest.raises(VectorStoreLockedError) as caught:
        lease_on(store).acquire()
    message = str(caught.value)
    assert f"process {os.getpid()} on {read(store).holder.host}" in message
    assert f"since {read(store).holder.since}" in message
    assert "s3://bucket/locks/v1" in message
    assert "free 300.6 s after its last sign of life" in message


def test_a_lease_that_was_given_back_is_free_at_once_and_its_token_is_not_used_again() -> None:
    """Tokens only grow: a fence compares them."""
    store = MemoryStore()
    for token in (1, 2, 3):
        lease = lease_on(store)
        lease.acquire()
        assert lease.token == read(store).token == token
        lease.release()
        assert read(store).is_released
        lease.release()


def test_of_many_that_take_a_lease_at_once_one_gets_it() -> None:
    """Both the first taking, which creates the object, and a later one, which replaces it."""
    store = MemoryStore()
    for _ in range(5):
        barrier, taken = threading.Barrier(8), list[ObjectLease]()

        def take(barrier: threading.Barrier = barrier, taken: list = taken) -> None:
            lease = lease_on(store, ttl=60)
            barrier.wait()
            try:
                lease.acquire()
            except VectorStoreLockedError:
                return
            taken.append(lease)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        taken[0].release()


def test_a_lease_is_taken_over_when_it_was_watched_for_its_time_without_a_renewal() -> None:
    """By the clock of the watcher alone: the clocks of two machines differ."""
    store = MemoryStore()
    lease_on(store).acquire()
    started = time.monotonic()
    second = lease_on(store, timeout=10)
    second.acquire()
    assert time.monotonic() - started >= TTL
    assert second.token == 2


def test_a_lease_that_is_renewed_is_never_taken() -> None:
    """Its holder may take hours."""
    store = MemoryStore()
    first = lease_on(store, renewing=True)
    first.acquire()
    with pytest.raises(VectorStoreLockedError):
        lease_on(store, timeout=3 * TTL).acquire()
    first.confirm(is_fresh=True)
    first.release()


def test_a_paused_holder_that_comes_back_writes_and_deletes_nothing() -> None:
    """What the new holder has written looks like leftovers to the old one."""
    store, clock = MemoryStore(), Clock()
    old = lease_on(store, clock=clock)
    old.acquire()
    points = FencedStore(InMemoryVectorStore(), old)
    points.delete("v1", [])  # still ours
    new = lease_on(store, timeout=10)
    new.acquire()
    with pytest.raises(LeaseLostError, match=r"taken by process \d+ on"):
        points.delete("v1", ["point"])
    with pytest.raises(LeaseLostError):
        points.upsert("v1", None)
    new.confirm(is_fresh=True)
    old.release()
    assert read(store).token == 2
    assert not read(store).is_released


def test_a_write_soon_after_a_renewal_asks_nobody_and_a_later_one_does() -> None:
    """A request for each thousand points would be cheap, one for each lookup of the clock not."""
    store, clock = MemoryStore(), Clock()
    lease = lease_on(store, clock=clock)
    lease.acquire()
    lease.confirm()
    assert read(store).n_renewals == 0
    clock.now += 0.6 * TTL
    lease.confirm()
    assert read(store).n_renewals == 1


def test_a_lease_that_somebody_removed_is_lost() -> None:
    """Whoever removed it has given it to somebody else."""
    store = MemoryStore()
    lease = lease_on(store)
    lease.acquire()
    store.delete(PATH)
    with pytest.raises(LeaseLostError):
        lease.confirm(is_fresh=True)
    with pytest.raises(LeaseLostError, match="somebody has removed it"):
        lease.confirm()


class ForgetfulStore:
    """Does what it is told, and answers that it refused: as a client that sent a request twice."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def get(self, path: str) -> object:
        return self.store.get(path)

    def put(self, path: str, content: bytes, *, mode: object) -> object:
        self.store.put(path, content, mode=mode)
        raise PreconditionError


def test_a_write_whose_answer_was_lost_counts() -> None:
    """The storage library sends it again, and is refused because of its own first try."""
    store = MemoryStore()
    lease = lease_on(ForgetfulStore(store))
    lease.acquire()
    lease.confirm(is_fresh=True)
    lease.confirm(is_fresh=True)
    assert (read(store).token, read(store).n_renewals) == (1, 2)


class DeafStore(ForgetfulStore):
    """Does not answer any more."""

    def put(self, path: str, content: bytes, *, mode: object) -> object:
        raise GenericError


def test_nothing_is_deleted_while_the_store_of_the_lease_does_not_answer() -> None:
    """Somebody else may reach it."""
    store, clock = MemoryStore(), Clock()
    lease = lease_on(store, clock=clock)
    lease.acquire()
    lease._store = DeafStore(store)
    points = FencedStore(InMemoryVectorStore(), lease)
    lease.confirm()  # renewed just now
    with pytest.raises(StorageUnavailableError):
        points.delete("v1", ["point"])
    clock.now += TTL
    with pytest.raises(StorageUnavailableError):
        points.upsert("v1", None)


def test_what_is_no_lease_is_not_read_as_one() -> None:
    """Somebody else's object at that place."""
    holder = Holder(host="h", pid=1, command="c", since="now")
    lease = Lease(holder, 3, "a nonce").renewed().released()
    assert Lease.from_json(lease.to_json()) == lease
    for content in (b"", b"{}", b"[1]", b'{"holder": 1, "token": 1}'):
        with pytest.raises(ValueError, match="no lease"):
            Lease.from_json(content)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A real server on loopback."""
    with running_s3(monkeypatch) as server:
        yield server


def test_writers_of_one_version_on_two_machines_wait_for_each_other(
    s3: S3Server, tmp_path: Path
) -> None:
    """A server for points, a bucket for tables: nothing local knows of the other machine."""
    with loopback_qdrant(tmp_path / "qdrant") as server:
        (tmp_path / "ragassets.yaml").write_text(
            f"root: s3://{BUCKET}/project\nvector_store: {server.url}\n"
            f"vector_store_timeout_seconds: 0.3\nqdrant: {{grpc_port: {server.grpc_port}}}\n"
            f"sources: {{pages: {{uri: {tmp_path}}}}}\n"
        )
        config = load_config(tmp_path / "ragassets.yaml")
        here, there = Workspace(config), Workspace(config)
        with here.index_writer("v1") as store, here.index_writer("v2"):
            store.ensure_collection("v1", CollectionConfig(dim=2, sparse=None))
            store.delete("v1", [])
            assert store.count("v1") == 0
            with pytest.raises(VectorStoreLockedError, match=r"s3://handbook/project/locks/v1"):
                there.index_writer("v1").__enter__()
        with there.index_writer("v1") as store:
            assert store.list_collections() == ["v1"]
        assert s3.count("PUT /handbook/project/locks/v1/lease.json") >= 5


HOLDER = """
import sys, time
from ragassets.adapters.object_lease import ObjectLease
from ragassets.adapters.object_storage import open_root
from ragassets.errors import LeaseLostError
lease = ObjectLease(open_root(sys.argv[1]).store, "locks/v1/lease.json", name="v1",
                    timeout_seconds=5, ttl_seconds=1.5)
lease.acquire()
print("held", flush=True)
sys.stdin.readline()
try:
    lease.confirm(is_fresh=True)
except LeaseLostError as error:
    print(f"lost: {error}", flush=True)
else:
    print("still held", flush=True)
"""


def _holder(root: str) -> subprocess.Popen[str]:
    """Another process that holds the lease until a line comes, then confirms it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _second(root: str) -> ObjectLease:
    store = open_root(root).store
    return ObjectLease(store, PATH, name="v1", timeout_seconds=60, ttl_seconds=1.5)


@pytest.mark.integration
@pytest.mark.slow
def test_on_s3_the_lease_of_a_killed_process_is_taken_over(s3: S3Server) -> None:
    """SIGKILL frees nothing: its time does."""
    root = f"s3://{BUCKET}/project"
    process = _holder(root)
    process.kill()
    process.communicate()
    second = _second(root)
    second.acquire()
    assert second.token == 2
    second.release()


@pytest.mark.integration
@pytest.mark.slow
def test_on_s3_a_process_that_was_stopped_and_goes_on_finds_its_lease_lost(s3: S3Server) -> None:
    """A laptop that slept, a virtual machine that was moved."""
    root = f"s3://{BUCKET}/project"
    process = _holder(root)
    process.send_signal(signal.SIGSTOP)
    second = _second(root)
    second.acquire()
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate("\n", timeout=60)
    assert output.startswith("lost: ")
    assert f"process {os.getpid()}" in output
    second.confirm(is_fresh=True)
    second.release()
