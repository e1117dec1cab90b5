"""Reading a source that is a stream: messages become objects, recorded in the order they came.

A batch is landed, then its rows are committed, then how far the stream was read, then the stream's
service is told. Killed anywhere, the next reading begins at or before the first message that is not
recorded. Reading a message again ends where reading it once did: documents are named by the
message, bytes by their hash, and the last message of a document is read last.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from ragassets.adapters.sources.registry import base_uri
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import SOURCE_OBJECTS, STREAM_POSITIONS
from ragassets.core.sources import Listing, StreamReader, StreamSource
from ragassets.core.tables import Snapshot
from ragassets.errors import SourceUnavailableError
from ragassets.stages.source_objects import (
    SourceDiscovery,
    is_note_due,
    note_listing,
    read_known_objects,
    record_listing,
)

MIN_WAIT_SECONDS = 5.0
"""For the first message, however little time is left: a broker answers within a second or two."""


def read_stream(
    workspace: Workspace,
    name: str,
    source: StreamSource,
    *,
    now: datetime,
    budget_seconds: float = math.inf,
    is_confirmed: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> SourceDiscovery:
    """Record what a stream says, a batch at a time, up to where it ended at the start.

    A stream that does not answer, or stops answering, is a problem of what is returned: what was
    read before is recorded, the rest comes with the next reading.

    Args:
        workspace: Where to read and write.
        name: The source.
        source: The same, opened.
        now: The time, UTC.
        budget_seconds: After this no further batch is begun.
        is_confirmed: Documents of the source's former address are to be removed.
        clock: Seconds that only grow.

    Raises:
        ConcurrentWriteError: Somebody else recorded a listing meanwhile; the messages come again.
    """
    found: list[SourceDiscovery] = []
    n_behind = None
    try:
        with workspace.landing(name) as confirm:
            found.append(_settle(workspace, name, now, is_confirmed=is_confirmed))
            confirm()
            positions = read_positions(workspace, name)
            reader = source.open_stream(positions)
        with closing(reader):
            deadline = clock() + budget_seconds
            while (left := deadline - clock()) > 0:
                one = _read_batch(workspace, name, reader, positions, now, left)
                if one is None:
                    break
                found.append(one)
            n_behind = reader.n_behind()
    except SourceUnavailableError as error:
        found.append(replace(_nothing(workspace, name), problem=str(error)))
    total = replace(_sum(found), n_behind=n_behind)
    if total.changed_shards or total.problem or is_note_due(workspace, name, now):
        note_listing(
            workspace,
            name,
            now=now,
            is_complete=n_behind == 0,
            n_objects=total.n_objects,
            message=total.problem,
        )
    return total


def _read_batch(
    workspace: Workspace,
    name: str,
    reader: StreamReader,
    positions: dict[str, int],
    now: datetime,
    seconds: float,
) -> SourceDiscovery | None:
    """Land some messages, record them, and move the positions; None at the end of the stream."""
    with workspace.landing(name) as confirm:
        snapshot = workspace.tables.snapshot(STREAM_POSITIONS)
        if _positions_at(workspace, name, snapshot) != positions:
            return None  # somebody else reads it, and goes on
        objects = workspace.tables.snapshot(SOURCE_OBJECTS)
        batch = reader.receive(wait_seconds=max(MIN_WAIT_SECONDS, seconds))
        if batch is None:
            return None
        confirm()
        known = read_known_objects(workspace, name, objects, about=batch.listing)
        found = record_listing(workspace, known, batch.listing, now=now, noted="never")
        positions |= batch.positions
        _write_positions(workspace, name, snapshot, positions, now)
    reader.tell(positions)
    return replace(
        found,
        n_without_identity=batch.n_without_identity,
        problem="; ".join(batch.problems),
    )


def _settle(
    workspace: Workspace, name: str, now: datetime, *, is_confirmed: bool
) -> SourceDiscovery:
    """Bring the rows in line with the configuration before anything is read.

    Documents go where the number of shards of now puts them. Those of the address that the source
    had before stay until a person says that they are to go: no message will ever delete them.
    """
    address = base_uri(workspace.config.source(name).uri)
    known = read_known_objects(workspace, name)
    is_moved = ~pl.col("is_deleted") & ~pl.col("uri").str.starts_with(f"{address}/")
    rows = workspace.tables.read_at(
        known.snapshot, columns=["uri"], where=(pl.col("source") == name) & is_moved
    )
    moved = rows["uri"].sort().to_list()
    listing = Listing((), is_complete=False, deleted=moved if is_confirmed else ())
    found = record_listing(workspace, known, listing, now=now, noted="never")
    if is_confirmed or not moved:
        return found
    problem = (
        f"{len(moved)} documents are of an address that the source had before, such as {moved[0]};"
        f" `ragassets ingest {name} --confirm-deletions` removes them"
    )
    return replace(found, problem=problem)


def _nothing(workspace: Workspace, name: str) -> SourceDiscovery:
    """What is recorded now, as a discovery that changes nothing."""
    listing = Listing((), is_complete=False)
    known = read_known_objects(workspace, name, about=listing)
    moment = datetime.fromtimestamp(0, UTC)
    return record_listing(workspace, known, listing, now=moment, noted="never")


def _sum(found: Sequence[SourceDiscovery]) -> SourceDiscovery:
    """One discovery from some that followed each other."""
    return replace(
        found[-1],
        n_new=sum(one.n_new for one in found),
        n_changed=sum(one.n_changed for one in found),
        n_removed=sum(one.n_removed for one in found),
        n_without_identity=sum(one.n_without_identity for one in found),
        data_versions={shard: v for one in found for shard, v in one.data_versions.items()},
        changed_shards=tuple(sorted({shard for one in found for shard in one.changed_shards})),
        problem="; ".join(dict.fromkeys(one.problem for one in found if one.problem)),
    )


def read_positions(workspace: Workspace, name: str) -> dict[str, int]:
    """How far a stream was read and recorded, by its parts; empty where it never was."""
    return _positions_at(workspace, name, workspace.tables.snapshot(STREAM_POSITIONS))


def count_behind(workspace: Workspace, name: str) -> int | None:
    """How many messages of a source are not recorded yet; None where it is no stream.

    Raises:
        SourceUnavailableError: It does not answer.
    """
    source = workspace.source(name)
    if not isinstance(source, StreamSource):
        return None
    return source.count_behind(read_positions(workspace, name))


def _positions_at(workspace: Workspace, name: str, snapshot: Snapshot) -> dict[str, int]:
    address = base_uri(workspace.config.source(name).uri)
    rows = workspace.tables.read_at(snapshot, [{"source": name}], where=pl.col("stream") == address)
    return dict(rows.select("part", "position").iter_rows())


def _write_positions(
    workspace: Workspace,
    name: str,
    snapshot: Snapshot,
    positions: Mapping[str, int],
    now: datetime,
) -> None:
    address = base_uri(workspace.config.source(name).uri)
    rows = [
        {"source": name, "stream": address, "part": part, "position": place, "updated_at": now}
        for part, place in sorted(positions.items())
    ]
    frame = pl.DataFrame(rows, schema=STREAM_POSITIONS.schema)
    workspace.tables.replace(snapshot, [{"source": name}], frame)
