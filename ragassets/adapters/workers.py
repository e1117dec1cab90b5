"""Documents in parallel: a pool of processes for work that keeps a core busy.

Workers are spawned, not forked: a fork of a process with threads (Delta Lake, tokenizers, Qdrant)
can hang. A worker ends by itself when its parent is gone, so a killed run leaves no process behind.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from ragassets.errors import SystemResourceError

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_ITEMS_FOR_A_POOL = 24
"""Spawning a worker and importing the parsers costs 1 to 3 s: below this, one process is faster."""

PARENT_CHECK_SECONDS = 1.0


def map_in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, n_workers: int | None = None
) -> Iterator[Result]:
    """Results of `work` in the order of the items, computed by several processes.

    Args:
        work: Picklable; must not raise for a bad item. An error of ours that it does raise says
            something of the run, and is raised here.
        items: Picklable.
        n_workers: Processes; the cores that this process may use when None. With one, or with few
            items, the work is done right here.

    Raises:
        SystemResourceError: A worker died, most likely for want of memory.
    """
    n_workers = n_workers or len(os.sched_getaffinity(0))
    if n_workers == 1 or len(items) < MIN_ITEMS_FOR_A_POOL:
        yield from map(work, items)
        return
    try:
        yield from _in_order(_pool(n_workers), work, items, n_ahead=4 * n_workers)
    except BrokenProcessPool as error:
        _pool.cache_clear()
        raise SystemResourceError(
            resource="worker process",
            detail="a worker died while it processed documents",
            fix="Finished documents are kept; run again, with fewer `workers` if memory is short",
        ) from error


@lru_cache(maxsize=1)
def _pool(n_workers: int) -> ProcessPoolExecutor:
    """The workers of this process, kept for all stages: starting them costs seconds each time."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, context, _end_with_parent, (os.getpid(),))


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Item], Result], items: Sequence[Item], n_ahead: int
) -> Iterator[Result]:
    """Keep a bounded number of items under way, so that results do not pile up in memory."""
    remaining = iter(items)
    pending: list[Future[Result]] = [pool.submit(work, i) for i in islice(remaining, n_ahead)]
    try:
        while pending:
            yield pending.pop(0).result()
            pending += [pool.submit(work, item) for item in islice(remaining, 1)]
    finally:
        for future in pending:
            future.cancel()


def _end_with_parent(parent: int) -> None:
    """Watch for the parent's death: a killed parent closes no queue, so workers would wait on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
