"""Queries against an index version, by the alias that serves it or by its own name."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.access import TENANT, Access
from ragassets.core.canaries import Canary
from ragassets.core.collection_config import check_same_embedding
from ragassets.core.indexing import VERSIONS
from ragassets.core.searching import (
    PAYLOAD_KEYS,
    SearchHit,
    SearchMode,
    SearchRequest,
    parse_filters,
)
from ragassets.core.store_locations import (
    CAPABILITIES,
    STORE_NAMES,
    parse_location,
    ways_with_sparse,
)
from ragassets.errors import ConfigurationError, ServiceError, UnknownNameError
from ragassets.queries.json_values import json_value
from ragassets.queries.reranking import Reranking
from ragassets.queries.search_access import decide_access
from ragassets.stages.alias_history import find_canary, read_history

DEFAULT_ALIAS = "documents"
"""What is asked where several aliases are configured and none is named."""

BATCH_QUERIES = 256
"""Queries of one session with the vector store: a second or so, then others get their turn."""


RERANKED_QUERIES = 8
"""The same with a reranker, which takes seconds a query on a CPU."""


@dataclass(frozen=True)
class Target:
    """The index version that a search asks."""

    index_version: str
    alias: str | None
    """The alias that led to it; None where the version was named."""
    canary: Canary | None = None
    """A second version that answers some of the alias's searches."""
    note: str = ""
    """Why a canary that was begun is left out."""


@dataclass(frozen=True)
class Hit:
    """One found chunk. Scores compare within one result only."""

    score: float
    """Of the first ranking: similarity by the index's distance, BM25, or both fused by rank."""
    text: str
    uri: str
    source: str
    document_id: str
    chunk_id: str
    page: int | None
    metadata: Mapping[str, object]
    """The source's metadata, and its `acl`."""
    rerank_score: float | None = None
    """The reranker's, by which the hits are ordered; None where nothing was reranked."""
    tenant: str | None = None
    """Whose document it is; None where its source has no tenant."""
    versions: Mapping[str, object] = field(default_factory=dict[str, object])
    """What its point was written with: index version, chunking, embedding model, pipeline, and the
    version of the source's object; empty where an earlier release wrote it."""

    def as_json(self) -> dict[str, object]:
        """The public shape of a hit."""
        return cast("dict[str, object]", json_value(self))


def resolve_target(
    workspace: Workspace, *, alias: str | None = None, index_version: str | None = None
) -> Target:
    """The index version to ask.

    Raises:
        UnknownNameError: There is no such alias or version.
        ConfigurationError: Both are named, or what is named holds nothing yet.
    """
    if alias is not None and index_version is not None:
        raise ConfigurationError(
            key="--alias",
            value=alias,
            problem=f"cannot be combined with --index {index_version}",
            fix="Name one of them",
        )
    with workspace.vector_store() as store:
        targets, collections = store.aliases(), store.list_collections()
    if index_version is not None:
        workspace.config.index_version(index_version)
        if index_version not in collections:
            raise _nothing_there(
                key="--index", name=index_version, command=f"ragassets index build {index_version}"
            )
        return Target(index_version, None)
    name = alias or choose_alias(workspace, targets)
    if name not in targets:
        workspace.config.alias(name)
        raise _nothing_there(key="alias", name=name, command="ragassets ingest")
    if targets[name] not in workspace.config.index_versions:
        raise UnknownNameError(
            kind=f"index version of alias {name!r}",
            name=targets[name],
            known=sorted(workspace.config.index_versions),
        )
    return _with_canary(workspace, Target(targets[name], name))


def _with_canary(workspace: Workspace, target: Target) -> Target:
    """The target with the alias's canary, if it can be asked; the live version needs none."""
    alias = target.alias or ""
    try:
        canary = find_canary(read_history(workspace.tables, alias), target.index_version)
    except ServiceError as error:
        return replace(target, note=f"whether alias {alias!r} has a canary is not known: {error}")
    if canary is not None and canary.index_version not in workspace.config.index_versions:
        note = f"canary {canary.index_version!r} of alias {alias!r} is not in the configuration"
        return replace(target, note=note)
    return replace(target, canary=canary)


def choose_alias(workspace: Workspace, targets: Mapping[str, str]) -> str:
    """The alias that is meant where none is named: `documents`, or the only one.

    Raises:
        ConfigurationError: There are several, none of them `documents`.
    """
    names = sorted(set(targets) | set(workspace.config.aliases))
    if len(names) == 1 or DEFAULT_ALIAS in names:
        return DEFAULT_ALIAS if DEFAULT_ALIAS in names else names[0]
    raise ConfigurationError(
        key="--alias",
        value=None,
        problem="is needed here",
        fix=f"Known aliases: {', '.join(names) or 'none'}",
    )


def _nothing_there(*, key: str, name: str, command: str) -> ConfigurationError:
    return ConfigurationError(
        key=key, value=name, problem="serves nothing yet", fix=f"Run `{command}` first"
    )


def alias_targets(workspace: Workspace) -> dict[str, str]:
    """Where each alias points; it takes no lock."""
    with workspace.vector_store() as store:
        return store.aliases()


def aliases_by_version(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    """The aliases that serve each index version."""
    targets = alias_targets(workspace)
    return {
        version: tuple(sorted(alias for alias, target in targets.items() if target == version))
        for version in set(targets.values())
    }


def search(
    workspace: Workspace,
    target: Target,
    queries: Sequence[str],
    *,
    mode: SearchMode | None = None,
    limit: int = 5,
    filters: Mapping[str, str] | None = None,
    accesses: Sequence[Access] | None = None,
    reranking: Reranking | None = None,
) -> Iterator[list[Hit]]:
    """The best hits of each query, in order, best first.

    Args:
        workspace: Where to search.
        target: What `resolve_target` found.
        queries: Texts; the model is loaded once for all of them, and not at all in sparse mode.
        mode: See `choose_mode`.
        limit: Hits of each query, at least 1.
        filters: Every one must hold, see `core/searching.py`.
        accesses: For whom each query is asked. None is a caller who may see everything; where
            sources have tenants, that has to be said.
        reranking: What orders the hits anew, of `find_reranking`.

    Raises:
        ConfigurationError: A query is empty, or the version cannot answer this mode or filter,
            or nobody said whose documents may be found.
        IndexVersionError: The version was built with another model than the one of that name now.
    """
    asked = VersionSearch(
        workspace,
        target.index_version,
        mode=mode,
        limit=limit,
        filters=filters or {},
        reranking=reranking,
    )
    texts = [check_query(query) for query in queries]
    allowed = accesses or [decide_access(workspace.config)] * len(texts)
    step = session_queries(reranking)
    for start in range(0, len(texts), step):
        rows = slice(start, start + step)
        yield from asked.find(texts[rows], allowed[rows])


class VersionSearch:
    """Searches of one version with the same settings; its model is loaded by the first."""

    def __init__(
        self,
        workspace: Workspace,
        index_version: str,
        *,
        mode: SearchMode | None,
        limit: int,
        filters: Mapping[str, str],
        reranking: Reranking | None = None,
    ) -> None:
        """Say what to search and how; see `search` for the settings.

        Raises:
            ConfigurationError: A filter or the mode cannot be used.
            UnknownNameError: There is no such version.
        """
        version = workspace.config.index_version(index_version)
        parse_filters(filters)  # refuses unusable keys before the model is loaded
        self.index_version = index_version
        self.is_cold = True
        """Nothing was searched yet: the first search loads the model."""
        self._workspace = workspace
        self._mode: SearchMode = choose_mode(workspace, Target(index_version, None), mode)
        self._model = version.embedding_model
        self._limit, self._filters, self._reranking = limit, filters, reranking

    def find(self, texts: Sequence[str], accesses: Sequence[Access]) -> list[list[Hit]]:
        """The best hits of each text for whom it is asked, in one session with the vector store.

        Raises:
            ConfigurationError: The version cannot answer this mode.
            IndexVersionError: It was built with another model than the one of that name now.
        """
        limit, reranking = self._limit, self._reranking
        depth = reranking.depth(limit) if reranking else limit
        requests = [
            SearchRequest(self._mode, depth, vector, text, self._filters, access=access)
            for text, vector, access in zip(texts, self._vectors(texts), accesses, strict=True)
        ]
        with self._workspace.vector_store() as store:
            found = store.search_batch(self.index_version, requests)
        # The store is closed before a reranker takes its time: others get their turn.
        ranked = [
            reranking.best(text, hits, limit) if reranking else [(hit, None) for hit in hits]
            for text, hits in zip(texts, found, strict=True)
        ]
        self.is_cold = False
        return [[_hit(hit, rerank_score=score) for hit, score in hits] for hits in ranked]

    def _vectors(self, texts: Sequence[str]) -> Iterable[NDArray[np.float32] | None]:
        if self._mode == "sparse":
            return repeat(None, len(texts))
        embedder = self._workspace.embedder(self._model)
        if self.is_cold:
            _check_model(self._workspace, self.index_version, embedder.fingerprint)
        return embedder.embed_queries(texts)


def session_queries(reranking: Reranking | None) -> int:
    """How many queries to answer before the first of them is shown."""
    return RERANKED_QUERIES if reranking else BATCH_QUERIES


def choose_mode(workspace: Workspace, target: Target, wanted: SearchMode | None) -> SearchMode:
    """How chunks are ranked: as wanted, but hybrid is dense where the store has no words to rank.

    Args:
        workspace: Where to search.
        target: What to search.
        wanted: When None, hybrid where the version has sparse vectors, else dense.

    Raises:
        ConfigurationError: Words alone are wanted, and the vector store knows none.
    """
    version = workspace.config.index_version(target.index_version)
    if wanted is None:
        return "hybrid" if version.sparse else "dense"
    kind = parse_location(workspace.config.vector_store).kind
    if wanted == "dense" or CAPABILITIES[kind].sparse:
        return wanted
    if wanted == "hybrid":
        return "dense"
    raise ConfigurationError(
        key="mode",
        value=wanted,
        problem=f"is nothing that {STORE_NAMES[kind]} can do, which holds no sparse vectors",
        fix=f"Search with mode dense, or keep the index in a vector_store that does:"
        f" {ways_with_sparse()}",
    )


def unknown_filter_keys(workspace: Workspace, filters: Iterable[str]) -> dict[str, list[str]]:
    """Filter keys that no hit can have as configured now, each with the known keys like it.

    A hint, not an error: a version that nobody rebuilt may hold keys of an earlier configuration.
    """
    known = filter_keys(workspace)
    names = {key: key.removeprefix("metadata.") for key in filters}
    return {
        key: difflib.get_close_matches(name, known, n=2)
        for key, name in names.items()
        if name not in known
    }


def filter_keys(workspace: Workspace) -> list[str]:
    """What can be filtered on: the payload itself, `acl`, and the metadata of every source."""
    sources = workspace.config.sources.values()
    metadata = {key for source in sources for key in source.metadata}
    picked = {key for source in sources if source.records for key in source.records.names}
    return sorted({*PAYLOAD_KEYS, "acl", *metadata, *picked})


def _check_model(workspace: Workspace, index_version: str, fingerprint: str) -> None:
    """Refuse to compare vectors of two models; it takes no lock and loads no model."""
    with workspace.vector_store() as store:
        existing = store.collection_config(index_version)
    check_same_embedding(index_version, existing=existing, fingerprint=fingerprint)


def check_query(query: str) -> str:
    """The query as text that models take: a lone surrogate comes from undecodable arguments.

    Raises:
        ConfigurationError: It is empty.
    """
    text = query.encode("utf-8", "replace").decode().strip()
    if not text:
        raise ConfigurationError(
            key="query", value=query, problem="is empty", fix="Write what you look for"
        )
    return text


def _hit(found: SearchHit, *, rerank_score: float | None = None) -> Hit:
    payload = found.payload
    page = payload.get("page")
    metadata = payload.get("metadata")
    return Hit(
        score=found.score,
        text=str(payload.get("text", "")),
        uri=str(payload.get("uri", "")),
        source=str(payload.get("source", "")),
        document_id=str(payload.get("document_id", "")),
        chunk_id=str(payload.get("chunk_id", "")),
        page=page if isinstance(page, int) else None,
        metadata=cast("Mapping[str, object]", metadata) if isinstance(metadata, dict) else {},
        rerank_score=rerank_score,
        tenant=cast("str | None", payload.get(TENANT)),
        versions=cast("Mapping[str, object]", payload.get(VERSIONS) or {}),
    )
