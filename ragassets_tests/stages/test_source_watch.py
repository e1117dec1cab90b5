"""Looks at a source that each have little time, and what may be concluded from them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.sources import Listing, ListingPage, SourceObject
from ragassets.core.stages import RunContext
from ragassets.errors import SourceUnavailableError
from ragassets.stages.raw_documents import shards_behind, update_raw_documents
from ragassets.stages.source_objects import SourceDiscovery, discover
from ragassets.stages.source_watch import WatchCursor, look
from ragassets_tests.scenario import Project

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Bucket:
    """A paged source in memory: `objects` by key, so many keys on a page."""

    def __init__(self, n_per_page: int = 2) -> None:
        """Begin empty."""
        self.objects: dict[str, str] = {}
        self.n_per_page = n_per_page
        self.breaks_after: str | None = None
        """The store stops answering behind this key."""

    def put(self, *keys: str, text: str = "text") -> None:
        """Write objects."""
        self.objects |= dict.fromkeys(keys, text)

    def probe(self) -> str:
        """See `Source`."""
        return "memory"

    def list_objects(self) -> Listing:
        """See `Source`."""
        pages = [entry for page in self.pages() for entry in page.objects]
        return Listing(pages, is_complete=True)

    def fetch(self, wanted: SourceObject) -> bytes:
        """See `Source`."""
        return self.objects[wanted.uri.removeprefix("s3://bucket/")].encode()

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """See `PagedSource`."""
        while True:
            if self.breaks_after is not None and after >= self.breaks_after:
                raise SourceUnavailableError(service="s3://bucket", detail="is away")
            keys = sorted(key for key in self.objects if key > after)[: self.n_per_page]
            if not keys:
                return
            after = keys[-1]
            yield ListingPage([self._described(key) for key in keys], after)

    def _described(self, key: str) -> SourceObject:
        text = self.objects[key]
        return SourceObject(f"s3://bucket/{key}", f"etag of {text}", len(text), NOW)


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
