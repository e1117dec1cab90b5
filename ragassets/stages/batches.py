"""Rows of many source shards in batches of one size."""

from collections.abc import Iterable, Iterator

import polars as pl


def in_batches(frames: Iterable[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """All rows in order, `size` of them at a time; the last batch may be smaller.

    A project of many small shards gets the batches of one of few large ones, and no more than one
    frame and one batch are held.
    """
    waiting: list[pl.DataFrame] = []
    n_waiting = 0
    for frame in frames:
        waiting.append(frame)
        n_waiting += frame.height
        if n_waiting >= size:
            rows = pl.concat(waiting)
            n_whole = rows.height - rows.height % size
            yield from rows.head(n_whole).iter_slices(size)
            waiting, n_waiting = [rows.slice(n_whole)], rows.height - n_whole
    if n_waiting:
        yield pl.concat(waiting)
