"""What a large bucket costs, on a small copy of it: pages, rows and shards, not seconds.

The figures of the large one are in `benchmarks/bucket_listing.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.sources import EventBatch, Listing
from ragassets.stages.source_objects import SourceDiscovery
from ragassets.stages.source_watch import WatchCursor, look, take_events
from ragassets_tests.paged_bucket import NOW, Bucket
from ragassets_tests.scenario import Project

N_OBJECTS = 3000
N_SHARDS = 16
N_PER_PAGE = 100
PAGES_PER_LOOK = 10


class Reads:
    """Which rows and columns of `source_objects` are read."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        self.narrow: list[set[str]] = []
        """Columns of reads over all shards."""
        self.whole: list[set[str]] = []
        """Shards of reads of whole rows."""

    def note(self, partitions: Sequence[Any] | None, columns: Sequence[str] | None) -> None:
        """One read; whole rows of all shards are what must not be."""
        if columns is None:
            assert partitions is not None
            self.whole.append({part["source_shard"] for part in partitions})
        else:
            self.narrow.append(set(columns))


@pytest.fixture
def bucket() -> Bucket:
    """Three thousand objects, thirty pages."""
    bucket = Bucket(N_PER_PAGE)
    bucket.put(*(f"{number:05d}.txt" for number in range(N_OBJECTS)))
    return bucket


@pytest.fixture
def workspace(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project whose source is the bucket, listed once."""
    project = Project(tmp_path / "project")
    project.configure_source(uri="s3://bucket", shards=N_SHARDS)
    workspace = Workspace(project.config)
    monkeypatch.setattr(workspace, "source", lambda _name: bucket)
    assert [one.n_new for one in a_pass(workspace)] == [1000, 1000, 1000, 0]
    return workspace


@pytest.fixture
def reads(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Reads:
    """What is read from here on."""
    reads, read_at = Reads(), DeltaTables.read_at

    def noted(self: DeltaTables, snapshot: Any, partitions: Any = None, **options: Any) -> Any:
        if snapshot.spec is SOURCE_OBJECTS:
            reads.note(partitions, options.get("columns"))
        return read_at(self, snapshot, partitions, **options)

    monkeypatch.setattr(DeltaTables, "read_at", noted)
    return reads


def a_pass(workspace: Workspace) -> list[SourceDiscovery]:
    """Looks of ten pages each, until everything was seen."""
    found: list[SourceDiscovery] = []
    cursor = WatchCursor()
    while cursor.pass_id or not found:
        ticks = iter(range(1000))
        one, cursor = look(
            workspace,
            "handbook",
            WatchCursor.parse(cursor.dump()),
            now=NOW,
            budget_seconds=PAGES_PER_LOOK,
            clock=lambda ticks=ticks: float(next(ticks)),
        )
        found.append(one)
    return found


def written_rows(workspace: Workspace, before: dict[str, int]) -> int:
    """Rows of the files that are new since `before`."""
    return sum(n for path, n in files(workspace).items() if path not in before)


def files(workspace: Workspace) -> dict[str, int]:
    """Data file of `source_objects` to its rows."""
    table: Any = workspace.tables.snapshot(SOURCE_OBJECTS).handle
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    return dict(actions.select("path", "num_records").iter_rows())


def test_a_pass_without_news_reads_no_whole_row_and_writes_nothing(
    workspace: Workspace, reads: Reads
) -> None:
    """Every thirty seconds, for ever."""
    version = workspace.tables.snapshot(SOURCE_OBJECTS).version
    assert [one.changed_shards for one in a_pass(workspace)] == [(), (), (), ()]
    assert reads.whole == []
    assert set().union(*reads.narrow) == {
        "document_id",
        "source_shard",
        "etag",
        "is_deleted",
        "changed_at",
    }
    assert workspace.tables.snapshot(SOURCE_OBJECTS).version == version


def test_a_new_object_costs_one_shard(workspace: Workspace, bucket: Bucket, reads: Reads) -> None:
    """Its rows are read and written again, those of the other shards are not."""
    before = files(workspace)
    bucket.put("01234-new.txt")
    (shard,) = {shard for one in a_pass(workspace) for shard in one.changed_shards}
    assert reads.whole == [{shard}]
    assert N_OBJECTS / N_SHARDS / 2 < written_rows(workspace, before) < N_OBJECTS / N_SHARDS * 2


def test_an_event_reads_its_own_object_and_shard_only(
    workspace: Workspace, bucket: Bucket, reads: Reads
) -> None:
    """However large the bucket is."""
    bucket.put("01234-new.txt")
    (page,) = (page for page in bucket.pages() if page.objects[0].uri.endswith("01200.txt"))
    (entry,) = (entry for entry in page.objects if entry.uri.endswith("new.txt"))
    batches = [EventBatch(Listing([entry], is_complete=False), lambda: None)]

    class Queue:
        def receive(self) -> EventBatch | None:
            return batches.pop() if batches else None

    (found,) = take_events(workspace, "handbook", Queue(), now=NOW)
    assert (found.n_new, found.n_objects, len(found.changed_shards)) == (1, N_OBJECTS + 1, 1)
    assert reads.whole == [set(found.changed_shards)]
