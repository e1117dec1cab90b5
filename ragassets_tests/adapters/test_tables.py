"""What is particular to Delta Lake; `contract/test_tables.py` holds what every store promises."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from ragassets.adapters.tables import CHECKPOINT_INTERVAL, DeltaTables
from ragassets.core.tables import Snapshot, TableSpec
from ragassets.errors import (
    ConcurrentWriteError,
    StageError,
    StorageUnavailableError,
    SystemResourceError,
)
from ragassets_tests.disks import small_disk

SPEC = TableSpec(
    name="_rows",
    schema=pl.Schema({"row_id": pl.String, "source_shard": pl.String, "text": pl.String}),
    partition_by=("source_shard",),
    key="row_id",
)


def rows(shard: str, *ids: str, text: str = "text") -> pl.DataFrame:
    """Rows of one shard."""
    return pl.DataFrame([(i, shard, text) for i in ids], schema=SPEC.schema, orient="row")


def write(tables: DeltaTables, shard: str, *ids: str, base: Snapshot | None = None) -> int:
    """Replace one shard."""
    base = base or tables.snapshot(SPEC)
    return tables.replace(base, [{"source_shard": shard}], rows(shard, *ids))


def run_at_once(tasks: list[Callable[[], int]]) -> list[int | ConcurrentWriteError]:
    """Start all tasks at one moment; `deltalake` works without the GIL, so they really race."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], int]) -> int | ConcurrentWriteError:
        barrier.wait(30)
        try:
            return task()
        except ConcurrentWriteError as error:
            return error

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A file system of 500 kB."""
    with small_disk(tmp_path / "small", 500_000) as folder:
        yield folder


@pytest.mark.parametrize("is_new_table", [True, False])
def test_of_simultaneous_writers_to_one_partition_exactly_one_wins(
    tmp_path: Path, is_new_table: bool
) -> None:
    """Also when the table itself is created in the race."""
    tables = DeltaTables(str(tmp_path))
    if not is_new_table:
        write(tables, "s-9", "z")
    base = tables.snapshot(SPEC)
    results = run_at_once([lambda i=i: write(tables, "s-0", f"w{i}", base=base) for i in range(4)])
    assert sum(isinstance(result, int) for result in results) == 1
    assert tables.read(SPEC, [{"source_shard": "s-0"}]).height == 1


@pytest.mark.parametrize("is_new_table", [True, False])
def test_simultaneous_writers_to_different_partitions_all_win(
    tmp_path: Path, is_new_table: bool
) -> None:
    """Every shard of a source is written at the same minute of the hour."""
    tables = DeltaTables(str(tmp_path))
    if not is_new_table:
        write(tables, "s-9", "z")
    base = tables.snapshot(SPEC)
    results = run_at_once([lambda i=i: write(tables, f"s-{i}", "a", base=base) for i in range(6)])
    assert all(isinstance(result, int) for result in results)
    assert tables.read(SPEC, where=pl.col("row_id") == "a").height == 6


def test_a_snapshot_without_its_handle_is_loaded_by_version(tmp_path: Path) -> None:
    """A snapshot may have been rebuilt from the version in a run's metadata."""
    tables = DeltaTables(str(tmp_path))
    write(tables, "s-0", "a")
    version = tables.snapshot(SPEC).version
    write(tables, "s-0", "b")
    rebuilt = Snapshot(SPEC, version)
    assert tables.read_at(rebuilt)["row_id"].to_list() == ["a"]
    with pytest.raises(ConcurrentWriteError):
        write(tables, "s-0", "c", base=rebuilt)


def test_every_type_survives_a_round_trip(tmp_path: Path) -> None:
    """Nulls, empty lists, NUL characters, extremes: documents hold all of them."""
    block = pl.Struct({"kind": pl.String, "start_char": pl.Int64, "page": pl.Int64})
    schema = pl.Schema(
        {
            "key": pl.String,
            "shard": pl.String,
            "integer": pl.Int64,
            "float": pl.Float64,
            "is_ocr": pl.Boolean,
            "at": pl.Datetime("us", "UTC"),
            "data": pl.Binary,
            "vector": pl.List(pl.Float32),
            "tags": pl.List(pl.String),
            "blocks": pl.List(block),
        }
    )
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    blocks = [{"kind": "title", "start_char": 0, "page": None}]
    frame = pl.DataFrame(
        [
            ("1", "s", 1, 1.5, True, at, b"\0\xff", [0.1, 2.0], ["a", None, ""], blocks),
            ("2\0\u2028😀", "s", None, float("nan"), None, None, None, [], [], []),
            ("3", "s", -(2**63), float("inf"), False, at, b"", None, None, None),
            ("4", "s", 2**63 - 1, -0.0, False, at, b"x", [float("nan")], ["\0"], blocks * 3),
        ],
        schema=schema,
        orient="row",
    )
    spec = TableSpec("typed", schema, ("shard",), "key")
    tables = DeltaTables(str(tmp_path))
    tables.replace(tables.snapshot(spec), [{"shard": "s"}], frame)
    assert_frame_equal(tables.read(spec).sort("key"), frame)


def test_a_text_of_ten_megabytes_bloats_no_log(tmp_path: Path) -> None:
    """Column statistics of text would be copied into every log entry and checkpoint."""
    tables = DeltaTables(str(tmp_path))
    text = "é\0" * 5_000_000
    tables.replace(tables.snapshot(SPEC), [{"source_shard": "s"}], rows("s", "a", text=text))
    assert tables.read(SPEC)["text"].to_list() == [text]
    log = tmp_path / "tables" / "_rows" / "_delta_log"
    assert sum(entry.stat().st_size for entry in log.iterdir()) < 10_000


def test_a_nested_column_may_gain_a_field(tmp_path: Path) -> None:
    """Elements and blocks are structs, and get new fields with time."""
    narrow, wide = (
        TableSpec(
            "nested",
            pl.Schema(
                {"key": pl.String, "shard": pl.String, "blocks": pl.List(pl.Struct(members))}
            ),
            ("shard",),
            "key",
        )
        for members in ({"kind": pl.String}, {"kind": pl.String, "level": pl.Int64})
    )
    tables = DeltaTables(str(tmp_path))
    old = pl.DataFrame([("a", "s", [{"kind": "text"}])], schema=narrow.schema, orient="row")
    new = pl.DataFrame([("b", "t", [{"kind": "x", "level": 2}])], schema=wide.schema, orient="row")
    tables.replace(tables.snapshot(narrow), [{"shard": "s"}], old)
    assert tables.read(wide)["blocks"].to_list() == [[{"kind": "text", "level": None}]]
    tables.replace(tables.snapshot(wide), [{"shard": "t"}], new)
    assert tables.read(wide).sort("key")["blocks"].to_list() == [
        [{"kind": "text", "level": None}],
        [{"kind": "x", "level": 2}],
    ]


def test_a_changed_column_type_is_refused_in_words(tmp_path: Path) -> None:
    """Delta cannot turn text into numbers; the reader must learn what to do."""
    tables = DeltaTables(str(tmp_path))
    write(tables, "s-0", "a")
    schema = pl.Schema({**SPEC.schema, "text": pl.Int64})
    changed = TableSpec(SPEC.name, schema, SPEC.partition_by, SPEC.key)
    frame = pl.DataFrame([("b", "s-1", 1)], schema=schema, orient="row")
    with pytest.raises(StageError, match="'text' is String on disk and Int64"):
        tables.replace(tables.snapshot(changed), [{"source_shard": "s-1"}], frame)


@pytest.mark.parametrize("folder", ["My Documents", "é#1", "a;b,c", 'it\'s "it"'])
def test_any_ordinary_folder_can_be_the_root(tmp_path: Path, folder: str) -> None:
    """`deltalake` percent-encodes such folders and Polars does not decode them."""
    tables = DeltaTables(str(tmp_path / folder))
    write(tables, "s 0", "a")
    write(tables, "s 0", "b")
    assert tables.read(SPEC, [{"source_shard": "s 0"}])["row_id"].to_list() == ["b"]
    assert (tmp_path / folder / "tables" / "_rows" / "_delta_log").is_dir()
    assert tables.tables() == ["_rows"]


def test_other_readers_see_the_same_rows(tmp_path: Path) -> None:
    """The tables are public: any Delta reader opens them."""
    tables = DeltaTables(str(tmp_path))
    write(tables, "s-0", "a")
    write(tables, "s-0", "b", "c")
    found = pl.read_delta(str(tmp_path / "tables" / "_rows"))
    assert_frame_equal(found.sort("row_id"), rows("s-0", "b", "c"), check_column_order=False)


def test_reading_a_partition_opens_only_its_files(tmp_path: Path) -> None:
    """A run on one of a thousand shards must not read the others."""
    tables = DeltaTables(str(tmp_path))
    write(tables, "s-0", "a")
    write(tables, "s-1", "b")
    for file in (tmp_path / "tables" / "_rows" / "source_shard=s-1").iterdir():
        file.unlink()
    assert tables.read(SPEC, [{"source_shard": "s-0"}])["row_id"].to_list() == ["a"]
    with pytest.raises(StorageUnavailableError, match="_rows"):
        tables.read(SPEC)


def test_maintenance_merges_and_deletes_without_disturbing_a_writer(tmp_path: Path) -> None:
    """Housekeeping runs at any time, also between a stage's read and its commit."""
    tables = DeltaTables(str(tmp_path))
    write(tables, "s-0", "old")
    write(tables, "s-0", "a")
    folder = tmp_path / "tables" / "_rows"
    for row_id in ("b", "c"):
        write_deltalake(folder, rows("s-0", row_id), mode="append")
    leftover = folder / "source_shard=s-0" / "part-00000-killed-before-its-commit.snappy.parquet"
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    base = tables.snapshot(SPEC)

    report = tables.maintain(SPEC, retention_hours=0)

    assert report.n_files_compacted == 3
    assert report.n_files_deleted >= 4
    assert not leftover.exists()
    assert sorted(tables.read(SPEC)["row_id"]) == ["a", "b", "c"]
    assert len(list(folder.glob("source_shard=s-0/*.parquet"))) == 1
    write(tables, "s-0", "d", base=base)
    assert tables.read(SPEC)["row_id"].to_list() == ["d"]


def test_maintenance_of_a_table_that_does_not_exist_does_nothing(tmp_path: Path) -> None:
    """The schedule starts before the first document arrives."""
    tables = DeltaTables(str(tmp_path))
    assert tables.maintain(SPEC).n_files_deleted == 0
    assert tables.tables() == []


def test_a_checkpoint_is_written_as_the_log_grows(tmp_path: Path) -> None:
    """Without checkpoints, opening a table would read every commit since its creation."""
    tables = DeltaTables(str(tmp_path))
    for number in range(CHECKPOINT_INTERVAL):
        write(tables, f"s-{number % 3}", "a")
    log = tmp_path / "tables" / "_rows" / "_delta_log"
    assert (log / "_last_checkpoint").exists()
    assert len(list(log.glob("*.checkpoint.parquet"))) == 1
    base = tables.snapshot(SPEC)
    write(tables, "s-0", "b")
    with pytest.raises(ConcurrentWriteError):
        write(tables, "s-0", "c", base=base)


@pytest.mark.slow
def test_five_hundred_commits_do_not_slow_reads_down(tmp_path: Path) -> None:
    """A year of hourly runs must not make a table unusable."""
    tables = DeltaTables(str(tmp_path))
    for number in range(500):
        write(tables, f"s-{number % 50}", "a")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert tables.read(SPEC, [{"source_shard": "s-7"}]).height == 1
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_a_full_disk_is_a_system_error_and_changes_nothing(full_soon: Path) -> None:
    """The old rows stay readable, and the run can be resumed."""
    tables = DeltaTables(str(full_soon))
    write(tables, "s-0", "a")
    big = rows("s-0", "b", text=os.urandom(400_000).hex())
    with pytest.raises(SystemResourceError, match="No space left"):
        tables.replace(tables.snapshot(SPEC), [{"source_shard": "s-0"}], big)
    assert tables.read(SPEC)["row_id"].to_list() == ["a"]


def test_a_disk_that_became_read_only_is_one_clear_line(full_soon: Path) -> None:
    """A failing disk is remounted read-only by the kernel."""
    tables = DeltaTables(str(full_soon))
    write(tables, "s-0", "a")
    remount = ["mount", "-o", "remount,ro", str(full_soon)]
    if subprocess.run(remount, capture_output=True, check=False).returncode:
        pytest.skip("the file system cannot be remounted")
    with pytest.raises(StorageUnavailableError, match="Read-only file system") as caught:
        write(tables, "s-0", "b")
    assert "\n" not in str(caught.value)
    assert tables.read(SPEC)["row_id"].to_list() == ["a"]
    with pytest.raises(StorageUnavailableError, match="not writable"):
        DeltaTables(str(full_soon))


def test_a_damaged_log_is_one_clear_line(tmp_path: Path) -> None:
    """It must not look like an empty table, which the next run would fill anew."""
    tables = DeltaTables(str(tmp_path))
    write(tables, "s-0", "a")
    log = tmp_path / "tables" / "_rows" / "_delta_log"
    for entry in log.glob("*.json"):
        entry.write_text("{not json")
    with pytest.raises(StorageUnavailableError, match="_rows"):
        tables.read(SPEC)
    with pytest.raises(StorageUnavailableError):
        tables.snapshot(SPEC)


def test_the_layout_on_disk_is_the_documented_one(tmp_path: Path) -> None:
    """`<root>/tables/<asset>` with one folder per partition value."""
    write(DeltaTables(str(tmp_path)), "s-0", "a")
    table = DeltaTable(tmp_path / "tables" / "_rows")
    assert table.metadata().partition_columns == ["source_shard"]
    assert [path.name for path in (tmp_path / "tables" / "_rows").glob("source*")] == [
        "source_shard=s-0"
    ]


def test_vectors_of_a_small_partition_take_no_more_than_their_bytes(tmp_path: Path) -> None:
    """A dictionary of floats, which Parquet makes by default, would add half of that."""
    spec = TableSpec(
        "vectors",
        pl.Schema({"key": pl.String(), "shard": pl.String(), "vector": pl.List(pl.Float32)}),
        ("shard",),
        "key",
    )
    drawn = np.random.default_rng(1).normal(size=(500, 384)).astype(np.float32)
    column = pl.Series("vector", drawn).cast(pl.List(pl.Float32))
    frame = pl.DataFrame({"key": [f"{n:03d}" for n in range(500)], "shard": "s"})
    tables = DeltaTables(str(tmp_path))
    snapshot = tables.snapshot(spec)
    tables.replace(snapshot, [{"shard": "s"}], frame.with_columns(column))
    written = sum(file.stat().st_size for file in tmp_path.rglob("shard=s/*.parquet"))
    assert 0.8 * drawn.nbytes < written < 1.05 * drawn.nbytes
