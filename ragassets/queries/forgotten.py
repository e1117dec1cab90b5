"""Forgotten documents: which ones an argument means, who else has their bytes, and the proof."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np
import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    FORGOTTEN_DOCUMENTS,
    RAW_DOCUMENTS,
    SOURCE_OBJECTS,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.fingerprints import document_id
from ragassets.core.indexing import VectorStore
from ragassets.core.searching import SearchRequest
from ragassets.queries.documents import candidate_uris, find_document
from ragassets.stages.forgetting import DEAD_LETTER_FILES, Traces
from ragassets.stages.named_bytes import named_content_hashes
from ragassets.stages.tombstones import Named

MAX_SEARCHES = 20
"""Texts that are searched for in each version and mode; that nothing is left is counted for all."""

HITS = 10


@dataclass(frozen=True)
class Tombstone:
    """What is kept of a forgotten document."""

    document_id: str
    source: str
    content_hash: str | None
    actor: str
    reason: str
    forgotten_at: datetime


@dataclass(frozen=True)
class Meant:
    """The documents that an argument of `forget` means."""

    uri: str
    documents: tuple[Named, ...]
    is_forgotten: bool
    """Whether all of them have their tombstone."""


@dataclass(frozen=True)
class Kin:
    """Other documents that say the same."""

    same_bytes: tuple[str, ...]
    """URIs of documents with the very same bytes. They stay: they are other documents."""
    next_in_line: tuple[str, ...]
    """URIs of duplicates that were not searchable because this document stood for them."""


@dataclass(frozen=True)
class Proof:
    """What was looked for after the removal."""

    n_searches: int
    """Searches for the documents' own texts and vectors, in every version."""
    n_files: int
    """Data files of tables that were read."""
    left: tuple[str, ...]
    """What is still there, in words; empty when everything is gone."""


def find_meant(workspace: Workspace, argument: str) -> Meant:
    """The documents of all sources that a URI or path means; the source need not have it any more.

    Raises:
        UnknownDocumentError: Nothing of it is known, and it was never forgotten.
    """
    uris = candidate_uris(argument)
    stones = {stone.document_id: stone for stone in read_tombstones(workspace)}
    sources = dict.fromkeys([*workspace.config.sources, *(s.source for s in stones.values())])
    by_id = {document_id(source, uri): (source, uri) for uri in uris for source in sources}
    rows = workspace.tables.read(
        SOURCE_OBJECTS,
        columns=["document_id", "source", "uri"],
        where=pl.col("uri").is_in(uris) | pl.col("document_id").is_in(list(by_id)),
    )
    found = {row[0]: (row[1], row[2]) for row in rows.iter_rows()}
    found |= {name: place for name, place in by_id.items() if name in stones}
    if not found:
        known = find_document(workspace, argument)
        found = {known.document_id: (known.source, known.uri)}
    return Meant(
        uri=next(iter(found.values()))[1],
        documents=tuple(Named(name, source) for name, (source, _) in sorted(found.items())),
        is_forgotten=found.keys() <= stones.keys(),
    )


def read_tombstones(workspace: Workspace) -> list[Tombstone]:
    """Everything that was forgotten."""
    columns = list(Tombstone.__dataclass_fields__)
    rows = workspace.tables.read(FORGOTTEN_DOCUMENTS, columns=columns).sort("document_id")
    return [Tombstone(*row) for row in rows.select(columns).iter_rows()]


def find_tombstone(workspace: Workspace, argument: str) -> tuple[str, Tombstone] | None:
    """The tombstone that a URI or path means, and the URI; None where there is none."""
    stones = {stone.document_id: stone for stone in read_tombstones(workspace)}
    sources = dict.fromkeys([*workspace.config.sources, *(s.source for s in stones.values())])
    for uri in candidate_uris(argument):
        for source in sources:
            if stone := stones.get(document_id(source, uri)):
                return uri, stone
    return None


def find_kin(workspace: Workspace, documents: Sequence[Named]) -> Kin:
    """Who else has the bytes of these documents, and who waits behind them."""
    ids = [document.document_id for document in documents]
    is_own = pl.col("document_id").is_in(ids)
    raw = workspace.tables.read(
        RAW_DOCUMENTS.outputs, columns=["document_id", "uri", "content_hash"]
    )
    hashes = raw.filter(is_own)["content_hash"].drop_nulls()
    same = raw.filter(pl.col("content_hash").is_in(hashes.to_list()) & ~is_own)
    waiting = workspace.tables.read(
        UNIQUE_DOCUMENTS.outputs, columns=["uri"], where=pl.col("duplicate_of").is_in(ids) & ~is_own
    )
    return Kin(tuple(sorted(set(same["uri"]))), tuple(sorted(set(waiting["uri"]))))


def prove_forgotten(workspace: Workspace, documents: Sequence[Named], traces: Traces) -> Proof:
    """Look for what must not be there any more.

    Args:
        workspace: Where to look.
        documents: What was forgotten.
        traces: What they were: their texts and vectors are searched for.
    """
    ids = sorted({document.document_id for document in documents})
    left: list[str] = []
    n_searches = 0
    with workspace.vector_store() as store:
        for name in store.list_collections():
            n_points = sum(store.count(name, {"document_id": one}) for one in ids)
            if n_points:
                left.append(f"{n_points} points in {name}")
            for request in _searches(workspace, store, name, traces):
                n_searches += 1
                found = {str(h.payload.get("document_id")) for h in store.search(name, request)}
                if found & set(ids):
                    left.append(f"a {request.mode} search of {name} finds it")
    n_files, in_files = _left_in_files(workspace, ids)
    return Proof(
        n_searches,
        n_files,
        tuple(dict.fromkeys([*left, *in_files, *_left_beside(workspace, ids, traces)])),
    )


def _searches(
    workspace: Workspace, store: VectorStore, name: str, traces: Traces
) -> Iterator[SearchRequest]:
    """By the document's own vectors and by its own words."""
    config = store.collection_config(name)
    version = workspace.config.index_versions.get(name)
    vectors = traces.vectors.get(version.embedding_set, {}) if version else {}
    for vector in islice(vectors.values(), MAX_SEARCHES):
        if len(vector) == config.dim:
            yield SearchRequest("dense", HITS, np.array(vector, np.float32))
    if config.sparse is not None:
        for text in islice(traces.texts.values(), MAX_SEARCHES):
            yield SearchRequest("sparse", HITS, text=text)


def _left_in_files(workspace: Workspace, ids: Sequence[str]) -> tuple[int, list[str]]:
    left: list[str] = []
    n_files = 0
    for table in workspace.tables.tables():
        if table == FORGOTTEN_DOCUMENTS.name:
            continue
        n_files += workspace.table_files.count(table)
        held = [h.path for h in workspace.table_files.holding(table, "document_id", ids)]
        if held:
            left.append(f"rows in {len(held)} files of table {table}, such as {held[0]}")
    return n_files, left


def _left_beside(workspace: Workspace, ids: Sequence[str], traces: Traces) -> Iterator[str]:
    known = {row.document_id for row in workspace.catalog.documents()}
    if known & set(ids):
        yield "a row of the catalog"
    named = named_content_hashes(workspace)
    own = {name for hashes in traces.content_hashes.values() for name in hashes}
    if any(workspace.landing_zone.exists(name) for name in own - named):
        yield "bytes in the landing zone"
    if workspace.checkpoints.holds(ids):
        yield "rows in checkpoints"
    paths = workspace.landing_zone.object_paths(DEAD_LETTER_FILES)
    if any(path.rpartition("/")[2].partition(".")[0] in ids for path in paths):
        yield "files of dead letters"
