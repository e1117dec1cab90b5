"""Chunks to vectors, under one embedding model; nothing is ever embedded twice."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS
from ragassets.core.embedding import EmbeddedTexts, Embedder, EmbedsEach, validate_vectors
from ragassets.core.fingerprints import fingerprint
from ragassets.core.incremental import Failure, with_input_hash
from ragassets.core.indexing import check_same_embedding
from ragassets.core.stages import SHARD, Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables, Tables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.errors import EmbeddingServiceError, InvalidVectorError, RagAssetsError
from ragassets.stages.batches import in_batches
from ragassets.stages.inputs import good_rows, partitions_of

COLUMNS = ("chunk_id", "document_id", "uri", "source", "source_shard", "text_hash")


def update_embeddings(
    workspace: Workspace, embedding_set: str, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `embeddings` of some shards up to date.

    A vector that any shard has for the same text under the same model is taken over: a document
    that was renamed, or moved to another shard, costs nothing. In the reports such chunks count as
    reused.

    Raises:
        IndexVersionError: A collection was built with another model of that name.
    """
    tables = PinnedTables(workspace.tables, EMBEDDINGS.outputs, EMBEDDINGS.failures)
    chunking, model = workspace.config.embedding_sets()[embedding_set]
    embedder = workspace.embedder(model)
    _refuse_other_model(workspace, embedding_set, embedder)
    inputs = embedding_inputs(workspace, embedding_set, shards, tables)
    taken_over: Counter[str] = Counter()

    def compute(keys: list[str]) -> Iterator[Outcome]:
        wanted = inputs.filter(pl.col("chunk_id").is_in(keys)).sort("chunk_id")
        known = _known_vectors(tables, embedding_set, wanted["input_hash"].unique())
        found = wanted.join(known, on="input_hash")
        if found.height:
            taken_over.update(found[SHARD])
            yield Outcome(_rows(found))
        new = wanted.join(known, on="input_hash", how="anti")
        yield from _embed(_new_texts(tables, chunking, new), new, embedder)

    reports = run_stage(
        EMBEDDINGS,
        partitions_of(shards, embedding_set=embedding_set),
        inputs,
        compute,
        tables=tables,
        context=context,
    )
    return {
        shard: dataclasses.replace(
            report,
            n_computed=report.n_computed - taken_over[shard],
            n_reused=report.n_reused + taken_over[shard],
        )
        for shard, report in reports.items()
    }


def embedding_inputs(
    workspace: Workspace, embedding_set: str, shards: Sequence[str], tables: Tables
) -> pl.DataFrame:
    """The chunks that are embedded, hashed over all that decides their vectors."""
    chunking, model = workspace.config.embedding_sets()[embedding_set]
    chunks = good_rows(tables, CHUNKS, shards, COLUMNS, chunking=chunking).drop("output_hash")
    return with_input_hash(
        chunks.with_columns(pl.lit(embedding_set).alias("embedding_set")),
        fingerprint(
            {
                "stage": "embeddings",
                "version": STAGE_VERSIONS["embeddings"],
                "model": workspace.embedder(model).fingerprint,
            }
        ),
        "text_hash",
    )


def _refuse_other_model(workspace: Workspace, embedding_set: str, embedder: Embedder) -> None:
    """Refuse before anything is embedded what could not be indexed afterwards."""
    versions = workspace.config.index_versions
    with workspace.vector_store() as store:
        for name in store.list_collections():
            if name in versions and versions[name].embedding_set == embedding_set:
                existing = store.collection_config(name)
                check_same_embedding(name, existing=existing, fingerprint=embedder.fingerprint)


def _known_vectors(tables: Tables, embedding_set: str, input_hashes: pl.Series) -> pl.DataFrame:
    """One vector for every input hash that the set's table has, in whichever shard.

    Most runs find none: the hashes are looked through first, and vectors are read of those shards
    only that have a wanted one.
    """
    spec, is_wanted = EMBEDDINGS.outputs, pl.col("input_hash").is_in(input_hashes.implode())
    hits = (
        tables.read(
            spec,
            [{"embedding_set": embedding_set}],
            columns=["input_hash", SHARD],
            where=is_wanted,
        )
        .sort(SHARD, "input_hash")
        .unique("input_hash", keep="first", maintain_order=True)
    )
    homes = hits[SHARD].unique(maintain_order=True).to_list()
    if not homes:
        return spec.empty_frame(["input_hash", "vector"])
    return tables.read(
        spec,
        partitions_of(homes, embedding_set=embedding_set),
        columns=["input_hash", "vector"],
        where=is_wanted,
    ).unique("input_hash", keep="any")


def _new_texts(tables: Tables, chunking: str, new: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """`input_hash` and `text` of the new chunks, each text once, a shard at a time."""
    firsts = new.sort(SHARD, "chunk_id").unique("input_hash", keep="first", maintain_order=True)
    for (shard,), wanted in firsts.group_by(SHARD, maintain_order=True):
        rows = good_rows(
            tables,
            CHUNKS,
            [str(shard)],
            ("chunk_id", "text"),
            where=pl.col("chunk_id").is_in(wanted["chunk_id"].implode()),
            chunking=chunking,
        )
        yield (
            wanted.select("chunk_id", "input_hash")
            .join(rows.select("chunk_id", "text"), on="chunk_id", maintain_order="left")
            .select("input_hash", "text")
        )


def _embed(
    texts: Iterator[pl.DataFrame], new: pl.DataFrame, embedder: Embedder
) -> Iterator[Outcome]:
    """Embed the texts, and give every chunk of a text its vector."""
    if new.is_empty():  # the embedder may have to look at its device to name its window
        return
    chunks = new.sort(SHARD, "chunk_id")
    for batch in in_batches(texts, embedder.window_texts):
        vectors, problems = _embed_batch(embedder, batch["text"].to_list())
        embedded = _with_vectors(batch.select("input_hash"), vectors).with_row_index("position")
        rows = chunks.join(embedded, on="input_hash", maintain_order="left")
        is_failed = pl.col("position").is_in(sorted(problems))
        failed = rows.filter(is_failed).select("chunk_id", "position")
        yield Outcome(
            _rows(rows.filter(~is_failed)),
            [_failure(chunk_id, problems[position]) for chunk_id, position in failed.iter_rows()],
        )


def _embed_batch(
    embedder: Embedder, texts: list[str]
) -> tuple[NDArray[np.float32], dict[int, RagAssetsError | str]]:
    """The vectors (n_texts, dim), and by position what failed: an error, or an unsound vector."""
    is_each = isinstance(embedder, EmbedsEach)
    made = (
        embedder.embed_each(texts)
        if is_each
        else EmbeddedTexts(embedder.embed_documents(texts), failures={})
    )
    unsound = validate_vectors(made.vectors, dim=embedder.dim)
    problems = {position: problem for position, problem in enumerate(unsound) if problem}
    return made.vectors, {**problems, **made.failures}


def _with_vectors(frame: pl.DataFrame, vectors: NDArray[np.float32]) -> pl.DataFrame:
    """Add vectors (n, dim) float32 as a list column."""
    column = pl.Series("vector", vectors).cast(pl.List(pl.Float32))
    return frame.with_columns(column)


def _rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Output rows; equal input hashes mean equal vectors, so that hash names the output too."""
    return frame.select(
        *(name for name in EMBEDDINGS.content), pl.col("input_hash").alias("output_hash")
    )


def _failure(chunk_id: str, problem: RagAssetsError | str) -> Failure:
    error = (
        InvalidVectorError(stage="embeddings", subject=chunk_id, detail=problem)
        if isinstance(problem, str)
        else problem
    )
    # A service that was down for all looked at none of the texts.
    is_outage = isinstance(error, EmbeddingServiceError) and error.is_outage
    return Failure(
        key=chunk_id,
        category=error.category,
        reason=error.reason,
        error_type=type(error).__name__,
        message=str(error),
        stack_trace="",
        is_transient=error.is_transient,
        n_attempts=0 if is_outage else 1,
    )
