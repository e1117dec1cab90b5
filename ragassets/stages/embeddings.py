"""Chunks to vectors, under one embedding model; nothing is ever embedded twice.

Every new vector goes into the vector ledger right before the commit of `embeddings`, and every
wanted one is looked up there first. A run that is killed before the ledger has its vectors finds
them in its checkpoints; one that is killed between the two commits finds them in both.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.adapters.vector_ledger import VectorLedger
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS
from ragassets.core.collection_config import check_same_embedding
from ragassets.core.embedding import EmbeddedTexts, Embedder, EmbedsEach, validate_vectors
from ragassets.core.fingerprints import fingerprint
from ragassets.core.incremental import SOURCE_VERSION, Failure, StageState, with_input_hash
from ragassets.core.stages import SHARD, Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables, Tables
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.errors import EmbeddingServiceError, InvalidVectorError, RagAssetsError
from ragassets.stages.batches import in_batches
from ragassets.stages.build_windows import in_embedding_window
from ragassets.stages.dropped_versions import refuse_dropped_alone
from ragassets.stages.embedding_speed import Stopwatch, record_speed
from ragassets.stages.inputs import good_rows, partitions_of
from ragassets.stages.recorded_settings import record_settings
from ragassets.stages.vector_ledger import keep_ledger_in_bounds

LOOKUP_TEXTS = 8_192
"""Texts that are looked up in the ledger at once: 13 MB of vectors at 384 dimensions."""

COLUMNS = ("chunk_id", "document_id", "uri", "source", "source_shard", "text_hash")


def update_embeddings(
    workspace: Workspace, embedding_set: str, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `embeddings` of some shards up to date.

    A text that was ever embedded with this model costs nothing: its vector comes from the ledger.
    Chunks of one text share its vector, so that it is embedded once. In the reports all chunks that
    needed no embedding of their own count as reused.

    Raises:
        ConfigurationError: The model's settings were others when it was used first.
        IndexVersionError: A collection was built with another model of that name, or only versions
            that were dropped need the embeddings.
    """
    versions = workspace.config.index_versions.items()
    users = [name for name, version in versions if version.embedding_set == embedding_set]
    refuse_dropped_alone(workspace, context, users)
    tables = PinnedTables(workspace.tables, EMBEDDINGS.outputs, EMBEDDINGS.failures)
    chunking, model = workspace.config.embedding_sets()[embedding_set]
    embedder = workspace.embedder(model)
    _refuse_other_model(workspace, embedding_set, embedder)
    chunks = embedding_inputs(workspace, embedding_set, shards, tables)
    inputs = in_embedding_window(workspace, embedding_set, chunks, shards, tables)
    record_settings(workspace, "embedding_models", model, context)
    takeover = _Takeover(workspace.ledger, model_fingerprint(embedder), context)
    stopwatch = Stopwatch(context.now)

    def compute(keys: list[str]) -> Iterator[Outcome]:
        wanted = inputs.filter(pl.col("chunk_id").is_in(keys)).sort("chunk_id")
        yield from takeover.find(wanted, embedder.dim)
        new = takeover.still_missing(wanted)
        texts = _new_texts(tables, chunking, new)
        yield from _embed(texts, new, embedder, stopwatch)

    reports = run_stage(
        EMBEDDINGS,
        partitions_of(shards, embedding_set=embedding_set),
        inputs,
        compute,
        tables=tables,
        context=context,
        before_commit=takeover.keep,
    )
    record_speed(
        workspace.tables, takeover.model, stopwatch, run_id=context.run_id, now=context.now()
    )
    if takeover.n_kept:  # what does not grow needs no bounds
        keep_ledger_in_bounds(workspace, context.now())
    return {shard: takeover.counted(shard, report) for shard, report in reports.items()}


def model_fingerprint(embedder: Embedder) -> str:
    """Hash of all that decides a text's vector besides the text: what the ledger knows it by."""
    return fingerprint(
        {
            "stage": "embeddings",
            "version": STAGE_VERSIONS["embeddings"],
            "model": embedder.fingerprint,
        }
    )


class _Takeover:
    """What one run takes from the ledger, and what it gives to it."""

    def __init__(self, ledger: VectorLedger, model: str, context: RunContext) -> None:
        self.ledger, self.model, self.context = ledger, model, context
        self.asked: set[str] = set()
        self.found: set[str] = set()
        self.n_kept = 0
        self.n_spared: Counter[str] = Counter()
        """Chunks by shard that took a vector over, or shared the one of a text with others."""

    def find(self, wanted: pl.DataFrame, dim: int) -> Iterator[Outcome]:
        """The chunks whose text the ledger has a sound vector of."""
        # Sorted, because neighbours lie in the same files.
        texts = wanted["text_hash"].unique().sort()
        for start in range(0, len(texts), LOOKUP_TEXTS):
            hashes = texts.slice(start, LOOKUP_TEXTS).to_list()
            self.asked.update(hashes)
            known = _sound(self.ledger.vectors(self.model, hashes), dim)
            self.found.update(known["text_hash"])
            rows = wanted.join(known, on="text_hash")
            if rows.height:
                self.n_spared.update(rows[SHARD])
                yield Outcome(_rows(rows))

    def still_missing(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """The chunks whose text has to be embedded; of each text all but the first are spared."""
        new = wanted.filter(~pl.col("text_hash").is_in(sorted(self.found)))
        ordered = new.sort(SHARD, "chunk_id")
        self.n_spared.update(ordered.filter(~pl.col("text_hash").is_first_distinct())[SHARD])
        return new

    def keep(self, previous: StageState, changed: StageState) -> None:
        """Give the ledger what the commit will add and it does not have.

        Rows that a killed run had finished come from its checkpoints: nobody asked for their texts.
        """
        added = changed.outputs.join(previous.outputs, on=["chunk_id", "input_hash"], how="anti")
        new = added.filter(~pl.col("text_hash").is_in(sorted(self.found))).unique(
            "text_hash", keep="any"
        )
        unasked = set(new["text_hash"]) - self.asked
        known = sorted(self.ledger.known(self.model, unasked))
        rows = new.filter(~pl.col("text_hash").is_in(known)).select("text_hash", "vector")
        self.ledger.add(self.model, rows, now=self.context.now())
        self.n_kept += rows.height

    def counted(self, shard: str, report: StageReport) -> StageReport:
        """The report with what was spared among the reused."""
        n_spared = min(self.n_spared[shard], report.n_computed)
        return dataclasses.replace(
            report,
            n_computed=report.n_computed - n_spared,
            n_reused=report.n_reused + n_spared,
            n_taken_over=n_spared,
        )


def _sound(known: pl.DataFrame, dim: int) -> pl.DataFrame:
    """The rows whose vector may be used: storage is not trusted with what search depends on."""
    fitting = known.filter(pl.col("vector").list.len() == dim)
    if fitting.is_empty():
        return fitting
    vectors = fitting["vector"].list.to_array(dim).to_numpy()
    problems = pl.Series("problem", validate_vectors(vectors, dim=dim), pl.String)
    return fitting.filter(problems.is_null())


def embedding_inputs(
    workspace: Workspace, embedding_set: str, shards: Sequence[str], tables: Tables
) -> pl.DataFrame:
    """The chunks that are embedded, hashed over all that decides their vectors."""
    chunking, model = workspace.config.embedding_sets()[embedding_set]
    columns = (*COLUMNS, SOURCE_VERSION)
    chunks = good_rows(tables, CHUNKS, shards, columns, chunking=chunking).drop("output_hash")
    return with_input_hash(
        chunks.with_columns(
            pl.lit(embedding_set).alias("embedding_set"),
            pl.lit(chunking).alias("chunking"),
            pl.lit(model).alias("embedding_model"),
            pl.lit(workspace.model_version(model)).alias("embedding_model_version"),
        ),
        model_fingerprint(workspace.embedder(model)),
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


def _new_texts(tables: Tables, chunking: str, new: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """`input_hash`, `text` and `n_tokens` of the new chunks, each text once, a shard at a time."""
    firsts = new.sort(SHARD, "chunk_id").unique("input_hash", keep="first", maintain_order=True)
    for (shard,), wanted in firsts.group_by(SHARD, maintain_order=True):
        rows = good_rows(
            tables,
            CHUNKS,
            [str(shard)],
            ("chunk_id", "text", "n_tokens"),
            where=pl.col("chunk_id").is_in(wanted["chunk_id"].implode()),
            chunking=chunking,
        )
        yield (
            wanted.select("chunk_id", "input_hash")
            .join(rows.drop("output_hash"), on="chunk_id", maintain_order="left")
            .select("input_hash", "text", "n_tokens")
        )


def _embed(
    texts: Iterator[pl.DataFrame], new: pl.DataFrame, embedder: Embedder, stopwatch: Stopwatch
) -> Iterator[Outcome]:
    """Embed the texts, and give every chunk of a text its vector."""
    if new.is_empty():  # the embedder may have to look at its device to name its window
        return
    chunks = new.sort(SHARD, "chunk_id")
    for batch in in_batches(texts, embedder.window_texts):
        with stopwatch.timing(batch["n_tokens"]):
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
