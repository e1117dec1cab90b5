"""Dropping an index version: whether that is allowed, and its removal down to the last row.

The drop is recorded before anything is removed and marked done last, so a removal that was killed
anywhere is finished by the next one, or by the build that begins the version anew. The collection
goes first: the vector store itself refuses to drop what an alias points at, and until it has agreed
nothing is lost.

Chunks and embeddings go with the last version that needs them. Their vectors stay in the vector
ledger (`ledger.keep_days`), so building the version anew embeds nothing within that time.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    ALIAS_SWITCHES,
    BUILD_WINDOWS,
    CHUNKS,
    EMBEDDINGS,
    INDEX_INTENTS,
    INDEX_VERSIONS,
    INDEXED_CHUNKS,
    RECORDED_SETTINGS,
)
from ragassets.core.indexing import VectorStore
from ragassets.core.stages import RunContext, Stage
from ragassets.core.tables import Tables, TableSpec
from ragassets.errors import ConfigurationError, IndexVersionError, UnknownNameError
from ragassets.stages.alias_history import find_alias_uses
from ragassets.stages.dead_letters import update_dead_letters
from ragassets.stages.document_catalog import update_document_catalog
from ragassets.stages.dropped_versions import (
    Drop,
    advance_drop,
    dropped_names,
    read_drops,
    take_drop_back,
    write_drop,
)
from ragassets.stages.recorded_settings import recorded_composition

SHARDS_AT_ONCE = 64
"""Bounds the memory of the catalog's update."""

FILES_KEPT_HOURS = 24
"""Files of earlier table versions stay for runs that are reading them: none takes longer."""


class Composition(NamedTuple):
    """What an index version is made of."""

    chunking: str | None
    """None where neither the configuration nor a record knows it any more."""
    embedding_set: str | None


@dataclass(frozen=True)
class Removal:
    """What was removed with a version."""

    drop: Drop
    n_points: int
    n_indexed_chunks: int
    embedding_set: str | None
    """The one that no other version needs; None where its embeddings stay."""
    n_embeddings: int
    chunking: str | None
    n_chunks: int


def known_versions(workspace: Workspace) -> set[str]:
    """Every version that the configuration names or that anything is left of."""
    with workspace.vector_store() as store:
        known = {*store.list_collections(), *workspace.config.index_versions}
    for spec in (INDEXED_CHUNKS.outputs, INDEX_INTENTS, INDEX_VERSIONS, BUILD_WINDOWS):
        known.update(workspace.tables.read(spec, columns=["index_version"])["index_version"])
    return known | set(recorded_composition(workspace.tables)) | set(read_drops(workspace.tables))


def expired_versions(workspace: Workspace, now: datetime) -> dict[str, str | None]:
    """Versions that the configuration no longer names, with what keeps them; None where nothing.

    Those that are dropped already are left out.
    """
    done = {name for name, drop in read_drops(workspace.tables).items() if drop.state == "dropped"}
    names = known_versions(workspace) - set(workspace.config.index_versions) - done
    return {name: _obstacle_text(workspace, name, now) for name in sorted(names)}


def check_droppable(
    workspace: Workspace, index_version: str, now: datetime, *, is_now: bool, reason: str
) -> None:
    """Refuse to drop what is used, or was used until just now; nothing is written.

    Args:
        workspace: Where to look.
        index_version: Which version; it need not be configured any more.
        now: The time.
        is_now: Drop it although it is still the way back.
        reason: Why; has to be said with `is_now`.

    Raises:
        ConfigurationError: `is_now` without a reason.
        IndexVersionError: An alias uses it, or served it within the retention time.
        UnknownNameError: Nothing is known of such a version.
    """
    drop = read_drops(workspace.tables).get(index_version)
    if drop is not None and drop.stands:
        return  # it was allowed, and may be half done
    if is_now and not reason.strip():
        raise ConfigurationError(
            key="--reason",
            value=reason,
            problem=f"must say why {index_version!r} is dropped within its retention time",
            fix="The history keeps it: --now --reason 'why'",
        )
    known = known_versions(workspace)
    if index_version not in known:
        raise UnknownNameError(kind="index version", name=index_version, known=sorted(known))
    obstacle = _obstacle(workspace, index_version, now, is_now=is_now)
    if obstacle is not None:
        raise obstacle


def remove_version(
    workspace: Workspace,
    index_version: str,
    context: RunContext,
    *,
    actor: str,
    reason: str,
    is_now: bool = False,
) -> Removal:
    """Record the drop and remove everything of a version; `finish_drop` marks it done.

    Killed anywhere, the next call removes the rest.

    Raises:
        ConfigurationError: See `check_droppable`.
        ConcurrentWriteError: Somebody wrote to the same rows meanwhile; the next call goes on.
        IndexVersionError: See `check_droppable`.
        UnknownNameError: See `check_droppable`.
        VectorStoreLockedError: Somebody writes the version's points.
    """
    with workspace.index_writer(index_version) as store:
        # Counting takes the lock of an embedded store: nobody writes from here on.
        is_there = index_version in store.list_collections()
        n_points = store.count(index_version) if is_there else 0
        drop = read_drops(workspace.tables).get(index_version)
        if drop is None or not drop.stands:
            now = context.now()
            check_droppable(workspace, index_version, now, is_now=is_now, reason=reason)
            made_of = composition(workspace, index_version)
            drop = Drop(index_version, "dropping", now, actor, reason, *made_of, context.run_id)
            write_drop(workspace.tables, drop)
        removal = _remove_points(workspace, store, drop, n_points)
    removal = _remove_what_nobody_needs(workspace, removal)
    _refresh_what_follows(workspace, context)
    return removal


def finish_drop(workspace: Workspace, index_version: str) -> None:
    """Mark a drop as done, after all that belongs to it."""
    drop = read_drops(workspace.tables)[index_version]
    advance_drop(workspace.tables, drop, "dropped")
    for stage in (CHUNKS, EMBEDDINGS, INDEXED_CHUNKS):
        workspace.tables.maintain(stage.outputs, retention_hours=FILES_KEPT_HOURS, compacts=False)


def begin_anew(workspace: Workspace, index_version: str, context: RunContext) -> None:
    """Let a dropped version be built again; a drop that was killed is finished before."""
    drop = read_drops(workspace.tables).get(index_version)
    if drop is None or not drop.stands:
        return
    if drop.state == "dropping":
        remove_version(
            workspace, index_version, context, actor=drop.actor, reason=drop.reason, is_now=False
        )
    advance_drop(workspace.tables, drop, "begun_anew")


# Whether it is allowed


def _obstacle_text(workspace: Workspace, index_version: str, now: datetime) -> str | None:
    found = _obstacle(workspace, index_version, now, is_now=False)
    return None if found is None else str(found)


def _obstacle(
    workspace: Workspace, index_version: str, now: datetime, *, is_now: bool
) -> IndexVersionError | None:
    """What keeps a version from being dropped; None where nothing does."""
    for problem, fix in _uses(workspace, index_version):
        return IndexVersionError(index_version=index_version, problem=problem, fix=fix)
    until = served_until(workspace, index_version, now)
    keep = timedelta(days=workspace.config.retention.rollback_days)
    if is_now or until is None or now - until >= keep:
        return None
    return IndexVersionError(
        index_version=index_version,
        problem=f"served searches until {until:%Y-%m-%d %H:%M} UTC and is the way back until"
        f" {until + keep:%Y-%m-%d %H:%M} UTC (retention.rollback_days:"
        f" {workspace.config.retention.rollback_days})",
        fix="Wait until then, or drop it with --now --reason 'why'",
    )


def _uses(workspace: Workspace, index_version: str) -> Iterator[tuple[str, str]]:
    """Every use of a version that its drop would break, and the way out."""
    with workspace.vector_store() as store:
        targets = store.aliases()
    for use in find_alias_uses(workspace, index_version):
        option = f"--alias {use.alias}"
        match use.role:
            case "live":
                way_out = f"Promote another version first: `ragassets index promote OTHER {option}`"
                yield f"is what alias {use.alias!r} serves", way_out
            case "canary":
                way_out = f"End it first: `ragassets index canary --off {option}`"
                yield f"is the canary of alias {use.alias!r}", way_out
            case "previous":  # how long that counts is configured
                pass
    for alias, settings in workspace.config.aliases.items():
        if settings.live == index_version:
            served = targets.get(alias)
            other = f"{served!r}, which it serves" if served else "another version"
            yield (
                f"is where alias {alias!r} starts, by the configuration",
                f"Write {other}, as aliases.{alias}.live first",
            )


def served_until(workspace: Workspace, index_version: str, now: datetime) -> datetime | None:
    """When an alias last served a version, live or as a canary; None where none ever did."""
    events = workspace.tables.read(
        ALIAS_SWITCHES, columns=["alias", "from_version", "to_version", "switched_at"]
    ).sort("alias", "switched_at")
    moments: list[datetime] = []
    for (_,), of_alias in events.group_by("alias", maintain_order=True):
        last_target: str | None = None
        for _, before, after, moment in of_alias.iter_rows():
            if index_version in (before, after, last_target):
                moments.append(moment)
            last_target = after
        if last_target == index_version:
            # It is not served any more, and the run that moved the alias died before saying when.
            moments.append(now)
    return max(moments, default=None)


# What goes


def composition(workspace: Workspace, index_version: str) -> Composition:
    """What a version is made of, configured or not."""
    configured = workspace.config.index_versions.get(index_version)
    if configured is not None:
        return Composition(configured.chunking, configured.embedding_set)
    recorded = recorded_composition(workspace.tables).get(index_version)
    return Composition(*recorded) if recorded else Composition(None, None)


def _remove_points(workspace: Workspace, store: VectorStore, drop: Drop, n_points: int) -> Removal:
    """The collection, then what the tables tell of the version alone."""
    name, tables = drop.index_version, workspace.tables
    try:
        store.drop_collection(name)
    except IndexVersionError:
        # An alias was moved to it since we looked; all of it is still there.
        take_drop_back(tables, name)
        raise
    of_version = {"index_version": name}
    n_indexed = _empty(tables, INDEXED_CHUNKS.outputs, of_version)
    for spec in (INDEXED_CHUNKS.failures, INDEX_INTENTS, INDEX_VERSIONS, BUILD_WINDOWS):
        _empty(tables, spec, of_version)
    _empty(tables, RECORDED_SETTINGS, {"section": "index_versions", "name": name})
    return Removal(drop, n_points, n_indexed, None, 0, None, 0)


def _remove_what_nobody_needs(workspace: Workspace, removal: Removal) -> Removal:
    """The embeddings and chunks of the version that no other version is made from."""
    drop = removal.drop
    chunkings, embedding_sets = needed_compositions(workspace)
    if drop.embedding_set is not None and drop.embedding_set not in embedding_sets:
        n_rows = _empty_stage(workspace, EMBEDDINGS, embedding_set=drop.embedding_set)
        removal = replace(removal, embedding_set=drop.embedding_set, n_embeddings=n_rows)
    if drop.chunking is not None and drop.chunking not in chunkings:
        n_rows = _empty_stage(workspace, CHUNKS, chunking=drop.chunking)
        removal = replace(removal, chunking=drop.chunking, n_chunks=n_rows)
    return removal


def needed_compositions(
    workspace: Workspace, *, without: Collection[str] = ()
) -> tuple[set[str], set[str]]:
    """The chunkings and embedding sets of all versions that are not dropped.

    Those that left the configuration without being dropped count too: their rows wait for
    `ragassets index drop --expired`.

    Args:
        workspace: Where to look.
        without: Versions to leave out, as if they were dropped.
    """
    dropped = dropped_names(workspace.tables).union(without)
    configured = workspace.config.index_versions
    made_of = {
        **recorded_composition(workspace.tables),
        **{name: (entry.chunking, entry.embedding_set) for name, entry in configured.items()},
    }
    needed = [parts for name, parts in made_of.items() if name not in dropped]
    return {chunking for chunking, _ in needed}, {name for _, name in needed}


def _empty_stage(workspace: Workspace, stage: Stage, **dimension: str) -> int:
    """Drop a stage's outputs and failures under one key, and what killed runs had finished."""
    (key,) = dimension.values()
    workspace.checkpoints.clear(f"{stage.name}/{key}", workspace.config.source_shards())
    _empty(workspace.tables, stage.failures, dimension)
    return _empty(workspace.tables, stage.outputs, dimension)


def _empty(tables: Tables, spec: TableSpec, where: Mapping[str, str]) -> int:
    """Empty the partitions that match; how many rows they had."""
    snapshot = tables.snapshot(spec)
    rows = tables.read_at(snapshot, [where], columns=list(spec.partition_by))
    if rows.height:
        tables.replace(snapshot, rows.unique().to_dicts(), spec.empty_frame())
    return rows.height


def _refresh_what_follows(workspace: Workspace, context: RunContext) -> None:
    """Dead letters and the catalog say what the tables say."""
    shards = workspace.config.source_shards()
    for start in range(0, len(shards), SHARDS_AT_ONCE):
        some = shards[start : start + SHARDS_AT_ONCE]
        update_dead_letters(workspace, some)
        update_document_catalog(workspace, some, context)
