"""Any life of a bucket under any looks: nothing that stays is removed, and nothing is missed."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.errors import SourceUnavailableError
from ragassets.stages.source_objects import OVERLAP, discover
from ragassets.stages.source_watch import WatchCursor, look
from ragassets_tests.fakes import InMemoryTables
from ragassets_tests.paged_bucket import Bucket
from ragassets_tests.scenario import Project

START = datetime(2026, 1, 2, 12, tzinfo=UTC)
KEYS = "abcdefgh"
STAYING = "bdg"
"""Never deleted, at most overwritten."""

Change = tuple[Literal["put", "delete"], str, str]
LOOKS = ("look", "killed before its cursor", "killed before it kept what it saw", "other", "away")

changes = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(("one", "two", "three"))),
    st.tuples(st.just("delete"), st.sampled_from(sorted(set(KEYS) - set(STAYING))), st.just("")),
)
looks = st.tuples(
    st.sampled_from(LOOKS),
    st.sampled_from((1, 2, 9)),
    st.lists(changes, max_size=3),
    st.integers(-120, 240),
)


class Watched:
    """A bucket, what is recorded of it, and the looks at it."""

    def __init__(self, folder: Path) -> None:
        """Begin with a recorded bucket."""
        self.bucket = Bucket()
        self.bucket.put(*KEYS)
        project = Project(folder)
        project.configure_source(uri="s3://bucket", shards=2, max_delete_share=1.0)
        self.workspace = Workspace(project.config)
        self.workspace.__dict__["tables"] = InMemoryTables()
        self.workspace.source = lambda _name: self.bucket  # pyright: ignore[reportAttributeAccessIssue]
        self.cursor = ""
        self.now = START
        discover(self.workspace, ["handbook"], now=self.now)

    def change(self, kind: str, key: str, text: str) -> None:
        """Somebody writes to the bucket."""
        if kind == "put":
            self.bucket.put(key, text=text)
        else:
            self.bucket.objects.pop(key, None)

    def look(self, kind: str, n_pages: int, meanwhile: list[Change], n_seconds: int) -> None:
        """One look, behind whose first page the bucket changes; the clock may go back a bit."""
        self.now += timedelta(seconds=n_seconds)
        pending = list(meanwhile)

        def clock() -> float:
            # Asked once before the first page, then behind every page.
            self.n_asked += 1
            if self.n_asked == 2:
                for change in pending:
                    self.change(*change)
            return float(self.n_asked)

        self.n_asked = 0
        if kind == "other":
            discover(self.workspace, ["handbook"], now=self.now)
            return
        if kind == "away":
            self.bucket.breaks_after = ""
        checkpoints = self.workspace.checkpoints
        try:
            if kind == "killed before it kept what it saw":
                self.workspace.__dict__["checkpoints"] = _Killed()
            _, cursor = look(
                self.workspace,
                "handbook",
                WatchCursor.parse(self.cursor),
                now=self.now,
                budget_seconds=n_pages,
                clock=clock,
            )
        except (KeyboardInterrupt, SourceUnavailableError):
            return
        finally:
            self.workspace.__dict__["checkpoints"] = checkpoints
            self.bucket.breaks_after = None
        if kind != "killed before its cursor":
            self.cursor = cursor.dump()

    def alive(self) -> dict[str, str]:
        """Key to text of what is recorded as being there."""
        rows = self.workspace.tables.read(SOURCE_OBJECTS, where=~pl.col("is_deleted"))
        return {
            str(uri)[-1]: str(etag).removeprefix("etag of ")
            for uri, etag in rows.select("uri", "etag").iter_rows()
        }


class _Killed:
    """Whatever is kept between looks: the process ends when it is to be written."""

    def load(self, *_: object) -> None:
        raise KeyboardInterrupt

    append = clear = load


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(looks, max_size=8))
@example([("look", 1, [], 0), ("killed before its cursor", 9, [], 0), ("look", 9, [], 0)])
@example([("look", 1, [], 400), ("other", 1, [("put", "b", "one")], 5), ("look", 9, [], 30)])
def test_whatever_happens_meanwhile_the_next_whole_passes_end_with_the_bucket(
    life: list[tuple[str, int, list[Change], int]],
) -> None:
    """Objects written behind the cursor, overwritten twice, deleted and put back; looks that are
    killed, or tried out; other observers; clocks that go back. What stays is never taken for gone.
    """
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(Path(folder) / "project")
        for step in life:
            watched.look(*step)
            assert set(STAYING) <= set(watched.alive())
        n_passes = 0
        watched.now += OVERLAP * 2
        # The pass that is under way, and one from beginning to end with nothing going on.
        while n_passes < 2:
            watched.look("look", 3, [], 30)
            n_passes += not watched.cursor
            watched.now += OVERLAP * 2 * (not watched.cursor)
        assert watched.alive() == watched.bucket.objects
