"""Tables against each other, in both directions, from `raw_documents` to `indexed_chunks`.

What is missing is looked for only where it was complete before, in versions that were sealed once:
a version that waits for its build lacks nothing. Old rows of a document whose new ones are still
failing are kept on purpose. A report of documents that were listed and never fetched is
`ragassets status`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.config import IndexVersionConfig
from ragassets.core.asset_tables import (
    CHUNKS,
    CLEAN_DOCUMENTS,
    DOCUMENT_SIGNATURES,
    EMBEDDINGS,
    INDEX_VERSIONS,
    INDEXED_CHUNKS,
    PARSED_DOCUMENTS,
    RAW_DOCUMENTS,
    SOURCE_OBJECTS,
    STAGES,
    UNIQUE_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.core.stages import SHARD, Stage
from ragassets.queries.audit_findings import Finding, Thing, finding, row_things
from ragassets.stages.build_windows import (
    begun_versions,
    current_versions,
    in_chunking_window,
    in_embedding_window,
    in_version_window,
)
from ragassets.stages.inputs import partitions_of

DOCUMENT_STAGES = (
    RAW_DOCUMENTS,
    PARSED_DOCUMENTS,
    VALID_DOCUMENTS,
    CLEAN_DOCUMENTS,
    DOCUMENT_SIGNATURES,
    UNIQUE_DOCUMENTS,
)
ID = "document_id"


def alive_documents(workspace: Workspace) -> pl.DataFrame:
    """`document_id` and shard of what the sources hold, as last listed."""
    return workspace.tables.read(SOURCE_OBJECTS, columns=[ID, SHARD], where=~pl.col("is_deleted"))


def audit_documents(workspace: Workspace) -> Iterator[Finding]:
    """Every stage has the documents of the stage before: no others, and none less."""
    orphans, missing = list[Thing](), list[Thing]()
    alive = upstream = alive_documents(workspace)
    pending = _pending(workspace)
    fetched = [row.document_id for row in workspace.catalog.documents() if row.content_hash]
    for stage in DOCUMENT_STAGES:
        rows = workspace.tables.read(stage.outputs, columns=[ID, SHARD, "output_hash"])
        astray = rows.join(upstream, on=[ID, SHARD], how="anti")
        orphans += _of_stage(stage, _kept_out(astray, pending))
        lost = upstream.join(rows, on=[ID, SHARD], how="anti").join(
            alive, on=[ID, SHARD], how="semi"
        )
        if stage is RAW_DOCUMENTS:  # a document that was never fetched is new, not lost
            lost = lost.filter(pl.col(ID).is_in(fetched))
        missing += _of_stage(stage, _configured(workspace, lost))
        upstream = rows.drop_nulls("output_hash").select(ID, SHARD)
    yield finding("orphan_documents", orphans)
    yield finding("missing_documents", missing)


def _of_stage(stage: Stage, rows: pl.DataFrame) -> list[Thing]:
    things = row_things(rows.select(ID, SHARD), ID)
    return [thing._replace(label=f"{stage.name}/{thing.label}") for thing in things]


def _configured(workspace: Workspace, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of shards that a run would look at; the others stay as they are until they retire."""
    return rows.filter(pl.col(SHARD).is_in(workspace.config.source_shards()))


def _pending(workspace: Workspace) -> pl.DataFrame:
    """Documents with a failure for a passing reason."""
    return pl.concat(
        workspace.tables.read(
            stage.outputs if stage.has_inline_failures else stage.failures,
            columns=[ID],
            where=pl.col("failed_input_hash").is_not_null() & pl.col("is_transient"),
        )
        for stage in STAGES
    )


def _kept_out(rows: pl.DataFrame, pending: pl.DataFrame) -> pl.DataFrame:
    return rows.join(pending, on=ID, how="anti")


@dataclass(frozen=True)
class _ChunkRows:
    """Narrow rows of the stages that work on chunks."""

    survivors: pl.DataFrame
    chunks: pl.DataFrame
    embedded: pl.DataFrame
    indexed: pl.DataFrame
    pending: pl.DataFrame


def audit_chunks(workspace: Workspace) -> Iterator[Finding]:
    """Indexed chunks need embeddings, embeddings need chunks, chunks need a surviving document.

    Rows that serve only versions which an ingestion does not keep current are left out: they fall
    behind by design, until `ragassets index build` is run for them; `status` counts those.
    """
    unique = _good(workspace, UNIQUE_DOCUMENTS, ID, SHARD, "duplicate_of")
    rows = _ChunkRows(
        survivors=unique.filter(pl.col("duplicate_of").is_null()),
        chunks=_good(workspace, CHUNKS, "chunk_id", ID, SHARD, "chunking"),
        embedded=_good(workspace, EMBEDDINGS, "chunk_id", ID, SHARD, "embedding_set"),
        indexed=_good(workspace, INDEXED_CHUNKS, "chunk_id", ID, SHARD, "index_version"),
        pending=_pending(workspace),
    )
    versions = current_versions(workspace)
    yield from _orphans(rows, versions)
    sealed = set(workspace.tables.read(INDEX_VERSIONS, columns=["index_version"])["index_version"])
    built = {name: version for name, version in versions.items() if name in sealed}
    yield from _missing(workspace, rows, built)
    yield from _untrue_texts(workspace, rows.pending)


def _orphans(rows: _ChunkRows, versions: Mapping[str, IndexVersionConfig]) -> Iterator[Finding]:
    chunking_of = {version.embedding_set: version.chunking for version in versions.values()}
    set_of = {name: version.embedding_set for name, version in versions.items()}
    current = rows.chunks.filter(pl.col("chunking").is_in(sorted(set(chunking_of.values()))))
    embedded = _under(rows.embedded, "embedding_set", chunking_of, "chunking")
    indexed = _under(rows.indexed, "index_version", set_of, "embedding_set")
    for name, astray, under in (
        ("orphan_chunks", current.join(rows.survivors, on=ID, how="anti"), "chunking"),
        (
            "orphan_embeddings",
            embedded.join(rows.chunks, on=["chunk_id", "chunking"], how="anti"),
            "embedding_set",
        ),
        (
            "orphan_indexed_chunks",
            indexed.join(rows.embedded, on=["chunk_id", "embedding_set"], how="anti"),
            "index_version",
        ),
    ):
        yield finding(name, row_things(_kept_out(astray, rows.pending), "chunk_id", under=under))


def _missing(
    workspace: Workspace, rows: _ChunkRows, versions: Mapping[str, IndexVersionConfig]
) -> Iterator[Finding]:
    """What a stage has neither made nor failed on, within the windows of what is built."""
    chunks, embeddings, indexed = list[Thing](), list[Thing](), list[Thing]()
    shards, tables = workspace.config.source_shards(), workspace.tables
    windows = begun_versions(workspace)
    for name in dict.fromkeys(version.chunking for version in versions.values()):
        made = rows.chunks.filter(pl.col("chunking") == name)
        lost = _not_done(workspace, CHUNKS, rows.survivors, made, name)
        chunks += row_things(in_chunking_window(workspace, name, lost, shards, tables), ID)
    for version in {version.embedding_set: version for version in versions.values()}.values():
        name = version.embedding_set
        upstream = rows.chunks.filter(pl.col("chunking") == version.chunking)
        made = rows.embedded.filter(pl.col("embedding_set") == name)
        lost = _not_done(workspace, EMBEDDINGS, upstream, made, name)
        lost = in_embedding_window(workspace, name, lost, shards, tables)
        embeddings += [t._replace(under=name) for t in row_things(lost, "chunk_id")]
    for name, version in versions.items():
        upstream = rows.embedded.filter(pl.col("embedding_set") == version.embedding_set).join(
            rows.chunks.filter(pl.col("chunking") == version.chunking).select("chunk_id"),
            on="chunk_id",
            how="semi",
        )
        made = rows.indexed.filter(pl.col("index_version") == name)
        lost = _not_done(workspace, INDEXED_CHUNKS, upstream, made, name)
        if name in windows:
            lost = in_version_window(windows[name], lost, shards, tables)
        indexed += [t._replace(under=name) for t in row_things(lost, "chunk_id")]
    yield finding("missing_chunks", chunks)
    yield finding("missing_embeddings", embeddings)
    yield finding("missing_indexed_chunks", indexed)


def _not_done(
    workspace: Workspace, stage: Stage, upstream: pl.DataFrame, made: pl.DataFrame, under: str
) -> pl.DataFrame:
    """Inputs in configured shards without a row and without a failure of this stage."""
    dimension = next(name for name in stage.partition_by if name != SHARD)
    failed = workspace.tables.read(
        stage.failures, [{dimension: under}], columns=list(dict.fromkeys([stage.key, SHARD]))
    )
    places = [stage.key, SHARD]
    lost = upstream.join(made, on=places, how="anti").join(failed, on=places, how="anti")
    return _configured(workspace, lost)


def _good(workspace: Workspace, stage: Stage, *columns: str) -> pl.DataFrame:
    return workspace.tables.read(
        stage.outputs, columns=list(columns), where=pl.col("output_hash").is_not_null()
    )


def _under(rows: pl.DataFrame, column: str, mapping: dict[str, str], upstream: str) -> pl.DataFrame:
    """The rows of the mapped names only, with the upstream name that they hang on."""
    known = rows.filter(pl.col(column).is_in(list(mapping)))
    return known.with_columns(
        pl.col(column).replace_strict(mapping, return_dtype=pl.String).alias(upstream)
    )


def _untrue_texts(workspace: Workspace, pending: pl.DataFrame) -> Iterator[Finding]:
    """Chunks against the clean texts that they were cut from, a shard at a time.

    A lost chunk leaves a hole in its document: chunks of one document are made together, so that
    the engine itself would never notice.
    """
    altered, incomplete = list[Thing](), list[Thing]()
    for shard in workspace.config.source_shards():
        chunks = workspace.tables.read(
            CHUNKS.outputs,
            partitions_of([shard]),
            columns=[
                "chunk_id",
                ID,
                SHARD,
                "chunking",
                "text",
                "text_hash",
                "start_char",
                "end_char",
            ],
        )
        hashes = [_text_hash(text) for text in chunks["text"]]
        is_true = chunks["text_hash"] == pl.Series(hashes, dtype=pl.String)
        wrong = chunks.filter(~is_true.fill_null(value=False))
        altered += row_things(wrong, "chunk_id", under="chunking")
        texts = workspace.tables.read(
            CLEAN_DOCUMENTS.outputs,
            partitions_of([shard]),
            columns=[ID, "text"],
            where=pl.col("output_hash").is_not_null(),
        )
        text_of = dict(_kept_out(texts, pending).select(ID, "text").iter_rows())
        for (name, chunking), rows in chunks.group_by(ID, "chunking"):
            if _has_holes(text_of.get(str(name)), rows.sort("start_char")):
                label = str(name)
                thing = Thing(label, document_id=label, shard=shard, under=str(chunking))
                incomplete.append(thing)
    yield finding("altered_chunks", altered)
    yield finding("incomplete_chunks", incomplete)


def _text_hash(text: str) -> str:
    """What `core/chunking.py` names a chunk's text by."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _has_holes(text: str | None, chunks: pl.DataFrame) -> bool:
    """Whether text lies in no chunk; False where they were cut from another text."""
    if text is None:
        return False
    covered = 0
    for start, end, chunk in chunks.select("start_char", "end_char", "text").iter_rows():
        if text[start:end] != chunk:
            return False
        if text[covered:start].strip():
            return True
        covered = max(covered, end)
    return bool(text[covered:].strip())
