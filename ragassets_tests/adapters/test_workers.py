"""Documents in several processes: order, errors, dead workers, dead parents."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ragassets.adapters import workers
from ragassets.adapters.workers import map_in_processes
from ragassets.errors import StorageUnavailableError, SystemResourceError

ITEMS = list(range(40))


def double(item: int) -> int:
    return 2 * item


def process_of(_: int) -> int:
    return os.getpid()


def fail_at_thirty(item: int) -> int:
    if item == 30:
        raise StorageUnavailableError(service="landing zone", detail="no such bucket")
    return item


def die_at_thirty(item: int) -> int:
    if item == 30:
        os._exit(1)
    return item


def test_few_items_are_done_right_here() -> None:
    """Spawning costs more than it saves."""
    assert list(map_in_processes(double, [1, 2, 3])) == [2, 4, 6]
    assert set(map_in_processes(process_of, [1, 2, 3], n_workers=4)) == {os.getpid()}
    assert set(map_in_processes(process_of, ITEMS, n_workers=1)) == {os.getpid()}


@pytest.mark.slow
def test_results_come_in_the_order_of_the_items() -> None:
    """Whichever worker is faster."""
    assert list(map_in_processes(double, ITEMS, n_workers=2)) == [2 * item for item in ITEMS]


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_of_ours_arrives_as_it_was_raised(n_workers: int) -> None:
    """An unreachable store must not look like a worker that ran out of memory."""
    found: list[int] = []
    with pytest.raises(StorageUnavailableError, match="no such bucket") as caught:
        found.extend(map_in_processes(fail_at_thirty, ITEMS, n_workers=n_workers))
    assert caught.value.service == "landing zone"
    assert caught.value.is_transient


@pytest.mark.slow
def test_a_dead_worker_keeps_what_was_finished() -> None:
    """And is a transient error: the next run goes on from there."""
    found: list[int] = []
    with pytest.raises(SystemResourceError, match="run again"):
        found.extend(map_in_processes(die_at_thirty, ITEMS, n_workers=2))
    assert found == ITEMS[: len(found)]


PARENT = """
import time
from ragassets.adapters.workers import map_in_processes
from ragassets_tests.adapters.test_workers import sleep_for_ever
if __name__ == "__main__":
    list(map_in_processes(sleep_for_ever, list(range(40)), n_workers=2))
"""


def sleep_for_ever(_: int) -> None:
    time.sleep(600)


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run must leave no process that holds memory for hours."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = str(Path(workers.__file__).parents[2])
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": root})
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(children) < 3 and time.monotonic() < deadline:  # two workers and a resource tracker
        children = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.1)
    time.sleep(2)
    parent.send_signal(signal.SIGKILL)
    parent.wait(timeout=10)
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert len(gone) >= 2
