"""What one step reads belongs together, and what it writes loses against anybody who came first."""

import polars as pl
import pytest

from ragassets.core.tables import PinnedTables, TableSpec
from ragassets.errors import ConcurrentWriteError
from ragassets_tests.fakes import InMemoryTables

SCHEMA = pl.Schema({"name": pl.String(), "shard": pl.String()})
INPUTS = TableSpec("inputs", SCHEMA, ("shard",), "name")
OUTPUTS = TableSpec("outputs", SCHEMA, ("shard",), "name")
SHARD = [{"shard": "a"}]


def rows(*names: str) -> pl.DataFrame:
    """Rows of shard a."""
    return pl.DataFrame([{"name": name, "shard": "a"} for name in names], schema=SCHEMA)


def test_inputs_read_before_a_rivals_commit_cannot_overwrite_it() -> None:
    """A rival saw a new document and committed it; the old listing must not take it back."""
    store = InMemoryTables()
    store.replace(store.snapshot(INPUTS), SHARD, rows("old"))
    step = PinnedTables(store, OUTPUTS)
    seen = step.read(INPUTS, SHARD)
    store.replace(store.snapshot(INPUTS), SHARD, rows("old", "new"))
    store.replace(store.snapshot(OUTPUTS), SHARD, rows("old", "new"))
    with pytest.raises(ConcurrentWriteError):
        step.replace(step.snapshot(OUTPUTS), SHARD, seen)
    assert sorted(store.read(OUTPUTS)["name"]) == ["new", "old"]


def test_a_second_read_gives_the_version_of_the_first() -> None:
    """The text that is computed must be the text that was hashed."""
    store = InMemoryTables()
    store.replace(store.snapshot(INPUTS), SHARD, rows("first"))
    step = PinnedTables(store)
    assert step.read(INPUTS)["name"].to_list() == ["first"]
    store.replace(store.snapshot(INPUTS), SHARD, rows("second"))
    assert step.read(INPUTS)["name"].to_list() == ["first"]


def test_after_its_own_write_a_step_reads_what_it_wrote() -> None:
    """A step that commits twice must not conflict with itself."""
    store = InMemoryTables()
    step = PinnedTables(store, OUTPUTS)
    step.replace(step.snapshot(OUTPUTS), SHARD, rows("one"))
    assert step.read(OUTPUTS)["name"].to_list() == ["one"]
    step.replace(step.snapshot(OUTPUTS), SHARD, rows("two"))
    assert store.read(OUTPUTS)["name"].to_list() == ["two"]
