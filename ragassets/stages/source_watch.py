"""Looking for changes of a source again and again, in looks that each have little time.

A source that lists in pages may need several looks for one pass over all its objects: each look
goes on where the last one stopped, and keeps what it saw. New and changed objects are recorded at
once. Deletions follow at the end of the pass, all together, so that the guard sees them together.
"""

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS
from ragassets.core.discovery import EarlierLooks
from ragassets.core.fingerprints import document_id
from ragassets.core.sources import (
    EventQueue,
    IncrementalSource,
    Listing,
    PagedSource,
    SourceObject,
    StreamSource,
)
from ragassets.core.stages import SHARD
from ragassets.errors import SourceUnavailableError
from ragassets.stages.source_objects import (
    OVERLAP,
    SourceDiscovery,
    discover,
    is_note_due,
    last_complete_listing,
    read_known_objects,
    record_listing,
)
from ragassets.stages.source_stream import read_stream

LOOK_SECONDS = 25.0
"""Of one look. Dagster gives a sensor 60 s, and writing what was seen has to fit in too."""

WHOLE_LISTING_INTERVAL = timedelta(hours=1)
"""After a listing of an API that broke off, another one is tried so late: the changes come in
between, and a record that is always broken must not cost a whole listing every 30 s."""

MAX_OBJECTS_PER_LOOK = 100_000
"""What a look holds in memory, some 400 bytes each, and writes in one commit. A store that answers
faster than usual would otherwise fill a look of 25 s with a million."""


def take_events(
    workspace: Workspace,
    name: str,
    queue: EventQueue,
    *,
    now: datetime,
    budget_seconds: float = LOOK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> list[SourceDiscovery]:
    """Record what a source's events say, a batch at a time, until there are none or time is over.

    Events are acknowledged after their batch was recorded. Killed in between, they come again, and
    what they are about is looked up again: that changes nothing.

    Raises:
        ConcurrentWriteError: Somebody else recorded a listing meanwhile; the events come again.
        SourceUnavailableError: Queue or source do not answer.
    """
    deadline = clock() + budget_seconds
    found: list[SourceDiscovery] = []
    while clock() < deadline:
        snapshot = workspace.tables.snapshot(SOURCE_OBJECTS)
        batch = queue.receive()
        if batch is None:
            break
        known = read_known_objects(workspace, name, snapshot, about=batch.listing)
        # Not noted: a message that nobody understands says nothing about the last listing.
        found.append(record_listing(workspace, known, batch.listing, now=now, noted="never"))
        batch.acknowledge()
    return found


@dataclasses.dataclass(frozen=True)
class WatchCursor:
    """Where a pass stands; without one between passes."""

    pass_id: str = ""
    began_at: str = ""
    """ISO 8601."""
    after: str = ""
    """The key of the last object that was listed."""
    n_seen: int = 0
    """Objects that were kept as seen; fewer than that prove nothing about what vanished."""
    rests_until: str = ""
    """Between two passes: ISO 8601; no pass begins before. Empty where none has to wait."""

    @classmethod
    def parse(cls, text: str | None) -> "WatchCursor":
        """A stored cursor; an unreadable one begins a new pass, which costs a listing at most."""
        try:
            return cls(**json.loads(text or "{}"))
        except (ValueError, TypeError):
            return cls()

    def dump(self) -> str:
        """What `parse` reads."""
        is_empty = not (self.pass_id or self.rests_until)
        return "" if is_empty else json.dumps(dataclasses.asdict(self))

    def rests(self, now: datetime) -> bool:
        """Whether the next pass may not begin yet."""
        return bool(self.rests_until) and now < datetime.fromisoformat(self.rests_until)

    def resting(self, seconds: int, now: datetime) -> "WatchCursor":
        """This cursor; between two passes, with a pause."""
        if self.pass_id or not seconds:
            return self
        return WatchCursor(rests_until=(now + timedelta(seconds=seconds)).isoformat())


def look(
    workspace: Workspace,
    name: str,
    cursor: WatchCursor,
    *,
    now: datetime,
    budget_seconds: float = LOOK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[SourceDiscovery, WatchCursor]:
    """Look at a source for some time, and record what is new, changed and gone.

    Args:
        workspace: Where to read and write.
        name: The source.
        cursor: Where the last look stopped.
        now: The time, UTC.
        budget_seconds: After this no further page is asked for.
        clock: Seconds that only grow.

    Raises:
        ConcurrentWriteError: Somebody else recorded a listing meanwhile; the next look goes on from
            the same cursor.
        ConfigurationError: A folder that was never read cannot be found.
    """
    source = workspace.source(name)
    if isinstance(source, StreamSource):
        found = read_stream(workspace, name, source, now=now, budget_seconds=budget_seconds)
        return found, WatchCursor()
    if isinstance(source, IncrementalSource) and source.is_incremental:
        return _look_at_changes(workspace, name, source, now), WatchCursor()
    if not isinstance(source, PagedSource):
        (found,) = discover(workspace, [name], now=now)
        return found, WatchCursor()
    if not cursor.pass_id:
        cursor = WatchCursor(uuid.uuid4().hex, now.isoformat(), "")
    return _look_at_pages(workspace, name, source, cursor, now, clock() + budget_seconds, clock)


def _look_at_changes(
    workspace: Workspace, name: str, source: IncrementalSource, now: datetime
) -> SourceDiscovery:
    """What changed since the newest object that is known; everything where that may miss something.

    Whole listings also come from the source's schedule and from commands: only they find deletions.
    """
    known = read_known_objects(workspace, name)
    newest = _newest(workspace, name)
    if newest is None or _is_whole_listing_due(workspace, name, now):
        (found,) = discover(workspace, [name], now=now)
        return found
    try:
        # A time in the future would hide every change until then.
        listing = source.list_since(min(newest, now))
    except SourceUnavailableError as error:
        listing = Listing((), is_complete=False, message=str(error))
    return record_listing(workspace, known, listing, now=now, noted="never")


def _newest(workspace: Workspace, name: str) -> datetime | None:
    """When the newest object that is known was modified."""
    is_alive = (pl.col("source") == name) & ~pl.col("is_deleted")
    rows = workspace.tables.read(SOURCE_OBJECTS, columns=["modified_at"], where=is_alive)
    return max(rows["modified_at"].to_list(), default=None)


def _is_whole_listing_due(workspace: Workspace, name: str, now: datetime) -> bool:
    """Whether the last whole listing did not come to its end; not asked for with every look."""
    rows = workspace.tables.read(SOURCE_LISTINGS, [{"source": name}])
    if rows.is_empty():
        return True
    return not rows["is_complete"][0] and now - rows["listed_at"][0] >= WHOLE_LISTING_INTERVAL


def _look_at_pages(  # noqa: PLR0917 - the parts of one call of `look`
    workspace: Workspace,
    name: str,
    source: PagedSource,
    cursor: WatchCursor,
    now: datetime,
    deadline: float,
    clock: Callable[[], float],
) -> tuple[SourceDiscovery, WatchCursor]:
    known = read_known_objects(workspace, name)
    seen = _Seen(workspace, name, cursor)
    objects: list[SourceObject] = []
    deleted: list[str] = []
    after, is_over, problem = cursor.after, False, ""
    try:
        for page in source.pages(cursor.after):
            objects += page.objects
            deleted += page.deleted
            after, problem = page.last_key, page.problem
            is_over = page.is_last
            if is_over or clock() >= deadline or len(objects) >= MAX_OBJECTS_PER_LOOK:
                break
        else:
            is_over = True
    except SourceUnavailableError as error:
        problem = str(error)
    is_first_look = not cursor.after
    earlier = None if is_first_look or not is_over else seen.read()
    # A pass that lost what it saw has no end: the next look begins another one.
    is_whole = is_first_look or earlier is not None
    is_complete = is_over and is_whole and not problem
    found = record_listing(
        workspace,
        known,
        Listing(objects, is_complete=is_complete, message=problem, deleted=deleted),
        now=now,
        earlier=earlier,
        noted="always" if is_complete and is_note_due(workspace, name, now) else "problems",
    )
    if is_over:
        seen.clear()
        return found, WatchCursor()
    # After the commit: a crash in between lists these pages once more.
    n_seen = seen.keep(objects)
    return found, dataclasses.replace(cursor, after=after, n_seen=n_seen)


class _Seen:
    """The names of what the earlier looks of a pass saw, kept between looks."""

    def __init__(self, workspace: Workspace, name: str, cursor: WatchCursor) -> None:
        """Remember where; nothing is read yet."""
        self._checkpoints, self._source, self._cursor = workspace.checkpoints, name, cursor
        self._of_source = f"listings/{name}"
        self._kept = f"{self._of_source}/{cursor.pass_id}"

    def read(self) -> EarlierLooks | None:
        """What was seen; None where not all of it is there any more.

        Somebody tried the sensor out, or a daemon was killed, after a look that ended the pass and
        before its cursor was stored.
        """
        rows = self._checkpoints.load(self._kept)
        seen = _names([]) if rows is None else rows["document_id"].unique()
        if seen.len() < self._cursor.n_seen:
            return None
        return EarlierLooks(datetime.fromisoformat(self._cursor.began_at) - OVERLAP, seen)

    def keep(self, objects: Sequence[SourceObject]) -> int:
        """Keep these too; how many are kept in all."""
        if not objects:
            return self._cursor.n_seen
        ids = _names([document_id(self._source, entry.uri) for entry in objects]).unique()
        rows = ids.to_frame().with_columns(pl.lit(self._source).alias(SHARD))
        self._checkpoints.append(self._kept, rows)
        return self._cursor.n_seen + rows.height

    def clear(self) -> None:
        """Forget this pass, and those that nobody ended."""
        self._checkpoints.clear(self._of_source, [self._source])


def _names(ids: list[str]) -> pl.Series:
    return pl.Series("document_id", ids, dtype=pl.String)


def was_listed(workspace: Workspace, name: str) -> bool:
    """Whether the whole source was ever seen."""
    return last_complete_listing(workspace, name) is not None
