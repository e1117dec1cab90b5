"""What every store of tables promises, run on the fake and on Delta Lake."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ragassets.adapters.tables import DeltaTables
from ragassets.core.tables import Tables, TableSpec
from ragassets.errors import ConcurrentWriteError, StageError
from ragassets_tests.fakes import InMemoryTables

CHUNKS = TableSpec(
    name="_chunks",
    schema=pl.Schema(
        {
            "chunk_id": pl.String,
            "source_shard": pl.String,
            "chunking": pl.String,
            "text": pl.String,
            "n_tokens": pl.Int64,
        }
    ),
    partition_by=("source_shard", "chunking"),
    key="chunk_id",
)
ALIASES = TableSpec(
    name="aliases", schema=pl.Schema({"alias": pl.String}), partition_by=(), key="alias"
)


@pytest.fixture(params=["in_memory", "delta"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    """An empty store of each kind."""
    return InMemoryTables() if request.param == "in_memory" else DeltaTables(str(tmp_path))


def partition(shard: str, chunking: str = "a") -> dict[str, str]:
    """A complete partition of `CHUNKS`."""
    return {"source_shard": shard, "chunking": chunking}


def chunks(shard: str, *ids: str, chunking: str = "a") -> pl.DataFrame:
    """Rows of one partition."""
    rows = [(i, shard, chunking, f"text of {i}", len(i)) for i in ids]
    return pl.DataFrame(rows, schema=CHUNKS.schema, orient="row")


def write(tables: Tables, shard: str, *ids: str, chunking: str = "a") -> int:
    """Replace one partition, based on the newest version."""
    return tables.replace(
        tables.snapshot(CHUNKS),
        [partition(shard, chunking)],
        chunks(shard, *ids, chunking=chunking),
    )


def ids(frame: pl.DataFrame) -> list[str]:
    """The keys in a frame, sorted."""
    return sorted(frame["chunk_id"])


class TestReading:
    """`read` and `read_at`."""

    def test_a_missing_table_reads_as_an_empty_frame_with_the_schema(self, tables: Tables) -> None:
        """The first run of a stage has no special case."""
        assert tables.read(CHUNKS).schema == CHUNKS.schema
        assert tables.read(CHUNKS, [partition("s-0")], columns=["text"]).schema == {
            "text": pl.String
        }
        assert tables.snapshot(CHUNKS).version is None
        assert tables.tables() == []

    def test_rows_come_back_as_written(self, tables: Tables) -> None:
        """Types, order of columns and unicode survive."""
        frame = chunks("s-0", "a", "b").with_columns(text=pl.Series(["é\0😀", None]))
        tables.replace(tables.snapshot(CHUNKS), [partition("s-0")], frame)
        assert_frame_equal(tables.read(CHUNKS).sort("chunk_id"), frame)

    def test_partitions_may_be_complete_partial_or_several(self, tables: Tables) -> None:
        """An index version reads one chunking of all shards; a run reads several shards."""
        for shard in ("s-0", "s-1", "s-2"):
            for chunking in ("a", "b"):
                write(tables, shard, f"{shard}{chunking}", chunking=chunking)
        assert ids(tables.read(CHUNKS, [{"chunking": "b"}])) == ["s-0b", "s-1b", "s-2b"]
        assert ids(tables.read(CHUNKS, [partition("s-1")])) == ["s-1a"]
        several = [partition("s-0"), partition("s-2"), partition("s-2", "b")]
        assert ids(tables.read(CHUNKS, several)) == ["s-0a", "s-2a", "s-2b"]
        assert ids(tables.read(CHUNKS, [{"source_shard": "s-0"}, {"chunking": "b"}])) == [
            "s-0a",
            "s-0b",
            "s-1b",
            "s-2b",
        ]
        assert tables.read(CHUNKS, []).is_empty()
        assert tables.read(CHUNKS, [{}]).height == 6
        assert tables.read(CHUNKS, [partition("s-9")]).is_empty()

    def test_columns_and_where_select_cells(self, tables: Tables) -> None:
        """A condition may use a column that is not asked for."""
        write(tables, "s-0", "a", "bb", "ccc")
        found = tables.read(CHUNKS, columns=["chunk_id"], where=pl.col("n_tokens") > 1)
        assert found.columns == ["chunk_id"]
        assert ids(found) == ["bb", "ccc"]

    def test_a_snapshot_still_shows_what_it_saw(self, tables: Tables) -> None:
        """A stage computes on one consistent view, whatever is committed meanwhile."""
        nothing = tables.snapshot(CHUNKS)
        write(tables, "s-0", "a")
        before = tables.snapshot(CHUNKS)
        write(tables, "s-0", "b")
        assert ids(tables.read_at(before)) == ["a"]
        assert tables.read_at(nothing).is_empty()
        assert ids(tables.read(CHUNKS)) == ["b"]

    def test_a_new_column_of_the_spec_is_null_in_old_rows(self, tables: Tables) -> None:
        """An upgrade of the software needs no migration of the tables."""
        write(tables, "s-0", "a")
        schema = pl.Schema({**CHUNKS.schema, "tags": pl.List(pl.String)})
        wider = TableSpec("_chunks", schema, CHUNKS.partition_by, CHUNKS.key)
        assert tables.read(wider)["tags"].to_list() == [None]
        assert tables.read(wider, where=pl.col("tags").is_null()).height == 1
        new = chunks("s-1", "b").with_columns(tags=pl.lit(["x"], dtype=pl.List(pl.String)))
        tables.replace(tables.snapshot(wider), [partition("s-1")], new)
        assert tables.read(wider).sort("chunk_id")["tags"].to_list() == [None, ["x"]]
        assert ids(tables.read(CHUNKS)) == ["a", "b"]


class TestReplacing:
    """`replace` without a rival."""

    def test_only_the_named_partitions_change(self, tables: Tables) -> None:
        """A shard's run never touches another shard."""
        write(tables, "s-0", "a")
        write(tables, "s-1", "b")
        write(tables, "s-0", "c", "d")
        assert ids(tables.read(CHUNKS)) == ["b", "c", "d"]

    def test_several_partitions_change_in_one_commit(self, tables: Tables) -> None:
        """A run over several shards is whole or absent; a partition without rows is emptied."""
        write(tables, "s-2", "old")
        version = tables.replace(
            tables.snapshot(CHUNKS),
            [partition("s-0"), partition("s-1", "b"), partition("s-2")],
            pl.concat([chunks("s-0", "a"), chunks("s-1", "b", chunking="b")]),
        )
        assert ids(tables.read(CHUNKS)) == ["a", "b"]
        assert tables.snapshot(CHUNKS).version == version

    def test_an_empty_frame_empties_the_partition(self, tables: Tables) -> None:
        """All documents of a shard may vanish."""
        write(tables, "s-0", "a")
        write(tables, "s-0")
        assert tables.read(CHUNKS).is_empty()
        assert tables.tables() == ["_chunks"]

    def test_a_table_without_partition_columns_is_one_partition(self, tables: Tables) -> None:
        """Small tables such as the alias history need no partitions."""
        frame = pl.DataFrame({"alias": ["documents"]})
        old = tables.snapshot(ALIASES)
        tables.replace(old, [{}], frame)
        assert tables.read(ALIASES)["alias"].to_list() == ["documents"]
        with pytest.raises(ConcurrentWriteError):
            tables.replace(old, [{}], frame)

    @pytest.mark.parametrize(
        ("partitions", "frame"),
        [
            ([partition("s-0")], chunks("s-1", "a")),
            ([{"chunking": "a"}], chunks("s-0", "a")),
            ([partition("s-0", "")], chunks("s-0", "a", chunking="")),
            ([], chunks("s-0", "a")),
            ([partition("s-0")], chunks("s-0", "a").with_columns(n_tokens=pl.lit("many"))),
            ([partition("s-0")], chunks("s-0", "a").drop("source_shard")),
        ],
        ids=["outside", "partial", "empty_value", "no_partition", "wrong_type", "no_shard"],
    )
    def test_what_does_not_fit_is_refused(
        self, tables: Tables, partitions: list[dict[str, str]], frame: pl.DataFrame
    ) -> None:
        """A mistake of a stage never reaches a table."""
        with pytest.raises(StageError):
            tables.replace(tables.snapshot(CHUNKS), partitions, frame)
        assert tables.read(CHUNKS).is_empty()

    @pytest.mark.parametrize("value", ["it's", "a|b", "a/b", "100%", "%2F", "..", "é 😀", "a=b"])
    def test_any_partition_value_works(self, tables: Tables, value: str) -> None:
        """Names come from a configuration that somebody else writes."""
        write(tables, value, "a")
        write(tables, "other", "b")
        write(tables, value, "c")
        assert ids(tables.read(CHUNKS, [partition(value)])) == ["c"]
        assert ids(tables.read(CHUNKS)) == ["b", "c"]


class TestConflicts:
    """`replace` against a rival that committed after the snapshot."""

    def test_a_stale_writer_loses_and_changes_nothing(self, tables: Tables) -> None:
        """Two runs of one shard must not undo each other."""
        write(tables, "s-0", "a")
        stale = tables.snapshot(CHUNKS)
        write(tables, "s-0", "b")
        with pytest.raises(ConcurrentWriteError, match="s-0"):
            tables.replace(stale, [partition("s-0")], chunks("s-0", "c"))
        assert ids(tables.read(CHUNKS)) == ["b"]

    def test_a_commit_to_another_partition_does_not_disturb(self, tables: Tables) -> None:
        """Shards run side by side all day; so do chunkings of one shard."""
        write(tables, "s-0", "a")
        stale = tables.snapshot(CHUNKS)
        write(tables, "s-1", "b")
        write(tables, "s-0", "x", chunking="b")
        tables.replace(stale, [partition("s-0")], chunks("s-0", "c"))
        assert ids(tables.read(CHUNKS)) == ["b", "c", "x"]

    @pytest.mark.parametrize("is_first_table", [True, False])
    def test_two_writers_into_an_empty_partition_conflict(
        self, tables: Tables, is_first_table: bool
    ) -> None:
        """The first run of a shard has no old rows by which a conflict could be noticed."""
        if not is_first_table:
            write(tables, "s-9", "z")
        stale = tables.snapshot(CHUNKS)
        write(tables, "s-0", "a")
        with pytest.raises(ConcurrentWriteError):
            tables.replace(stale, [partition("s-0")], chunks("s-0", "b"))

    def test_a_commit_without_rows_counts(self, tables: Tables) -> None:
        """No rows is a result as well: an old result must not bring documents back."""
        stale = tables.snapshot(CHUNKS)
        write(tables, "s-0")
        with pytest.raises(ConcurrentWriteError):
            tables.replace(stale, [partition("s-0")], chunks("s-0", "b"))
        assert tables.read(CHUNKS).is_empty()

    def test_overlapping_lists_conflict_even_where_they_were_empty(self, tables: Tables) -> None:
        """Runs over several shards conflict by each shard, not by the whole list."""
        stale = tables.snapshot(CHUNKS)
        tables.replace(stale, [partition("s-0"), partition("s-1")], chunks("s-0", "a"))
        with pytest.raises(ConcurrentWriteError, match="s-1"):
            tables.replace(stale, [partition("s-1"), partition("s-2")], chunks("s-2", "b"))
        assert ids(tables.read(CHUNKS)) == ["a"]

    def test_a_snapshot_writes_once(self, tables: Tables) -> None:
        """A second commit from one snapshot is stale by the first."""
        snapshot = tables.snapshot(CHUNKS)
        tables.replace(snapshot, [partition("s-0")], chunks("s-0", "a"))
        with pytest.raises(ConcurrentWriteError):
            tables.replace(snapshot, [partition("s-0")], chunks("s-0", "a"))
        tables.replace(snapshot, [partition("s-1")], chunks("s-1", "b"))

    def test_a_new_column_from_elsewhere_does_not_disturb(self, tables: Tables) -> None:
        """During a rolling upgrade old and new software write to one table."""
        write(tables, "s-0", "a")
        stale = tables.snapshot(CHUNKS)
        schema = pl.Schema({**CHUNKS.schema, "extra": pl.String})
        wider = TableSpec("_chunks", schema, CHUNKS.partition_by, CHUNKS.key)
        new = chunks("s-1", "b").with_columns(extra=pl.lit("x"))
        tables.replace(tables.snapshot(wider), [partition("s-1")], new)
        tables.replace(stale, [partition("s-0")], chunks("s-0", "c"))
        assert ids(tables.read(CHUNKS)) == ["b", "c"]
        assert tables.read(wider).sort("chunk_id")["extra"].to_list() == ["x", None]


SHARDS = ("s-0", "s-1", "s-2")
STEP = st.tuples(st.sets(st.sampled_from(SHARDS), min_size=1), st.integers(0, 3), st.integers(0, 2))


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEP, max_size=6))
def test_delta_and_the_fake_agree_on_every_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[str], int, int]]
) -> None:
    """The engine is tested on the fake, so the fake must accept and refuse what Delta does.

    A step replaces some shards with some rows, based on a snapshot taken some steps ago.
    """
    stores: list[Tables] = [InMemoryTables(), DeltaTables(str(tmp_path_factory.mktemp("root")))]
    outcomes: list[list[object]] = []
    for store in stores:
        snapshots = [store.snapshot(CHUNKS)]
        outcome: list[object] = []
        for number, (shards, n_rows, age) in enumerate(steps):
            rows = [
                chunks(s, *(f"{s}-{number}-{i}" for i in range(n_rows))) for s in sorted(shards)
            ]
            base = snapshots[max(0, len(snapshots) - 1 - age)]
            try:
                store.replace(base, [partition(s) for s in sorted(shards)], pl.concat(rows))
                outcome.append("committed")
            except ConcurrentWriteError:
                outcome.append("refused")
            snapshots.append(store.snapshot(CHUNKS))
            outcome.append(ids(store.read(CHUNKS)))
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]
