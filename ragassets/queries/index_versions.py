"""Every index version, configured or left over: what it is made of, how far it is, who uses it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import INDEX_VERSIONS, INDEXED_CHUNKS
from ragassets.core.tables import Tables
from ragassets.errors import ConfigurationError, ServiceError
from ragassets.queries.json_values import json_value
from ragassets.stages.alias_history import running_canaries
from ragassets.stages.dropped_versions import Drop, read_drops
from ragassets.stages.golden_queries import golden_queries
from ragassets.stages.judgement import last_seal
from ragassets.stages.staleness import VersionRows, read_version_rows

State = Literal[
    "absent", "building", "incomplete", "failed_gates", "sealed", "dropped", "unconfigured"
]

STATUS_TIMEOUT_SECONDS = 3.0
"""A status that says "busy" after this is worth more than one that waits for a long upload."""


@dataclass(frozen=True)
class VersionStatus:
    """One index version."""

    index_version: str
    state: State
    """`building`: points are there that no seal covers; `dropped`: nothing starts it by itself;
    `unconfigured`: left over from an earlier configuration."""
    live: bool
    """Whether an alias serves it."""
    aliases: tuple[str, ...]
    canary_of: Mapping[str, float]
    """Aliases that it answers a share of the searches of, and the share."""
    documents: int
    chunks: int
    """Under the version's chunking, whether indexed or not."""
    embeddings: int
    indexed_chunks: int
    points: int | None
    """In the collection, counted exactly; None while another process holds the store."""
    stale: int
    """Chunks that a build would embed, write, or remove."""
    failed: int
    problems: tuple[str, ...]
    """Why it is not complete, as the last seal saw it."""
    quality: Mapping[str, float] | None
    """Of the golden queries; None where none were run."""
    latency_ms: Mapping[str, float] | None
    """`p50` and `p95` of a search in the vector store, over the golden queries."""
    recall_vs_exact: float | None
    """Share of the true ten nearest neighbours that a search finds; None without points."""
    compared_with: str | None
    comparison: Mapping[str, object] | None
    """nDCG@10 against the version that was live: difference, interval, wins, losing queries."""
    gates: tuple[Mapping[str, object], ...]
    """Every gate with limit, value, verdict and note."""
    failed_gates: tuple[str, ...]
    shard_problems: tuple[Mapping[str, object], ...]
    """Which source shard lacks what, and how often."""
    sealed_at: datetime | None
    chunking: str | None
    embedding_model: str | None
    backfill: str | None
    note: str = ""
    """Why something could not be told."""
    quality_note: str = ""
    """Why the quality says nothing of the version, where it does not."""
    dropped: Mapping[str, object] | None = None
    """When it was dropped, by whom, why, and whether all of it is gone; None where it was not."""

    def as_json(self) -> dict[str, object]:
        """The public shape; the name is the key that holds it."""
        values = cast("dict[str, object]", json_value(self))
        del values["index_version"]
        return values


@dataclass(frozen=True)
class StoreView:
    """What the vector store says, as far as it can be asked."""

    collections: tuple[str, ...]
    aliases: Mapping[str, str]
    points: Mapping[str, int]
    canaries: Mapping[str, Mapping[str, float]]
    """By index version: alias and share."""
    note: str = ""


def view_store(workspace: Workspace) -> StoreView:
    """Ask the vector store without waiting long for another process that owns it."""
    points: dict[str, int] = {}
    note = ""
    with workspace.vector_store(timeout_seconds=STATUS_TIMEOUT_SECONDS) as store:
        aliases, collections = store.aliases(), store.list_collections()
        try:
            for name in collections:
                points[name] = store.count(name)
        except ServiceError as error:
            note = str(error)
    canaries: dict[str, dict[str, float]] = {}
    for canary in running_canaries(workspace.tables, aliases):
        canaries.setdefault(canary.index_version, {})[canary.alias] = canary.share
    return StoreView(tuple(collections), aliases, points, canaries, note)


def list_index_versions(workspace: Workspace) -> list[VersionStatus]:
    """All versions: the configured ones in their order, then what is left over."""
    view = view_store(workspace)
    seals = {
        row["index_version"]: row
        for row in workspace.tables.read(INDEX_VERSIONS).iter_rows(named=True)
    }
    configured = workspace.config.index_versions
    drops = {name: drop for name, drop in read_drops(workspace.tables).items() if drop.stands}
    left_over = sorted((set(view.collections) | set(seals) | set(drops)) - set(configured))
    return [
        *(
            _left_over(workspace, name, view, seals.get(name), drops.get(name))
            if name in drops
            else _configured(workspace, name, view, seals.get(name))
            for name in configured
        ),
        *(
            _left_over(workspace, name, view, seals.get(name), drops.get(name))
            for name in left_over
        ),
    ]


def _configured(
    workspace: Workspace, name: str, view: StoreView, seal: Mapping[str, object] | None
) -> VersionStatus:
    version = workspace.config.index_version(name)
    rows = read_version_rows(workspace, name, workspace.tables)
    is_built = name in view.collections
    sealed = _last_seal(seal)
    return VersionStatus(
        index_version=name,
        state=_state(rows, seal, is_built=is_built),
        live=name in view.aliases.values(),
        aliases=_aliases_of(view, name),
        canary_of=view.canaries.get(name, {}),
        documents=rows.n_documents,
        chunks=rows.n_chunks,
        embeddings=rows.n_embeddings,
        indexed_chunks=rows.n_indexed,
        points=view.points.get(name) if is_built else 0,
        stale=rows.n_stale,
        chunking=version.chunking,
        embedding_model=version.embedding_model,
        backfill=version.backfill,
        note=view.note,
        failed=sealed.n_failed,
        problems=sealed.problems,
        quality=sealed.quality,
        latency_ms=sealed.latency_ms,
        recall_vs_exact=sealed.recall_vs_exact,
        compared_with=sealed.compared_with,
        comparison=sealed.comparison,
        gates=sealed.gates,
        failed_gates=sealed.failed_gates,
        shard_problems=sealed.shard_problems,
        quality_note=_explain_zero(workspace, name, sealed.quality),
        sealed_at=sealed.sealed_at,
    )


def _explain_zero(
    workspace: Workspace, index_version: str, quality: Mapping[str, float] | None
) -> str:
    """Why no golden query found anything, where the index holds none of their documents.

    The usual reason is a corpus that moved: golden queries name documents by their URI.
    """
    if quality is None or quality.get("recall_at_10"):
        return ""
    try:
        golden = golden_queries(workspace, index_version) or []
    except ConfigurationError:  # the next build says so; where things stand can be told without
        return ""
    judged = sorted({uri for query in golden for uri, grade in query.relevant.items() if grade > 0})
    indexed = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{"index_version": index_version}],
        columns=["uri"],
        where=pl.col("uri").is_in(judged),
    )
    if not judged or indexed.height:
        return ""
    return (
        f"not one document that the golden queries judge is indexed, such as {judged[0]}; their"
        " URIs must be those of `ragassets search`"
    )


def _left_over(
    workspace: Workspace,
    name: str,
    view: StoreView,
    seal: Mapping[str, object] | None,
    drop: Drop | None,
) -> VersionStatus:
    """A version that nothing works on: it was dropped, or left the configuration."""
    sealed = _last_seal(seal)
    configured = workspace.config.index_versions.get(name)
    return VersionStatus(
        index_version=name,
        state="unconfigured" if drop is None else "dropped",
        live=name in view.aliases.values(),
        aliases=_aliases_of(view, name),
        canary_of=view.canaries.get(name, {}),
        documents=0,
        chunks=0,
        embeddings=0,
        indexed_chunks=0,
        points=view.points.get(name) if name in view.collections else 0,
        stale=0,
        chunking=configured and configured.chunking,
        embedding_model=configured and configured.embedding_model,
        backfill=configured and configured.backfill,
        dropped=drop and _dropped(drop),
        note=view.note,
        failed=sealed.n_failed,
        problems=sealed.problems,
        quality=sealed.quality,
        latency_ms=sealed.latency_ms,
        recall_vs_exact=sealed.recall_vs_exact,
        compared_with=sealed.compared_with,
        comparison=sealed.comparison,
        gates=sealed.gates,
        failed_gates=sealed.failed_gates,
        shard_problems=sealed.shard_problems,
        sealed_at=sealed.sealed_at,
    )


def _dropped(drop: Drop) -> dict[str, object]:
    return {
        "at": drop.dropped_at,
        "by": drop.actor,
        "reason": drop.reason,
        "is_finished": drop.state == "dropped",
    }


def version_state(workspace: Workspace, name: str, tables: Tables) -> State:
    """How far a configured version is that has a collection."""
    rows = read_version_rows(workspace, name, tables)
    return _state(rows, last_seal(workspace, name, tables), is_built=True)


def _state(rows: VersionRows, seal: Mapping[str, object] | None, *, is_built: bool) -> State:
    if not is_built:
        return "absent"
    if seal is None:
        return "building"
    # A run that died between indexing and sealing leaves a seal of other points.
    if seal["content_version"] != rows.content_version:
        return "building"
    return cast("State", seal["state"])


def _aliases_of(view: StoreView, name: str) -> tuple[str, ...]:
    return tuple(sorted(alias for alias, target in view.aliases.items() if target == name))


@dataclass(frozen=True)
class _Seal:
    """What the last seal said."""

    n_failed: int = 0
    problems: tuple[str, ...] = ()
    quality: Mapping[str, float] | None = None
    latency_ms: Mapping[str, float] | None = None
    recall_vs_exact: float | None = None
    compared_with: str | None = None
    comparison: Mapping[str, object] | None = None
    gates: tuple[Mapping[str, object], ...] = ()
    failed_gates: tuple[str, ...] = ()
    shard_problems: tuple[Mapping[str, object], ...] = ()
    sealed_at: datetime | None = None


def _last_seal(seal: Mapping[str, object] | None) -> _Seal:
    if seal is None:
        return _Seal()

    def parsed(column: str) -> Any:
        text = seal[column]
        return json.loads(text) if isinstance(text, str) else None

    p50, p95 = seal["latency_ms_p50"], seal["latency_ms_p95"]
    return _Seal(
        n_failed=cast("int", seal["n_failed"]),
        problems=tuple(cast("list[str]", seal["problems"] or [])),
        quality=parsed("quality"),
        latency_ms={"p50": cast("float", p50), "p95": cast("float", p95)} if p50 else None,
        recall_vs_exact=cast("float | None", seal["recall_vs_exact"]),
        compared_with=cast("str | None", seal["compared_with"]),
        comparison=parsed("comparison"),
        gates=tuple(parsed("gates") or ()),
        failed_gates=tuple(cast("list[str]", seal["failed_gates"] or [])),
        shard_problems=tuple(cast("list[Mapping[str, object]]", seal["shard_problems"] or [])),
        sealed_at=cast("datetime", seal["sealed_at"]),
    )
