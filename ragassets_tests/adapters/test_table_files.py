"""What no version names any more is found, and goes, without touching what others wrote."""

from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.table_files import TableFiles
from ragassets.adapters.tables import DeltaTables
from ragassets.core.tables import TableSpec

SPEC = TableSpec(
    name="rows",
    schema=pl.Schema({"document_id": pl.String, "source_shard": pl.String, "text": pl.String}),
    partition_by=("source_shard",),
    key="document_id",
)


@pytest.fixture
def tables(tmp_path: Path) -> DeltaTables:
    return DeltaTables(str(tmp_path))


@pytest.fixture
def files(tmp_path: Path, tables: DeltaTables) -> TableFiles:
    """Three commits: `a` and `b`, then `b` alone in its shard, and `c` in another shard."""
    for shard, ids in (("s-0", "ab"), ("s-1", "c"), ("s-0", "b")):
        rows = [(name, shard, f"text of {name}") for name in ids]
        frame = pl.DataFrame(rows, schema=SPEC.schema, orient="row")
        tables.replace(tables.snapshot(SPEC), [{"source_shard": shard}], frame)
    return TableFiles(str(tmp_path), tables)


def test_rows_are_found_in_earlier_files_too(files: TableFiles) -> None:
    held = list(files.holding("rows", "document_id", ["a"], columns=["text"]))
    assert [(entry.is_current, entry.rows["text"].to_list()) for entry in held] == [
        (False, ["text of a"])
    ]
    current = [entry.is_current for entry in files.holding("rows", "document_id", ["b"])]
    assert sorted(current) == [False, True]
    assert list(files.holding("rows", "no_such_column", ["a"])) == []


def test_only_earlier_files_with_the_rows_are_removed(
    files: TableFiles, tables: DeltaTables
) -> None:
    n_files = files.count("rows")
    assert files.remove_history("rows", "document_id", ["a"]) == 1
    assert list(files.holding("rows", "document_id", ["a"])) == []
    assert files.count("rows") == n_files - 1
    assert sorted(tables.read(SPEC)["document_id"]) == ["b", "c"]
    assert files.remove_history("rows", "document_id", ["c"]) == 0


def test_what_a_dead_writer_left_half_written_is_removed(files: TableFiles, tmp_path: Path) -> None:
    """Nobody can read it, so nobody can say what is in it."""
    half = tmp_path / "tables" / "rows" / "source_shard=s-0" / "part-dead.parquet"
    half.write_bytes(b"PAR1 and no more")
    assert files.remove_history("rows", "document_id", ["nobody"]) == 1
    assert not half.exists()
