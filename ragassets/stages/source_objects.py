"""Discovery: what the sources hold now. The one stage that looks outside."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS
from ragassets.core.discovery import (
    KNOWN_COLUMNS,
    Discovery,
    EarlierLooks,
    Known,
    apply_listing,
)
from ragassets.core.fingerprints import data_version, document_id
from ragassets.core.sources import Listing, StreamSource
from ragassets.core.stages import SHARD
from ragassets.core.tables import Snapshot
from ragassets.errors import ConcurrentWriteError, ConfigurationError, SourceUnavailableError
from ragassets.stages.inputs import partitions_of
from ragassets.stages.retired_shards import forget_source
from ragassets.stages.tombstones import forgotten_documents

Noted = Literal["always", "problems", "never"]

NOTE_INTERVAL = timedelta(minutes=10)
"""Looks that changed nothing are noted so often: each note is a commit, and a look every 30 s would
make a million of them in a year."""

OVERLAP = timedelta(minutes=5)
"""Objects that were first seen, or changed, since this long before a pass began are not taken for
vanished by it: another process may have recorded them when the pass had gone by their place. Two
machines' clocks differ by less."""


@dataclasses.dataclass(frozen=True)
class SourceDiscovery:
    """How one source was discovered."""

    source: str
    n_objects: int
    n_new: int
    n_changed: int
    n_removed: int
    data_versions: dict[str, str]
    """Of the shards that changed; `discover` gives those of every shard of the source."""
    changed_shards: tuple[str, ...] = ()
    """Those whose rows this listing changed."""
    problem: str = ""
    """What needs attention: an unreachable source, an incomplete listing, refused deletions."""
    n_behind: int | None = None
    """Of a stream: messages that are there and not recorded yet."""
    n_without_identity: int = 0
    """Of a stream: messages that became documents by their position."""


def discover(
    workspace: Workspace, sources: Sequence[str], *, now: datetime, confirmed: Sequence[str] = ()
) -> list[SourceDiscovery]:
    """List the sources and write what changed; a source that fails does not stop the others.

    Args:
        workspace: Where to read and write.
        sources: Names of the sources to list.
        now: Time of the listing, UTC.
        confirmed: Sources whose deletions are meant, however many. All documents go of one that is
            not configured any more.

    Raises:
        ConfigurationError: A source that was never read cannot be found: its uri is wrong.
    """
    for name in confirmed:
        if name and name not in workspace.config.sources:
            forget_source(workspace, name, now)
    return [_discover(workspace, name, now, is_confirmed=name in confirmed) for name in sources]


def _discover(
    workspace: Workspace, name: str, now: datetime, *, is_confirmed: bool
) -> SourceDiscovery:
    # That module needs this one.
    from ragassets.stages.source_stream import read_stream

    source = workspace.source(name)
    if isinstance(source, StreamSource):
        found = read_stream(workspace, name, source, now=now, is_confirmed=is_confirmed)
        rows = read_known_objects(workspace, name).rows
    else:
        known = read_known_objects(workspace, name)
        listing = _list(workspace, name, is_known=known.rows.height > 0)
        try:
            found = record_listing(workspace, known, listing, now=now, is_confirmed=is_confirmed)
        except ConcurrentWriteError:
            if not workspace.config.source(name).lands_bodies:
                raise
            known = read_known_objects(workspace, name)
            found = _record_late(workspace, known, listing, now, is_confirmed=is_confirmed)
        rows = known.rows.filter(~pl.col(SHARD).is_in(found.changed_shards))
    empty = dict.fromkeys(workspace.config.source_shards(name), data_version([]))
    versions = empty | _versions(rows) | found.data_versions
    return dataclasses.replace(found, data_versions={shard: versions[shard] for shard in empty})


@dataclasses.dataclass(frozen=True)
class KnownObjects:
    """What is recorded of a source, and as of which commit."""

    source: str
    snapshot: Snapshot
    rows: pl.DataFrame
    """In `KNOWN_COLUMNS`, tombstones included."""
    n_alive: int


def read_known_objects(
    workspace: Workspace,
    source: str,
    snapshot: Snapshot | None = None,
    *,
    about: Listing | None = None,
) -> KnownObjects:
    """What a listing is compared with.

    Args:
        workspace: Where to read.
        source: The source.
        snapshot: Of `SOURCE_OBJECTS`, taken before the listing, as must be this call without one:
            what somebody else writes meanwhile makes the commit fail.
        about: Read only what this listing, which is not complete, is about.
    """
    tables = workspace.tables
    snapshot = snapshot or tables.snapshot(SOURCE_OBJECTS)
    is_of_source = pl.col("source") == source
    if about is None:
        rows = tables.read_at(snapshot, columns=KNOWN_COLUMNS, where=is_of_source)
        return KnownObjects(source, snapshot, rows, rows.height - int(rows["is_deleted"].sum()))
    uris = [*(entry.uri for entry in about.objects), *about.deleted]
    is_meant = pl.col("document_id").is_in([document_id(source, uri) for uri in uris])
    rows = tables.read_at(snapshot, columns=KNOWN_COLUMNS, where=is_of_source & is_meant)
    is_alive = is_of_source & ~pl.col("is_deleted")
    alive = tables.read_at(snapshot, columns=["is_deleted"], where=is_alive)
    return KnownObjects(source, snapshot, rows, alive.height)


def record_listing(
    workspace: Workspace,
    known: KnownObjects,
    listing: Listing,
    *,
    now: datetime,
    is_confirmed: bool = False,
    earlier: EarlierLooks | None = None,
    noted: Noted = "always",
) -> SourceDiscovery:
    """Write what a listing changes.

    Args:
        workspace: Where to write.
        known: What was recorded before the listing began.
        listing: What the source said.
        now: Time of the listing, UTC.
        is_confirmed: Its deletions are meant, however many.
        earlier: What earlier looks of the same pass saw.
        noted: When it is worth the row of its source in `SOURCE_LISTINGS`.

    Raises:
        ConcurrentWriteError: Somebody else wrote the source's rows since the snapshot.
    """
    name = known.source
    source = workspace.config.source(name)
    found = apply_listing(
        Known(known.rows, known.n_alive, forgotten_documents(workspace, name)),
        listing,
        source=name,
        n_shards=source.shards,
        now=now,
        max_delete_share=source.max_delete_share,
        is_confirmed=is_confirmed,
        earlier=earlier,
    )
    versions = _write(workspace, known, found)
    problem = str(found.refusal) if found.refusal else listing.message
    if noted == "always" or (problem and noted == "problems"):
        note_listing(
            workspace,
            name,
            now=now,
            is_complete=listing.is_complete,
            n_objects=found.n_objects,
            n_refused_deletions=found.refusal.n_removed if found.refusal else 0,
            message=problem,
        )
    return SourceDiscovery(
        source=name,
        n_objects=found.n_objects,
        n_new=found.n_new,
        n_changed=found.n_changed,
        n_removed=found.n_removed,
        data_versions={
            shard: versions.get(shard, data_version([]))
            for shard in workspace.config.source_shards(name)
            if shard in found.changed_shards
        },
        changed_shards=found.changed_shards,
        problem=problem,
    )


def _record_late(
    workspace: Workspace,
    known: KnownObjects,
    listing: Listing,
    began_at: datetime,
    *,
    is_confirmed: bool,
) -> SourceDiscovery:
    """Record a listing that somebody else's came in between of: a crawl may take an hour.

    What was recorded since it began is newer than what it says of the same documents.
    """
    since = began_at - OVERLAP
    newer = known.rows.filter(pl.col("changed_at") >= since)["document_id"]
    names = set(newer)

    def is_older(uri: str) -> bool:
        return document_id(known.source, uri) not in names

    older = dataclasses.replace(
        listing,
        objects=[entry for entry in listing.objects if is_older(entry.uri)],
        deleted=[uri for uri in listing.deleted if is_older(uri)],
    )
    earlier = EarlierLooks(since, newer)
    return record_listing(
        workspace, known, older, now=began_at, is_confirmed=is_confirmed, earlier=earlier
    )


def _write(workspace: Workspace, known: KnownObjects, found: Discovery) -> dict[str, str]:
    """Replace the shards that change; their data versions, of those that have rows."""
    if not found.changed_shards:
        return {}
    partitions = partitions_of(found.changed_shards)
    before = workspace.tables.read_at(known.snapshot, partitions)
    after = found.rows_after(before)
    workspace.tables.replace(known.snapshot, partitions, after)
    return _versions(after)


def _list(workspace: Workspace, name: str, *, is_known: bool) -> Listing:
    """The source's listing; an unreachable source that we know gives an empty, incomplete one."""
    try:
        return workspace.source(name).list_objects()
    except SourceUnavailableError as error:
        # A folder that was never there is misspelt; a service may be down when it is first asked.
        if not is_known and workspace.config.source(name).scheme == "file":
            raise ConfigurationError(
                key=f"sources.{name}.uri",
                value=workspace.config.source(name).uri,
                problem="cannot be listed",
                fix="Name a folder that exists; `ragassets init` makes an example",
            ) from error
        return Listing((), is_complete=False, message=str(error))


def _versions(rows: pl.DataFrame) -> dict[str, str]:
    """Data version of every shard that has rows: changes only with the shard's listing."""
    states = rows.select(SHARD, "document_id", "etag", "is_deleted")
    return {
        str(shard): data_version(
            (name, f"{etag} {is_deleted}") for _, name, etag, is_deleted in part.iter_rows()
        )
        for (shard,), part in states.partition_by(SHARD, as_dict=True).items()
    }


def note_listing(
    workspace: Workspace,
    name: str,
    *,
    now: datetime,
    is_complete: bool,
    n_objects: int,
    n_refused_deletions: int = 0,
    message: str = "",
) -> None:
    """Note how the last listing of a source went, in the columns of `SOURCE_LISTINGS`."""
    row = {
        "source": name,
        "listed_at": now,
        "is_complete": is_complete,
        "n_objects": n_objects,
        "n_refused_deletions": n_refused_deletions,
        "message": message,
    }
    frame = pl.DataFrame([row], schema=SOURCE_LISTINGS.schema)
    snapshot = workspace.tables.snapshot(SOURCE_LISTINGS)
    workspace.tables.replace(snapshot, [{"source": name}], frame)


def is_note_due(workspace: Workspace, name: str, now: datetime) -> bool:
    """Whether a look that changed nothing is worth a note."""
    last = last_complete_listing(workspace, name)
    return last is None or now - last >= NOTE_INTERVAL


def last_complete_listing(workspace: Workspace, name: str) -> datetime | None:
    """When the whole source was seen last; None where it never was."""
    rows = workspace.tables.read(SOURCE_LISTINGS, [{"source": name}], where=pl.col("is_complete"))
    return rows["listed_at"][0] if rows.height else None
