"""What a build of an index version would compute, reuse and cost; nothing durable is computed.

Every stage is asked with the rows that the stage before it would have, by the very comparison that
its run begins with (`core.stages.plan_stage`). Only the chunks of documents that were never split
this way are not known before: those documents are split here, all of them where they are few, else
a seeded sample, from which the totals are estimated with their error.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, CLEAN_DOCUMENTS, EMBEDDINGS, INDEXED_CHUNKS
from ragassets.core.build_costs import (
    POINTS_PER_SECOND,
    Price,
    Rewrite,
    store_bytes,
    table_bytes,
)
from ragassets.core.incremental import with_input_hash
from ragassets.core.sampling import Sample, draw_by_size, estimate_total
from ragassets.core.stages import SHARD, Stage, plan_stage
from ragassets.core.store_locations import parse_location
from ragassets.core.tables import PinnedTables, Tables
from ragassets.queries.json_values import json_value
from ragassets.stages.chunks import chunk_documents, chunk_inputs
from ragassets.stages.embedding_speed import read_speed
from ragassets.stages.embeddings import LOOKUP_TEXTS, model_fingerprint
from ragassets.stages.indexed_chunks import with_point_hash
from ragassets.stages.inputs import good_rows, partitions_of

EXACT_DOCUMENTS = 1_000
"""Documents that are all split: 8 s at 128 documents/s on two cores (docs/benchmarks.md)."""

N_DRAWS = 600
"""Documents drawn of more than that. On the bulk corpus chunks for each character vary by half from
document to document, so the error is about 1.96 * 0.5 / sqrt(600), 4 %."""

SEED = 20_261_122

COLUMNS = ("chunk_id", "document_id", "source", SHARD, "text_hash", "n_tokens")

QUANTITIES = (
    "n_chunks",
    "n_vectors",
    "n_texts",
    "n_tokens",
    "n_points",
    "point_bytes",
    "chunk_rows",
    "vector_rows",
    "point_rows",
    "row_text_bytes",
)
"""What is added up over chunks: new ones, vectors missing in the set, texts to embed, their
tokens, points to write and their text bytes; and the rows of files that are written anew, of
`chunks` (with their text bytes), `embeddings` and `indexed_chunks`."""


@dataclass(frozen=True)
class Work:
    """What a stage would do, in rows of its table."""

    compute: int
    reuse: int
    remove: int


@dataclass(frozen=True)
class Estimate:
    """What the work takes."""

    tokens: int
    """That the model would be given."""
    chunking_seconds: float
    """By the speed of the chunking that this plan has done."""
    embedding_seconds: float
    tokens_per_second: float
    is_speed_measured: bool
    """By earlier runs with this model, else the documented default is assumed."""
    indexing_seconds: float
    """At a speed that is assumed, not measured: `core.build_costs.POINTS_PER_SECOND`."""
    usd: float | None
    """Of the embeddings; None where the configuration names no price."""
    disk_bytes: int
    """That the tables grow by."""
    vector_store_bytes: int
    """Blocks that the embedded engine's files come to take; they look larger, being sparse."""
    sampled_documents: int
    """Documents that stand for all that have to be split; 0 where all of them were split."""
    error_share: float
    """Half of the 95 % confidence interval, as a share of the estimate; 0.0 where all is exact."""


@dataclass(frozen=True)
class IndexPlan:
    """What `ragassets index build` would do now."""

    index_version: str
    documents: int
    """That the version would be made of."""
    documents_to_chunk: int
    chunks: Work
    embeddings: Work
    """`compute` counts texts that the model is given: what the ledger knows is reused."""
    points: Work
    estimate: Estimate

    def as_json(self) -> dict[str, object]:
        """The public shape of DESIGN section 9."""
        return {
            "index_version": self.index_version,
            "documents": self.documents,
            "chunks": {
                **self.chunks.__dict__,
                "documents": {
                    "compute": self.documents_to_chunk,
                    "reuse": self.documents - self.documents_to_chunk,
                },
            },
            "embeddings": json_value(self.embeddings),
            "points": json_value(self.points),
            "estimate": json_value(self.estimate),
        }


def plan_build(workspace: Workspace, index_version: str, *, samples: bool = True) -> IndexPlan:
    """Say what a build would do, from the documents that are there.

    Args:
        workspace: What the tables, the ledger and the vector store hold now.
        index_version: A configured version, whether built or not.
        samples: Estimate from a sample where many documents have to be split; else split all.

    Raises:
        UnknownNameError: There is no version of that name.
        MissingModelError: The model's files are not here: they decide what can be reused.
    """
    return _Planner(workspace, index_version).plan(samples=samples)


class _Planner:
    """One consistent view of the tables, and what follows from it."""

    def __init__(self, workspace: Workspace, index_version: str) -> None:
        self.workspace, self.name = workspace, index_version
        self.version = workspace.config.index_version(index_version)
        self.shards = workspace.config.source_shards()
        self.tables: Tables = PinnedTables(workspace.tables)
        self.embedder = workspace.embedder(self.version.embedding_model)
        self.model = model_fingerprint(self.embedder)

    def plan(self, *, samples: bool) -> IndexPlan:
        """Ask the stages one after the other."""
        documents = chunk_inputs(self.workspace, self.version.chunking, self.shards, self.tables)
        plan = plan_stage(CHUNKS, self._partitions(CHUNKS), documents, tables=self.tables)
        due = documents.filter(pl.col("document_id").is_in(sorted(plan.compute)))
        standing = self._standing(documents, sorted(plan.reuse))
        sample = self._sample(due) if samples and due.height > EXACT_DOCUMENTS else None
        drawn = due if sample is None else due[sorted(set(sample.positions.tolist()))]
        started = time.perf_counter()
        made = self._split(drawn)
        seconds = time.perf_counter() - started
        rows = self._judged(standing, made, is_sampled=sample is not None)
        old = _sums(rows.filter(~pl.col("is_made")))
        new, error_share = _scaled(rows.filter("is_made"), due, sample)
        total = {name: old[name] + new[name] for name in QUANTITIES}
        n_chunks = standing.height + new["n_chunks"]
        share_split = drawn.height / due.height if due.height else 1.0
        unsplit = due["document_id"].to_list() if sample is not None else []

        def work(stage: Stage, n_compute: float) -> Work:
            n_gone = self._superfluous(stage, rows, unsplit)
            return Work(round(n_compute), round(n_chunks - n_compute), n_gone)

        return IndexPlan(
            index_version=self.name,
            documents=documents.height,
            documents_to_chunk=due.height,
            chunks=work(CHUNKS, new["n_chunks"]),
            embeddings=work(EMBEDDINGS, total["n_texts"]),
            points=work(INDEXED_CHUNKS, total["n_points"]),
            estimate=self._estimate(
                total,
                n_standing=round(n_chunks - total["n_points"]),
                n_shards=self._n_shards(rows, due),
                chunking_seconds=seconds / share_split if share_split else 0.0,
                n_sampled=drawn.height if sample is not None else 0,
                error_share=error_share,
            ),
        )

    def _partitions(self, stage: Stage) -> list[dict[str, str]]:
        dimension = {
            CHUNKS.name: {"chunking": self.version.chunking},
            EMBEDDINGS.name: {"embedding_set": self.version.embedding_set},
            INDEXED_CHUNKS.name: {"index_version": self.name},
        }[stage.name]
        return partitions_of(self.shards, **dimension)

    def _standing(self, documents: pl.DataFrame, reused: Sequence[str]) -> pl.DataFrame:
        """Chunks that stay as they are."""
        rows = good_rows(
            self.tables,
            CHUNKS,
            self.shards,
            (*COLUMNS, "start_char", "end_char"),
            where=pl.col("document_id").is_in(list(reused)),
            chunking=self.version.chunking,
        ).with_columns((pl.col("end_char") - pl.col("start_char")).alias("text_bytes"))
        return rows.join(documents, on=["document_id", SHARD], how="semi")

    def _sample(self, due: pl.DataFrame) -> Sample:
        sizes = good_rows(
            self.tables, CLEAN_DOCUMENTS, self.shards, ("document_id", SHARD, "n_chars")
        )
        joined = due.join(sizes, on=["document_id", SHARD], how="left", maintain_order="left")
        return draw_by_size(joined["n_chars"].fill_null(0).to_list(), N_DRAWS, seed=SEED)

    def _split(self, documents: pl.DataFrame) -> pl.DataFrame:
        """The chunks that these documents give, without their texts."""
        kept = [*COLUMNS, "output_hash", "text_bytes"]
        schema = {**CHUNKS.content, "output_hash": pl.String(), "text_bytes": pl.Int64()}
        parts = [pl.DataFrame(schema={name: schema[name] for name in kept})]
        keys, shards = documents["document_id"].to_list(), sorted(set(documents[SHARD]))
        for outcome in chunk_documents(
            self.workspace, self.version.chunking, keys, shards, self.tables
        ):
            size = pl.col("text").str.len_bytes().cast(pl.Int64).alias("text_bytes")
            parts.append(outcome.rows.with_columns(size).select(kept))
        return pl.concat(parts)

    def _judged(
        self, standing: pl.DataFrame, made: pl.DataFrame, *, is_sampled: bool
    ) -> pl.DataFrame:
        """Every chunk with what is still to be done for it, as `QUANTITIES`."""
        rows = pl.concat(
            [
                standing.select(made.columns).with_columns(pl.lit(value=False).alias("is_made")),
                made.with_columns(pl.lit(value=True).alias("is_made")),
            ]
        )
        embedded = with_input_hash(rows, self.model, "text_hash")
        needs_vector = self._needed(EMBEDDINGS, embedded)
        known = self._known(embedded.filter(needs_vector)["text_hash"])
        # Of a sample, a text counts once a document: what the other documents repeat is not known.
        text = ["document_id", "text_hash"] if is_sampled else ["text_hash"]
        is_new = needs_vector & ~pl.col("text_hash").is_in(known)
        is_first = pl.struct(is_new, *text).is_first_distinct()
        pointed = with_point_hash(self.workspace, embedded.rename({"input_hash": "vector_hash"}))
        needs_point = self._needed(INDEXED_CHUNKS, pointed)
        max_tokens = self.embedder.max_tokens
        has_made, missing, unwritten = (
            flag.any().over(SHARD) for flag in (pl.col("is_made"), needs_vector, needs_point)
        )
        return rows.with_columns(
            pl.col("is_made").cast(pl.Int64).alias("n_chunks"),
            needs_vector.cast(pl.Int64).alias("n_vectors"),
            (is_new & is_first).cast(pl.Int64).alias("n_texts"),
            needs_point.cast(pl.Int64).alias("n_points"),
            pl.when(is_new & is_first)
            .then(pl.min_horizontal("n_tokens", pl.lit(max_tokens)))
            .otherwise(0)
            .alias("n_tokens"),
            pl.when(needs_point).then("text_bytes").otherwise(0).alias("point_bytes"),
            has_made.cast(pl.Int64).alias("chunk_rows"),
            missing.cast(pl.Int64).alias("vector_rows"),
            unwritten.cast(pl.Int64).alias("point_rows"),
            pl.when(has_made).then("text_bytes").otherwise(0).alias("row_text_bytes"),
        )

    @staticmethod
    def _n_shards(rows: pl.DataFrame, due: pl.DataFrame) -> int:
        """Source shards whose files are written anew, as far as new rows tell."""
        written = ("chunk_rows", "vector_rows", "point_rows")
        changed = rows.filter(pl.any_horizontal(pl.col(written) > 0))[SHARD]
        return len({*changed, *due[SHARD]})

    def _needed(self, stage: Stage, inputs: pl.DataFrame) -> pl.Expr:
        """Which chunks the stage would compute."""
        plan = plan_stage(stage, self._partitions(stage), inputs, tables=self.tables)
        if stage is INDEXED_CHUNKS and not self._has_collection():
            return pl.lit(value=True)
        return pl.col("chunk_id").is_in(sorted(plan.compute))

    def _has_collection(self) -> bool:
        with self.workspace.vector_store() as store:
            return self.name in store.list_collections()

    def _known(self, text_hashes: pl.Series) -> list[str]:
        """Texts that the ledger has a vector of."""
        known: set[str] = set()
        for part in _slices(text_hashes.unique().sort(), LOOKUP_TEXTS):
            known |= self.workspace.ledger.known(self.model, part.to_list())
        return sorted(known)

    def _superfluous(self, stage: Stage, rows: pl.DataFrame, unsplit: Sequence[str]) -> int:
        """Rows of the stage that the build would remove; of a sample, those of gone documents."""
        places = ["chunk_id", SHARD]
        present = self.tables.read(
            stage.outputs, self._partitions(stage), columns=[*places, "document_id"]
        )
        gone = present.join(rows, on=places, how="anti")
        return gone.filter(~pl.col("document_id").is_in(list(unsplit))).height

    def _estimate(
        self,
        total: dict[str, float],
        *,
        n_standing: int,
        n_shards: int,
        chunking_seconds: float,
        n_sampled: int,
        error_share: float,
    ) -> Estimate:
        config, name = self.workspace.config, self.version.embedding_model
        model, prices = config.embedding_model(name), config.prices
        speed = read_speed(self.tables, self.model)
        seconds = total["n_tokens"] / speed.tokens_per_second
        is_local = model.provider == "sentence-transformers"
        price = Price(
            prices.usd_per_million_tokens.get(name), prices.usd_per_gpu_hour if is_local else None
        )
        cost = price.of(total["n_tokens"], seconds)
        return Estimate(
            tokens=round(total["n_tokens"]),
            chunking_seconds=round(chunking_seconds, 1),
            embedding_seconds=round(seconds, 1),
            indexing_seconds=round(total["n_points"] / POINTS_PER_SECOND, 1),
            tokens_per_second=round(speed.tokens_per_second, 1),
            is_speed_measured=speed.is_measured,
            usd=None if cost is None else round(cost, 4),
            disk_bytes=table_bytes(
                Rewrite(
                    n_chunks=total["chunk_rows"],
                    n_vectors=total["vector_rows"],
                    n_points=total["point_rows"],
                    n_texts=total["n_texts"],
                    n_new_points=total["n_points"],
                    text_bytes=total["row_text_bytes"],
                    n_shards=n_shards,
                    dim=model.dim,
                )
            ),
            vector_store_bytes=store_bytes(
                kind=parse_location(config.vector_store).kind,
                n_points=total["n_points"],
                n_standing=n_standing,
                text_bytes=total["point_bytes"],
                dim=model.dim,
                has_sparse=self.workspace.collection_config(self.name).sparse is not None,
            ),
            sampled_documents=n_sampled,
            error_share=round(error_share, 4),
        )


def _slices(values: pl.Series, size: int) -> Iterator[pl.Series]:
    for start in range(0, len(values), size):
        yield values.slice(start, size)


def _sums(rows: pl.DataFrame) -> dict[str, float]:
    return {name: float(rows[name].sum()) for name in QUANTITIES}


def _scaled(
    made: pl.DataFrame, due: pl.DataFrame, sample: Sample | None
) -> tuple[dict[str, float], float]:
    """The sums over all documents to split, and the largest error of what costs, as a share."""
    if sample is None:
        return _sums(made), 0.0
    by_document = made.group_by("document_id").agg(pl.col(QUANTITIES).sum())
    drawn = due[sample.positions.tolist()].select("document_id")
    values = drawn.join(by_document, on="document_id", how="left", maintain_order="left").fill_null(
        0
    )
    totals = {name: estimate_total(values[name].to_list(), sample) for name in QUANTITIES}
    errors = [
        total.error / total.value
        for name, total in totals.items()
        if total.value and name in ("n_chunks", "n_texts", "n_tokens", "n_points")
    ]
    return {name: total.value for name, total in totals.items()}, max(errors, default=0.0)
