"""Discovery: what the sources hold now. The one stage that looks outside."""

import dataclasses
from collections.abc import Collection, Sequence
from datetime import datetime

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS
from ragassets.core.discovery import Discovery, apply_listing
from ragassets.core.fingerprints import data_version, document_id
from ragassets.core.sources import Listing
from ragassets.core.stages import SHARD
from ragassets.core.tables import Snapshot
from ragassets.errors import ConfigurationError, SourceUnavailableError
from ragassets.stages.inputs import partitions_of
from ragassets.stages.retired_shards import forget_source
from ragassets.stages.tombstones import forgotten_documents


@dataclasses.dataclass(frozen=True)
class SourceDiscovery:
    """How one source was discovered."""

    source: str
    n_objects: int
    n_new: int
    n_changed: int
    n_removed: int
    data_versions: dict[str, str]
    """Of every shard of the source."""
    changed_shards: tuple[str, ...] = ()
    """Those whose rows this listing changed."""
    problem: str = ""
    """What needs attention: an unreachable source, an incomplete listing, refused deletions."""


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
    known = read_known_objects(workspace, name)
    listing = _list(workspace, name, is_known=known.rows.height > 0)
    return record_listing(workspace, known, listing, now=now, is_confirmed=is_confirmed)


@dataclasses.dataclass(frozen=True)
class KnownObjects:
    """What is recorded of a source, and as of which commit."""

    source: str
    snapshot: Snapshot
    rows: pl.DataFrame
    """In the columns of `SOURCE_OBJECTS`, tombstones included."""


def read_known_objects(workspace: Workspace, source: str) -> KnownObjects:
    """To be read before the listing: what somebody else writes meanwhile makes the commit fail."""
    snapshot = workspace.tables.snapshot(SOURCE_OBJECTS)
    rows = workspace.tables.read_at(snapshot, where=pl.col("source") == source)
    return KnownObjects(source, snapshot, rows)


def record_listing(
    workspace: Workspace,
    known: KnownObjects,
    listing: Listing,
    *,
    now: datetime,
    is_confirmed: bool = False,
    spared_since: datetime | None = None,
    is_noted: bool = True,
) -> SourceDiscovery:
    """Write what a listing changes.

    Args:
        workspace: Where to write.
        known: What was recorded before the listing began.
        listing: What the source said.
        now: Time of the listing, UTC.
        is_confirmed: Its deletions are meant, however many.
        spared_since: See `apply_listing`.
        is_noted: Whether it is worth a row of `SOURCE_LISTINGS`.

    Raises:
        ConcurrentWriteError: Somebody else wrote the source's rows since the snapshot.
    """
    name = known.source
    source = workspace.config.source(name)
    forgotten = forgotten_documents(workspace, name)
    found = apply_listing(
        known.rows.filter(~pl.col("document_id").is_in(sorted(forgotten))),
        _without(name, listing, forgotten),
        source=name,
        n_shards=source.shards,
        now=now,
        max_delete_share=source.max_delete_share,
        is_confirmed=is_confirmed,
        spared_since=spared_since,
    )
    before, after = _versions(known.rows), _versions(found.rows)
    shards = sorted(set(workspace.config.source_shards(name)) | before.keys())
    moved = [shard for shard in shards if before.get(shard) != after.get(shard)]
    if moved:
        rows = found.rows.filter(pl.col(SHARD).is_in(moved))
        workspace.tables.replace(known.snapshot, partitions_of(moved), rows)
    problem = str(found.refusal) if found.refusal else listing.message
    if is_noted or problem:
        _note_listing(workspace, name, now, found, listing, problem)
    return SourceDiscovery(
        source=name,
        n_objects=found.n_objects,
        n_new=found.n_new,
        n_changed=found.n_changed,
        n_removed=found.n_removed,
        data_versions={
            shard: after.get(shard, data_version([]))
            for shard in workspace.config.source_shards(name)
        },
        changed_shards=tuple(moved),
        problem=problem,
    )


def _without(source: str, listing: Listing, forgotten: Collection[str]) -> Listing:
    """The listing without what was forgotten: a source may have it for ever."""
    kept = [entry for entry in listing.objects if document_id(source, entry.uri) not in forgotten]
    return dataclasses.replace(listing, objects=kept)


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
    return {
        str(shard): data_version(
            (row["document_id"], f"{row['etag']} {row['is_deleted']}")
            for row in part.iter_rows(named=True)
        )
        for (shard,), part in rows.partition_by(SHARD, as_dict=True).items()
    }


def _note_listing(
    workspace: Workspace,
    name: str,
    now: datetime,
    found: Discovery,
    listing: Listing,
    problem: str,
) -> None:
    row = {
        "source": name,
        "listed_at": now,
        "is_complete": listing.is_complete,
        "n_objects": found.n_objects,
        "n_refused_deletions": found.refusal.n_removed if found.refusal else 0,
        "message": problem,
    }
    frame = pl.DataFrame([row], schema=SOURCE_LISTINGS.schema)
    snapshot = workspace.tables.snapshot(SOURCE_LISTINGS)
    workspace.tables.replace(snapshot, [{"source": name}], frame)
