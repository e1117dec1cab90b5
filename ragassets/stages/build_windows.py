"""Which documents an index version is built from so far: all, or the recent ones first.

A version is begun with its first build, and from then on an ingestion keeps it current, so that it
is not behind when it is promoted. `index build --since 7d` begins with the documents of the last
days: the window's start is recorded as a moment, so that the window only ever grows. Chunks and
embeddings that several versions share cover the widest window of those.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.config import IndexVersionConfig
from ragassets.core.asset_tables import BUILD_WINDOWS, SOURCE_OBJECTS
from ragassets.core.stages import SHARD
from ragassets.core.tables import Tables
from ragassets.stages.dropped_versions import dropped_names
from ragassets.stages.inputs import partitions_of


@dataclasses.dataclass(frozen=True)
class BuildWindow:
    """What a version is built from."""

    since: datetime | None
    """Documents modified since then; None for all."""


def begin_version(
    workspace: Workspace, index_version: str, now: datetime, *, since: datetime | None = None
) -> BuildWindow:
    """Record that a version is being built from the documents of a window; a window only grows.

    Args:
        workspace: Where to record.
        index_version: Which version.
        now: When it is begun.
        since: Where the window begins; None for all documents.

    Returns:
        The window as it is from now on.
    """
    snapshot = workspace.tables.snapshot(BUILD_WINDOWS)
    partition = {"index_version": index_version}
    known = workspace.tables.read_at(snapshot, [partition])
    before = _window(known)
    window = BuildWindow(since if before is None else _widest([before.since, since]))
    if window != before:
        row = {**partition, "since": window.since, "begun_at": now}
        frame = pl.DataFrame([row], schema=BUILD_WINDOWS.schema)
        workspace.tables.replace(snapshot, [partition], frame)
    return window


def keep_begun(workspace: Workspace, index_version: str, now: datetime) -> BuildWindow:
    """The version's window; all documents for a version that nobody began before."""
    known = _window(workspace.tables.read(BUILD_WINDOWS, [{"index_version": index_version}]))
    return known or begin_version(workspace, index_version, now)


def begun_versions(workspace: Workspace) -> dict[str, BuildWindow]:
    """The configured versions that were begun."""
    rows = workspace.tables.read(BUILD_WINDOWS, columns=["index_version", "since"])
    known = {name: BuildWindow(since) for name, since in rows.iter_rows()}
    return {name: known[name] for name in workspace.config.index_versions if name in known}


def current_versions(workspace: Workspace) -> dict[str, IndexVersionConfig]:
    """The versions that an ingestion keeps current.

    Those with `backfill: auto`, those that an alias serves, and those that were begun: a version
    that fell behind could not be promoted. None that was dropped.
    """
    with workspace.vector_store() as store:
        served = set(store.aliases().values())
    wanted = served | begun_versions(workspace).keys()
    dropped = dropped_names(workspace.tables)
    return {
        name: version
        for name, version in workspace.config.index_versions.items()
        if (version.backfill == "auto" or name in wanted) and name not in dropped
    }


def in_chunking_window(
    workspace: Workspace, chunking: str, inputs: pl.DataFrame, shards: Sequence[str], tables: Tables
) -> pl.DataFrame:
    """The rows of documents that any version needs under a chunking."""
    versions = workspace.config.index_versions.items()
    users = [name for name, version in versions if version.chunking == chunking]
    return _in_window(inputs, _shared_since(workspace, users), shards, tables)


def in_embedding_window(
    workspace: Workspace,
    embedding_set: str,
    inputs: pl.DataFrame,
    shards: Sequence[str],
    tables: Tables,
) -> pl.DataFrame:
    """The rows of documents that any version needs in an embedding set."""
    versions = workspace.config.index_versions.items()
    users = [name for name, version in versions if version.embedding_set == embedding_set]
    return _in_window(inputs, _shared_since(workspace, users), shards, tables)


def in_version_window(
    window: BuildWindow, inputs: pl.DataFrame, shards: Sequence[str], tables: Tables
) -> pl.DataFrame:
    """The rows of documents that a version is built from."""
    return _in_window(inputs, window.since, shards, tables)


def _shared_since(workspace: Workspace, users: Iterable[str]) -> datetime | None:
    """Where the widest window begins of the versions that are kept current."""
    windows, current = begun_versions(workspace), current_versions(workspace)
    starts = [windows[name].since if name in windows else None for name in users if name in current]
    return _widest(starts)


def _widest(starts: Iterable[datetime | None]) -> datetime | None:
    """The earliest start; None, which is all documents, where one is None or there are none."""
    found = list(starts)
    limited = [start for start in found if start is not None]
    return min(limited) if limited and len(limited) == len(found) else None


def _in_window(
    inputs: pl.DataFrame, since: datetime | None, shards: Sequence[str], tables: Tables
) -> pl.DataFrame:
    if since is None:
        return inputs
    recent = tables.read(
        SOURCE_OBJECTS,
        partitions_of(shards),
        columns=["document_id", SHARD],
        # Sources that know no time of modification: when a listing noticed the change.
        where=pl.coalesce("modified_at", "changed_at") >= since,
    )
    return inputs.join(recent, on=["document_id", SHARD], how="semi")


def _window(rows: pl.DataFrame) -> BuildWindow | None:
    return BuildWindow(rows["since"][0]) if rows.height else None
