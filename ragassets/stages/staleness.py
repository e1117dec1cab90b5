"""What a build of an index version would still do, by comparing tables; nothing is computed."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEXED_CHUNKS
from ragassets.core.fingerprints import data_version
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import SHARD, Stage
from ragassets.core.tables import Tables
from ragassets.stages.chunks import chunk_inputs
from ragassets.stages.embeddings import embedding_inputs
from ragassets.stages.indexed_chunks import read_upstream
from ragassets.stages.inputs import partitions_of

SHARDS_NAMED = 3
"""A line that names a thousand shards says less than one that names three."""


@dataclass(frozen=True)
class VersionRows:
    """What the tables hold for one index version."""

    n_documents: int
    n_chunks: int
    n_embeddings: int
    n_indexed: int
    n_stale: int
    """Chunks without embedding, embeddings that are not indexed as they are now, indexed chunks
    that nothing wants any more. What was given up as a dead letter does not count."""
    stale_by_shard: Mapping[str, int]
    """The same, by source shard."""
    content_version: str
    """Hash of the indexed rows: what a seal is made over."""


@dataclass(frozen=True)
class Gap:
    """Something that a version lacks, and where."""

    problem: str
    by_shard: Mapping[str, int]
    """How often, by source shard; never empty."""

    def describe(self) -> str:
        """One line for people: how many in all, and in which shards."""
        shards = sorted(self.by_shard)
        named = ", ".join(shards[:SHARDS_NAMED])
        rest = f" and {len(shards) - SHARDS_NAMED} more" if len(shards) > SHARDS_NAMED else ""
        return f"{sum(self.by_shard.values())} {self.problem}, in {named}{rest}"


def read_version_rows(workspace: Workspace, index_version: str, tables: Tables) -> VersionRows:
    """Count the rows of a configured index version, and how many of them are stale."""
    config = workspace.config
    version, shards = config.index_version(index_version), config.source_shards()
    upstream = read_upstream(workspace, index_version, shards, tables)
    rows = tables.read(
        INDEXED_CHUNKS.outputs,
        # Of all shards: points of a removed source stay searchable until that is confirmed.
        [{"index_version": index_version}],
        columns=["chunk_id", "document_id", SHARD, "input_hash", "output_hash"],
    )
    indexed = rows.filter(pl.col(SHARD).is_in(shards))
    given_up = pl.concat(
        [
            _given_up(tables, EMBEDDINGS, shards, embedding_set=version.embedding_set),
            _given_up(tables, INDEXED_CHUNKS, shards, index_version=index_version),
        ]
    )
    unembedded = upstream.chunks.join(upstream.embedded, on="chunk_id", how="anti")
    unindexed = upstream.wanted.join(indexed, on=["chunk_id", "input_hash"], how="anti")
    places = ["chunk_id", SHARD]
    missing = pl.concat([unembedded.select(places), unindexed.select(places)])
    superfluous = indexed.join(upstream.embedded, on="chunk_id", how="anti")
    stale = pl.concat(
        [missing.join(given_up, on="chunk_id", how="anti"), superfluous.select(places)]
    )
    return VersionRows(
        n_documents=indexed["document_id"].n_unique(),
        n_chunks=upstream.chunks.height,
        n_embeddings=upstream.embedded.height,
        n_indexed=indexed.height,
        n_stale=stale.height,
        stale_by_shard=count_by_shard(stale),
        content_version=data_version(rows.select("chunk_id", "output_hash").iter_rows()),
    )


def _given_up(tables: Tables, stage: Stage, shards: list[str], **dimension: str) -> pl.DataFrame:
    """Chunks that the stage will not try again by itself."""
    return tables.read(
        stage.failures,
        partitions_of(shards, **dimension),
        columns=["chunk_id"],
        where=~pl.col("is_transient") | (pl.col("attempts") >= MAX_TRANSIENT_ATTEMPTS),
    )


def count_by_shard(rows: pl.DataFrame) -> dict[str, int]:
    """Rows of each source shard that has some, by its name."""
    return dict(sorted(rows[SHARD].value_counts().iter_rows()))


def describe_unfinished_work(workspace: Workspace, index_version: str, tables: Tables) -> list[str]:
    """What a build would still do to a version, in words; nothing when it is up to date."""
    return [gap.describe() for gap in find_unfinished_work(workspace, index_version, tables)]


def find_unfinished_work(workspace: Workspace, index_version: str, tables: Tables) -> list[Gap]:
    """What a build would still do to a version, shard by shard; nothing when it is up to date.

    Unlike `read_version_rows` it needs the tokenizer and the model's files, to hash them.
    """
    version = workspace.config.index_version(index_version)
    shards = workspace.config.source_shards()
    documents = chunk_inputs(workspace, version.chunking, shards, tables)
    chunks = embedding_inputs(workspace, version.embedding_set, shards, tables)
    unchunked = _unsettled(tables, CHUNKS, documents, shards, chunking=version.chunking)
    unembedded = _unsettled(tables, EMBEDDINGS, chunks, shards, embedding_set=version.embedding_set)
    chunked = tables.read(
        CHUNKS.outputs,
        partitions_of(shards, chunking=version.chunking),
        columns=["document_id", SHARD],
    )
    gone = chunked.unique().join(documents, on=["document_id", SHARD], how="anti")
    stale = read_version_rows(workspace, index_version, tables).stale_by_shard
    gaps = [
        Gap("documents are not chunked as they are now", count_by_shard(unchunked)),
        Gap("documents are gone or duplicates, and still chunked", count_by_shard(gone)),
        Gap("chunks are not embedded as they are now", count_by_shard(unembedded)),
        Gap("chunks are not indexed as they are now", stale if unembedded.is_empty() else {}),
    ]
    return [gap for gap in gaps if gap.by_shard]


def _unsettled(
    tables: Tables, stage: Stage, inputs: pl.DataFrame, shards: list[str], **dimension: str
) -> pl.DataFrame:
    """Inputs that the stage has neither turned into output nor failed on, as they are now."""
    places = [stage.key, SHARD, "input_hash"]
    partitions = partitions_of(shards, **dimension)
    made = tables.read(stage.outputs, partitions, columns=places)
    failed = tables.read(
        stage.failures, partitions, columns=[stage.key, SHARD, "failed_input_hash"]
    ).rename({"failed_input_hash": "input_hash"})
    return inputs.join(pl.concat([made, failed]), on=places, how="anti")
