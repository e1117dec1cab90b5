"""Takes documents out of everything that is stored, now and physically; see docs/truth.md.

The order makes every kill harmless. The tombstone comes first: from then on no ingestion takes the
document in. Then search stops finding it: points, then rows, from the last table to the first. Then
the bytes go that nothing names any more: files of earlier table versions, deleted points, pages of
the catalog. What a document left is found in those files, so that a second call after a kill knows
as much as the first, and finishes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    DEAD_LETTERS,
    EMBEDDINGS,
    FORGOTTEN_DOCUMENTS,
    INDEXED_CHUNKS,
    RAW_DOCUMENTS,
    SOURCE_OBJECTS,
    STAGES,
)
from ragassets.core.indexing import RewritesFiles, VectorStore
from ragassets.core.sources import landed_hash
from ragassets.core.stages import SHARD, RunContext
from ragassets.core.tables import TableSpec
from ragassets.core.vector_ledger import UNUSED_VECTORS, VECTOR_LEDGER
from ragassets.errors import ConcurrentWriteError
from ragassets.stages.indexed_chunks import add_intents, settle_intents
from ragassets.stages.named_bytes import named_content_hashes
from ragassets.stages.tombstones import Named, note_content_hashes, write_tombstones
from ragassets.stages.vector_ledger import forget_vectors

MAX_ATTEMPTS = 5
"""Times that rows are taken out of a table while others write to the same partitions."""

DEAD_LETTER_FILES = "dlq"
"""Folder below the root where dead letters are written as files."""

TABLES_OF_DOCUMENTS: tuple[TableSpec, ...] = (
    DEAD_LETTERS,
    *(
        spec
        for stage in reversed(STAGES)
        for spec in ([] if stage.has_inline_failures else [stage.failures]) + [stage.outputs]
    ),
    SOURCE_OBJECTS,
)
"""Every table with rows of documents, the last first."""


@dataclass
class Traces:
    """What is left of some documents in all files of all tables, those of earlier versions too."""

    uris: set[str] = field(default_factory=set[str])
    content_hashes: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """By document."""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Chunk texts by their hash."""
    text_hashes: set[str] = field(default_factory=set[str])
    vectors: dict[str, dict[str, list[float]]] = field(
        default_factory=dict[str, dict[str, list[float]]]
    )
    """By embedding set and text hash; (dim,) each."""


@dataclass(frozen=True)
class Forgotten:
    """What was taken out."""

    traces: Traces
    n_points: int
    n_rows: int
    n_files: int
    """Files of earlier table versions."""
    n_objects: int
    """Objects of the landing zone."""
    n_vectors: int
    """In the vector ledger."""
    shared_bytes: tuple[str, ...]
    """Hashes of bytes that stay, because other documents have them too."""


def forget_documents(
    workspace: Workspace,
    documents: Sequence[Named],
    context: RunContext,
    *,
    actor: str,
    reason: str,
) -> Forgotten:
    """Take documents out of everything; killed anywhere, a second call finishes.

    Args:
        workspace: Where they are.
        documents: Which ones; that nothing of one is known is no error.
        context: Run id and clock.
        actor: Who wants it, for the tombstone.
        reason: Why, for the tombstone.

    Raises:
        ConcurrentWriteError: Others wrote to the same partitions all the while.
        ServiceError: A store is out of reach; run it again.
    """
    ids = sorted({document.document_id for document in documents})
    write_tombstones(workspace, documents, context, actor=actor, reason=reason)
    traces = find_traces(workspace, ids)
    note_content_hashes(
        workspace, {name: max(hashes) for name, hashes in traces.content_hashes.items()}
    )
    n_points = sum(_forget_points(workspace, name, ids) for name in _versions(workspace))
    n_rows = sum(
        _forget_rows(workspace, spec, ids)
        for spec in TABLES_OF_DOCUMENTS
        if spec.name != INDEXED_CHUNKS.name
    )
    workspace.catalog.forget(ids)
    workspace.checkpoints.forget(ids, traces.uris)
    with workspace.landing(*workspace.config.sources):
        n_objects, shared = _forget_bytes(workspace, traces)
    _forget_dead_letter_files(workspace, ids)
    n_vectors = _forget_vectors(workspace, traces)
    n_files = sum(
        workspace.table_files.remove_history(name, "document_id", ids)
        for name in workspace.tables.tables()
        if name != FORGOTTEN_DOCUMENTS.name
    )
    n_files += sum(
        workspace.table_files.remove_history(spec.name, "text_hash", _own_texts(workspace, traces))
        for spec in (VECTOR_LEDGER, UNUSED_VECTORS)
    )
    rewrite_collections(workspace)
    return Forgotten(traces, n_points, n_rows, n_files, n_objects, n_vectors, shared)


def find_traces(workspace: Workspace, ids: Sequence[str]) -> Traces:
    """Look into every file of the tables that say what a document was."""
    traces = Traces()
    look = partial(workspace.table_files.holding, key="document_id", values=ids)
    for holding in look(RAW_DOCUMENTS.name, columns=["uri", "content_hash"]):
        rows = holding.rows
        traces.uris.update(rows["uri"].drop_nulls())
        for name, content_hash in rows.select("document_id", "content_hash").iter_rows():
            if content_hash:
                traces.content_hashes.setdefault(name, set()).add(content_hash)
    for holding in look(SOURCE_OBJECTS.name, columns=["uri", "etag"]):
        traces.uris.update(holding.rows["uri"].drop_nulls())
        for name, etag in holding.rows.select("document_id", "etag").iter_rows():
            if landed := landed_hash(etag):
                traces.content_hashes.setdefault(name, set()).add(landed)
    for holding in look(CHUNKS.name, columns=["text", "text_hash"]):
        traces.texts.update(holding.rows.select("text_hash", "text").iter_rows())
    for embedding_set, rows in _embedded_rows(workspace, ids):
        vectors = traces.vectors.setdefault(embedding_set, {})
        for text_hash, vector in rows.select("text_hash", "vector").iter_rows():
            vectors[text_hash] = vector
    traces.text_hashes.update(traces.texts)
    traces.text_hashes.update(name for found in traces.vectors.values() for name in found)
    return traces


def _embedded_rows(workspace: Workspace, ids: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows of `embeddings` by embedding set, which is a folder of the files' path."""
    holdings = workspace.table_files.holding(
        EMBEDDINGS.name, "document_id", ids, columns=["text_hash", "vector"]
    )
    for holding in holdings:
        folders = dict(part.split("=", 1) for part in holding.path.split("/")[:-1] if "=" in part)
        yield folders.get("embedding_set", ""), holding.rows


def _versions(workspace: Workspace) -> list[str]:
    """Every version with rows or a collection, configured or not, served or not."""
    rows = workspace.tables.read(INDEXED_CHUNKS.outputs, columns=["index_version"])
    with workspace.vector_store() as store:
        collections = store.list_collections()
    return sorted({*rows["index_version"], *collections})


def _forget_points(workspace: Workspace, index_version: str, ids: Sequence[str]) -> int:
    """Record the points, drop their rows, then delete them; how many."""
    tables, spec = workspace.tables, INDEXED_CHUNKS.outputs
    with workspace.index_writer(index_version) as store:
        is_there = index_version in store.list_collections()
        rows = tables.read(
            spec,
            [{"index_version": index_version}],
            columns=["point_id", SHARD],
            where=pl.col("document_id").is_in(ids),
        )
        points: dict[str, str] = dict(rows.iter_rows())
        if is_there:
            home = workspace.config.source_shards()[0]
            for name in _unknown_points(store, index_version, ids, known=len(points)):
                points.setdefault(name, home)
        if not points:
            return 0
        shards = sorted(set(points.values()))
        add_intents(workspace, index_version, shards, points)
        _forget_rows(workspace, spec, ids, index_version=index_version)
        if is_there:
            settle_intents(workspace, store, index_version, shards)
    return len(points)


def _unknown_points(
    store: VectorStore, index_version: str, ids: Sequence[str], *, known: int
) -> list[str]:
    """Points of the documents; looked for one by one only where the table does not name all."""
    n_points = sum(store.count(index_version, {"document_id": name}) for name in ids)
    if n_points == known:
        return []
    wanted = set(ids)
    return [p.point_id for p in store.scroll(index_version) if p.document_id in wanted]


def _forget_rows(
    workspace: Workspace, spec: TableSpec, ids: Sequence[str], **dimension: str
) -> int:
    """Drop the rows of the documents; how many."""
    is_gone = pl.col("document_id").is_in(ids)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        snapshot = workspace.tables.snapshot(spec)
        columns = list(spec.partition_by)
        places = workspace.tables.read_at(
            snapshot, [dimension] if dimension else None, columns=columns, where=is_gone
        )
        partitions = places.unique().to_dicts()
        if not partitions:
            return 0
        kept = workspace.tables.read_at(snapshot, partitions, where=~is_gone)
        try:
            workspace.tables.replace(snapshot, partitions, kept)
        except ConcurrentWriteError:
            if attempt == MAX_ATTEMPTS:
                raise
        else:
            return places.height
    return 0


def _forget_bytes(workspace: Workspace, traces: Traces) -> tuple[int, tuple[str, ...]]:
    """Remove the bytes of the documents, and those that no document has.

    Earlier bytes of an edited document are named nowhere any more, so all that nobody names goes. A
    run that has just fetched something finds it gone, and fetches it again.

    Returns:
        How many objects were removed, and the hashes that stay because other documents have them.
    """
    zone = workspace.landing_zone
    stored = set(zone.content_hashes())
    named = named_content_hashes(workspace)
    for content_hash in stored - named:
        zone.delete(content_hash)
    own = {name for hashes in traces.content_hashes.values() for name in hashes}
    return len(stored - named), tuple(sorted(own & named))


def _forget_dead_letter_files(workspace: Workspace, ids: Sequence[str]) -> None:
    """Remove the files that were written of dead letters; they are named by their document."""
    wanted = set(ids)
    for path in workspace.landing_zone.object_paths(DEAD_LETTER_FILES):
        if path.rpartition("/")[2].partition(".")[0] in wanted:
            workspace.landing_zone.delete_object(path)


def _own_texts(workspace: Workspace, traces: Traces) -> set[str]:
    """Hashes of texts that no other document has."""
    if not traces.text_hashes:
        return set()
    hashes = sorted(traces.text_hashes)
    others = [
        workspace.tables.read(
            stage.outputs, columns=["text_hash"], where=pl.col("text_hash").is_in(hashes)
        )["text_hash"]
        for stage in (CHUNKS, EMBEDDINGS)
    ]
    return traces.text_hashes - set(others[0]) - set(others[1])


def _forget_vectors(workspace: Workspace, traces: Traces) -> int:
    """Take the vectors of the documents' own texts out of the ledger; how many."""
    own = _own_texts(workspace, traces)
    return forget_vectors(workspace, own) if own else 0


def rewrite_collections(workspace: Workspace) -> None:
    """Write collections anew whose files keep what was deleted; a server does that in its time."""
    with workspace.vector_store() as store:
        names = store.list_collections()
        if not isinstance(store, RewritesFiles):
            return
    for name in names:
        with workspace.vector_store() as store:
            if isinstance(store, RewritesFiles):
                store.rewrite_collection(name)
