"""Making the next item in a thread while the caller is busy with this one.

It helps where one of the two waits or leaves the interpreter: a request under way, a Parquet file
that Polars reads.
"""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def one_ahead(items: Iterable[Item]) -> Generator[Item]:
    """Yield the items in order; no more than one is made before it is asked for.

    What making one raises, is raised here in its place.
    """
    rest = map(_boxed, items)
    with ThreadPoolExecutor(1, thread_name_prefix="look-ahead") as thread:
        coming = thread.submit(next, rest, None)
        while (box := coming.result()) is not None:
            coming = thread.submit(next, rest, None)
            yield box[0]


def _boxed(item: Item) -> tuple[Item]:
    """Tell an item that is None from the end."""
    return (item,)
