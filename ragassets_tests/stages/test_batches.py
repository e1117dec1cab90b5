"""Batches do not depend on how the rows were cut before."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.stages.batches import in_batches


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=8), st.integers(1, 5))
def test_all_rows_come_in_order_in_full_batches(heights: list[int], size: int) -> None:
    """A lost row would be a chunk without vector; a short batch is a slow one."""
    rows = list(range(sum(heights)))
    frames: list[pl.DataFrame] = []
    start = 0
    for height in heights:
        frames.append(pl.DataFrame({"n": rows[start : start + height]}, schema={"n": pl.Int64}))
        start += height

    batches = [batch["n"].to_list() for batch in in_batches(frames, size)]

    assert [n for batch in batches for n in batch] == rows
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batches)
