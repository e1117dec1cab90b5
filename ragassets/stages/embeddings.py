"""Chunks to vectors, under one embedding model; nothing is ever embedded twice."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS
from ragassets.core.embedding import Embedder, validate_vectors
from ragassets.core.fingerprints import fingerprint
from ragassets.core.incremental import Failure, with_input_hash
from ragassets.core.stages import SHARD, Outcome, RunContext, StageReport, run_stage
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.errors import InvalidVectorError
from ragassets.stages.inputs import good_rows, partitions_of

BATCH_CHUNKS = 512
"""Chunks between two checkpoints: at 100 chunks/s on two cores, a killed run loses 5 s of work."""

COLUMNS = ("chunk_id", "document_id", "uri", "source", "source_shard", "text_hash")


def update_embeddings(
    workspace: Workspace, embedding_set: str, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `embeddings` of some shards up to date.

    A vector that any shard has for the same text under the same model is taken over: a document
    that was renamed or came back costs nothing. In the reports such chunks count as reused.
    """
    chunking, model = workspace.config.embedding_sets()[embedding_set]
    embedder = workspace.embedder(model)
    chunks = good_rows(workspace.tables, CHUNKS, shards, COLUMNS, chunking=chunking).drop(
        "output_hash"
    )
    inputs = with_input_hash(
        chunks.with_columns(pl.lit(embedding_set).alias("embedding_set")),
        fingerprint(
            {
                "stage": "embeddings",
                "version": STAGE_VERSIONS["embeddings"],
                "model": embedder.fingerprint,
            }
        ),
        "text_hash",
    )
    taken_over: Counter[str] = Counter()

    def compute(keys: list[str]) -> Iterator[Outcome]:
        wanted = inputs.filter(pl.col("chunk_id").is_in(keys)).sort("chunk_id")
        known = _known_vectors(workspace, embedding_set, wanted["input_hash"].unique())
        found = wanted.join(known, on="input_hash")
        if found.height:
            taken_over.update(found[SHARD])
            yield Outcome(_rows(found))
        new = wanted.join(known, on="input_hash", how="anti")
        yield from _embed(workspace, chunking, shards, new, embedder)

    reports = run_stage(
        EMBEDDINGS,
        partitions_of(shards, embedding_set=embedding_set),
        inputs,
        compute,
        tables=workspace.tables,
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


def _known_vectors(
    workspace: Workspace, embedding_set: str, input_hashes: pl.Series
) -> pl.DataFrame:
    """One vector for every input hash that the set's table has, in whichever shard."""
    return workspace.tables.read(
        EMBEDDINGS.outputs,
        [{"embedding_set": embedding_set}],
        columns=["input_hash", "vector"],
        where=pl.col("input_hash").is_in(input_hashes.to_list()),
    ).unique("input_hash", keep="any")


def _embed(
    workspace: Workspace,
    chunking: str,
    shards: Sequence[str],
    new: pl.DataFrame,
    embedder: Embedder,
) -> Iterator[Outcome]:
    """Embed the new chunks; chunks of the same text once."""
    batches = new.partition_by("input_hash", maintain_order=True)
    for start in range(0, len(batches), BATCH_CHUNKS):
        batch = pl.concat(batches[start : start + BATCH_CHUNKS])
        first = batch.unique("input_hash", keep="first", maintain_order=True)
        texts = _texts(workspace, chunking, shards, first)
        vectors = embedder.embed_documents(texts["text"].to_list())
        problems = validate_vectors(vectors, dim=embedder.dim)
        embedded = _with_vectors(texts.select("input_hash"), vectors)
        rows = batch.join(embedded, on="input_hash", maintain_order="left")
        problem_of = dict(zip(texts["input_hash"], problems, strict=True))
        is_sound = pl.Series(
            [problem_of[name] is None for name in rows["input_hash"]], dtype=pl.Boolean
        )
        yield Outcome(
            _rows(rows.filter(is_sound)),
            [
                _invalid(chunk_id, problem_of[name])
                for chunk_id, name in rows.filter(~is_sound)
                .select("chunk_id", "input_hash")
                .iter_rows()
            ],
        )


def _texts(
    workspace: Workspace, chunking: str, shards: Sequence[str], chunks: pl.DataFrame
) -> pl.DataFrame:
    """`input_hash` and `text` of the given chunks."""
    rows = good_rows(
        workspace.tables,
        CHUNKS,
        [shard for shard in shards if shard in set(chunks[SHARD])],
        ("chunk_id", "text"),
        where=pl.col("chunk_id").is_in(chunks["chunk_id"].to_list()),
        chunking=chunking,
    )
    return chunks.select("chunk_id", "input_hash").join(
        rows.select("chunk_id", "text"), on="chunk_id", maintain_order="left"
    )


def _with_vectors(frame: pl.DataFrame, vectors: NDArray[np.float32]) -> pl.DataFrame:
    """Add vectors (n, dim) float32 as a list column."""
    column = pl.Series("vector", vectors).cast(pl.List(pl.Float32))
    return frame.with_columns(column)


def _rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Output rows; equal input hashes mean equal vectors, so that hash names the output too."""
    return frame.select(
        *(name for name in EMBEDDINGS.content), pl.col("input_hash").alias("output_hash")
    )


def _invalid(chunk_id: str, problem: str | None) -> Failure:
    error = InvalidVectorError(stage="embeddings", subject=chunk_id, detail=problem or "")
    return Failure(
        key=chunk_id,
        category=error.category,
        reason=error.reason,
        error_type=type(error).__name__,
        message=str(error),
        stack_trace="",
        is_transient=False,
    )
