"""Looks at a source that each have little time, and what may be concluded from them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.stages import RunContext
from ragassets.stages import source_watch
from ragassets.stages.raw_documents import shards_behind, update_raw_documents
from ragassets.stages.source_objects import SourceDiscovery, discover
from ragassets.stages.source_watch import WatchCursor, look, was_listed
from ragassets_tests.paged_bucket import NOW, Bucket
from ragassets_tests.scenario import Project


@pytest.fixture
def bucket() -> Bucket:
    """Six objects, two on a page."""
    bucket = Bucket()
    bucket.put("a", "b", "c", "d", "e", "f")
    return bucket


@pytest.fixture
def workspace(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project whose source is the bucket; nothing was listed yet."""
    project = Project(tmp_path / "project")
    project.configure_source(uri="s3://bucket", shards=1)
    workspace = Workspace(project.config)
    monkeypatch.setattr(workspace, "source", lambda _name: bucket)
    return workspace


def a_look(
    workspace: Workspace, cursor: WatchCursor, *, n_pages: int, now: datetime = NOW
) -> tuple[SourceDiscovery, WatchCursor]:
    """A look that has time for so many pages."""
    ticks = iter(range(1000))
    return look(
        workspace,
        "handbook",
        WatchCursor.parse(cursor.dump()),
        now=now,
        budget_seconds=n_pages,
        clock=lambda: float(next(ticks)),
    )


def alive(workspace: Workspace) -> str:
    """The keys that are recorded as being there."""
    rows = workspace.tables.read(SOURCE_OBJECTS, where=~pl.col("is_deleted"))
    return "".join(sorted(str(uri)[-1] for uri in rows["uri"]))


def test_a_pass_goes_on_where_the_last_look_stopped(workspace: Workspace, bucket: Bucket) -> None:
    """What is new is known at once; what is gone only when everything was seen."""
    found, cursor = a_look(workspace, WatchCursor(), n_pages=1)
    assert (found.n_new, found.n_removed, cursor.after) == (2, 0, "b")
    assert alive(workspace) == "ab"
    found, cursor = a_look(workspace, cursor, n_pages=1)
    assert (found.n_new, cursor.after, alive(workspace)) == (2, "d", "abcd")
    found, cursor = a_look(workspace, cursor, n_pages=9)
    assert (found.n_new, cursor, alive(workspace)) == (2, WatchCursor(), "abcdef")
    assert found.problem == ""
    assert workspace.checkpoints.load("listings/handbook") is None


def test_deletions_wait_for_the_end_of_the_pass(workspace: Workspace, bucket: Bucket) -> None:
    """Half a listing looks like half a bucket."""
    a_look(workspace, WatchCursor(), n_pages=9)
    later = NOW + timedelta(hours=1)
    del bucket.objects["a"], bucket.objects["f"]
    bucket.put("b", text="changed")
    found, cursor = a_look(workspace, WatchCursor(), n_pages=1, now=later)
    assert (found.n_changed, found.n_removed, alive(workspace)) == (1, 0, "abcdef")
    found, cursor = a_look(workspace, cursor, n_pages=9, now=later)
    # Two of six are more than a fifth: the guard sees both looks' deletions together.
    assert "would remove 2 of 6" in found.problem
    (found,) = discover(workspace, ["handbook"], now=later, confirmed=["handbook"])
    assert (found.n_removed, alive(workspace)) == (2, "bcde")


def test_an_object_recorded_behind_the_pass_is_not_taken_for_vanished(
    workspace: Workspace, bucket: Bucket
) -> None:
    """Another process may have listed it when this pass had gone by its place."""
    a_look(workspace, WatchCursor(), n_pages=9)
    later = NOW + timedelta(hours=1)
    _, cursor = a_look(workspace, WatchCursor(), n_pages=1, now=later)
    bucket.put("aa")
    discover(workspace, ["handbook"], now=later + timedelta(seconds=1))
    _, cursor = a_look(workspace, cursor, n_pages=9, now=later + timedelta(seconds=30))
    assert cursor == WatchCursor()
    rows = workspace.tables.read(SOURCE_OBJECTS, where=pl.col("uri") == "s3://bucket/aa")
    assert rows["is_deleted"].to_list() == [False]


def test_a_store_that_breaks_off_is_asked_again_from_there(
    workspace: Workspace, bucket: Bucket
) -> None:
    """Nothing is gone, and nothing that was seen is seen again."""
    bucket.breaks_after = "d"
    found, cursor = a_look(workspace, WatchCursor(), n_pages=9)
    assert (found.n_new, cursor.after, alive(workspace)) == (4, "d", "abcd")
    assert "is away" in found.problem
    bucket.breaks_after = None
    found, cursor = a_look(workspace, cursor, n_pages=9)
    assert (found.n_new, cursor, alive(workspace)) == (2, WatchCursor(), "abcdef")


def test_a_pass_that_lost_what_it_saw_removes_nothing(workspace: Workspace, bucket: Bucket) -> None:
    """A daemon is killed behind the last look, before its cursor is stored; or somebody tries the
    sensor out in the UI, which runs a look and stores nothing.
    """
    a_look(workspace, WatchCursor(), n_pages=9)
    later = NOW + timedelta(hours=1)
    _, cursor = a_look(workspace, WatchCursor(), n_pages=1, now=later)
    for n_times in (1, 2):
        found, after = a_look(workspace, cursor, n_pages=9, now=later)
        assert (n_times, found.n_removed, found.problem, after) == (n_times, 0, "", WatchCursor())
        assert alive(workspace) == "abcdef"
        assert was_listed(workspace, "handbook")
    del bucket.objects["c"]
    found, _ = a_look(workspace, cursor, n_pages=9, now=later)
    assert (found.n_removed, alive(workspace)) == (0, "abcdef")
    found, _ = a_look(workspace, WatchCursor(), n_pages=9, now=later)
    assert (found.n_removed, alive(workspace)) == (1, "abdef")


def test_what_others_recorded_during_a_pass_is_newer(workspace: Workspace, bucket: Bucket) -> None:
    """The end of a pass knows of its first objects that they were there, and no more."""
    a_look(workspace, WatchCursor(), n_pages=9)
    later = NOW + timedelta(hours=1)
    _, cursor = a_look(workspace, WatchCursor(), n_pages=1, now=later)
    bucket.put("a", text="second")
    del bucket.objects["b"]
    discover(workspace, ["handbook"], now=later + timedelta(seconds=5))
    bucket.put("f", text="third")
    found, _ = a_look(workspace, cursor, n_pages=9, now=later + timedelta(seconds=30))
    assert (found.n_new, found.n_changed, found.n_removed) == (0, 1, 0)
    rows = workspace.tables.read(SOURCE_OBJECTS, where=~pl.col("is_deleted"))
    etags = {str(uri)[-1]: etag for uri, etag in rows.select("uri", "etag").iter_rows()}
    assert (etags["a"], etags["f"]) == ("etag of second", "etag of third")
    assert alive(workspace) == "acdef"


def test_a_folder_that_was_renamed_is_not_lost_over_several_looks(
    workspace: Workspace, bucket: Bucket
) -> None:
    """What came in the first look is recorded when the last one finds what went."""
    bucket.objects = {f"z{key}": f"text {key}" for key in "abcdef"}
    a_look(workspace, WatchCursor(), n_pages=9)
    later = NOW + timedelta(hours=1)
    bucket.objects = {f"a{key}": f"text {key}" for key in "abcdef"}
    _, cursor = a_look(workspace, WatchCursor(), n_pages=2, now=later)
    assert cursor.after == "ad"
    found, cursor = a_look(workspace, cursor, n_pages=9, now=later + timedelta(seconds=30))
    assert (found.problem, found.n_removed, cursor) == ("", 6, WatchCursor())


def test_a_look_ends_when_it_holds_enough(
    workspace: Workspace, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast the store answers."""
    monkeypatch.setattr(source_watch, "MAX_OBJECTS_PER_LOOK", 4)
    _, cursor = a_look(workspace, WatchCursor(), n_pages=9)
    assert (cursor.after, alive(workspace)) == ("d", "abcd")
    _, cursor = a_look(workspace, cursor, n_pages=9)
    assert (cursor, alive(workspace)) == (WatchCursor(), "abcdef")


@pytest.mark.parametrize("text", [None, "", "nonsense", "[]", '{"after": 1, "unknown": 2}'])
def test_an_unreadable_cursor_begins_a_new_pass(text: str | None) -> None:
    """A tick that fails for ever is worse than one listing more."""
    assert WatchCursor.parse(text) == WatchCursor()


def test_only_shards_that_differ_from_their_source_are_behind(
    workspace: Workspace, bucket: Bucket
) -> None:
    """From a first listing to a deletion; what was done is not asked for again."""
    context = RunContext("run", lambda: NOW)

    def process() -> Sequence[str]:
        behind = shards_behind(workspace, ["handbook-000"])
        update_raw_documents(workspace, list(behind), context)
        return list(behind)

    assert process() == []
    a_look(workspace, WatchCursor(), n_pages=9)
    assert process() == ["handbook-000"]
    assert process() == []
    bucket.put("a", text="changed")
    a_look(workspace, WatchCursor(), n_pages=9, now=NOW + timedelta(hours=1))
    assert process() == ["handbook-000"]
    del bucket.objects["b"]
    a_look(workspace, WatchCursor(), n_pages=9, now=NOW + timedelta(hours=2))
    assert process() == ["handbook-000"]
    assert process() == []
