"""Looking for changes of a source again and again, in looks that each have little time.

A source that lists in pages may need several looks for one pass over all its objects: each look
goes on where the last one stopped, and keeps what it saw. New and changed objects are recorded at
once. Deletions follow at the end of the pass, all together, so that the guard sees them together.
"""

import dataclasses
import json
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_LISTINGS
from ragassets.core.incremental import TIMESTAMP
from ragassets.core.sources import EventQueue, Listing, PagedSource, SourceObject
from ragassets.core.stages import SHARD
from ragassets.errors import SourceUnavailableError
from ragassets.stages.source_objects import (
    SourceDiscovery,
    discover,
    read_known_objects,
    record_listing,
)

LOOK_SECONDS = 25.0
"""Of one look. Dagster gives a sensor 60 s, and writing what was seen has to fit in too."""

OVERLAP = timedelta(minutes=5)
"""Objects that were first seen, or changed, since this long before a pass began are not taken for
vanished by it: another process may have recorded them when the pass had gone by their place. Two
machines' clocks differ by less."""

NOTE_INTERVAL = timedelta(minutes=10)
"""Looks that changed nothing are noted so often: each note is a commit, and a look every 30 s would
make a million of them in a year."""

SEEN_SCHEMA = pl.Schema(
    {
        SHARD: pl.String(),
        "uri": pl.String(),
        "etag": pl.String(),
        "size_bytes": pl.Int64(),
        "modified_at": TIMESTAMP,
    }
)


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
        known = read_known_objects(workspace, name)
        batch = queue.receive()
        if batch is None:
            break
        found.append(record_listing(workspace, known, batch.listing, now=now, is_noted=False))
        batch.acknowledge()
    return found


@dataclasses.dataclass(frozen=True)
class WatchCursor:
    """Where a pass stands; empty between passes."""

    pass_id: str = ""
    began_at: str = ""
    """ISO 8601."""
    after: str = ""
    """The key of the last object that was listed."""

    @classmethod
    def parse(cls, text: str | None) -> "WatchCursor":
        """A stored cursor; an unreadable one begins a new pass, which costs a listing at most."""
        try:
            return cls(**json.loads(text or "{}"))
        except (ValueError, TypeError):
            return cls()

    def dump(self) -> str:
        """What `parse` reads."""
        return json.dumps(dataclasses.asdict(self)) if self.pass_id else ""


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
    if not isinstance(source, PagedSource):
        (found,) = discover(workspace, [name], now=now)
        return found, WatchCursor()
    if not cursor.pass_id:
        cursor = WatchCursor(uuid.uuid4().hex, now.isoformat(), "")
    return _look_at_pages(workspace, name, source, cursor, now, clock() + budget_seconds, clock)


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
    kept = f"listings/{name}/{cursor.pass_id}"
    began_at = datetime.fromisoformat(cursor.began_at)
    objects: list[SourceObject] = []
    after, is_over, problem = cursor.after, False, ""
    try:
        for page in source.pages(cursor.after):
            objects += page.objects
            after = page.last_key
            if clock() >= deadline:
                break
        else:
            is_over = True
    except SourceUnavailableError as error:
        problem = str(error)
    is_first_look = not cursor.after
    if is_over and not is_first_look:
        earlier = workspace.checkpoints.load(kept)
        objects = [*_objects(earlier), *objects]
    found = record_listing(
        workspace,
        known,
        Listing(objects, is_complete=is_over, message=problem),
        now=now,
        spared_since=None if is_first_look else began_at - OVERLAP,
        is_noted=is_over and _is_note_due(workspace, name, now),
    )
    if is_over:
        workspace.checkpoints.clear(kept, [name])
        return found, WatchCursor()
    if objects:
        # Kept after the commit: a crash in between lists these pages once more.
        workspace.checkpoints.append(kept, _frame(name, objects))
    return found, dataclasses.replace(cursor, after=after)


def was_listed(workspace: Workspace, name: str) -> bool:
    """Whether the whole source was ever seen."""
    return _last_complete(workspace, name) is not None


def _is_note_due(workspace: Workspace, name: str, now: datetime) -> bool:
    last = _last_complete(workspace, name)
    return last is None or now - last >= NOTE_INTERVAL


def _last_complete(workspace: Workspace, name: str) -> datetime | None:
    rows = workspace.tables.read(SOURCE_LISTINGS, [{"source": name}], where=pl.col("is_complete"))
    return rows["listed_at"][0] if rows.height else None


def _frame(name: str, objects: list[SourceObject]) -> pl.DataFrame:
    rows = [{SHARD: name, **dataclasses.asdict(entry)} for entry in objects]
    return pl.DataFrame(rows, schema=SEEN_SCHEMA)


def _objects(seen: pl.DataFrame | None) -> list[SourceObject]:
    if seen is None:
        return []
    return [SourceObject(**row) for row in seen.drop(SHARD).iter_rows(named=True)]
