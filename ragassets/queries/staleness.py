"""What a build of an index version would still do, by comparing tables; nothing is computed."""

from dataclasses import dataclass

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEXED_CHUNKS
from ragassets.core.fingerprints import fingerprint
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import SHARD, Stage
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.stages.inputs import good_rows, partitions_of, with_source_input_hash


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
    points: pl.DataFrame
    """`chunk_id` and `output_hash` of the indexed rows: what a seal is made over."""


def read_version_rows(workspace: Workspace, index_version: str) -> VersionRows:
    """Count the rows of a configured index version, and how many of them are stale."""
    config = workspace.config
    version, shards = config.index_version(index_version), config.source_shards()
    chunks = good_rows(workspace.tables, CHUNKS, shards, ("chunk_id",), chunking=version.chunking)
    embedded = good_rows(
        workspace.tables,
        EMBEDDINGS,
        shards,
        ("chunk_id", "source"),
        embedding_set=version.embedding_set,
    ).rename({"output_hash": "vector_hash"})
    indexed = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        partitions_of(shards, index_version=index_version),
        columns=["chunk_id", "document_id", "input_hash", "output_hash"],
    )
    given_up = pl.concat(
        [
            _given_up(workspace, EMBEDDINGS, shards, embedding_set=version.embedding_set),
            _given_up(workspace, INDEXED_CHUNKS, shards, index_version=index_version),
        ]
    )
    unembedded = chunks.join(embedded, on="chunk_id", how="anti")
    wanted = with_source_input_hash(
        embedded.join(chunks, on="chunk_id"), _fingerprints(workspace), "output_hash", "vector_hash"
    )
    unindexed = wanted.join(indexed, on=["chunk_id", "input_hash"], how="anti")
    missing = pl.concat([unembedded.select("chunk_id"), unindexed.select("chunk_id")])
    superfluous = indexed.join(embedded, on="chunk_id", how="anti")
    return VersionRows(
        n_documents=indexed["document_id"].n_unique(),
        n_chunks=chunks.height,
        n_embeddings=embedded.height,
        n_indexed=indexed.height,
        n_stale=missing.join(given_up, on="chunk_id", how="anti").height + superfluous.height,
        points=indexed.select("chunk_id", "output_hash"),
    )


def _fingerprints(workspace: Workspace) -> dict[str, str]:
    """What `stages/indexed_chunks.py` hashes of every source besides chunk and vector."""
    return {
        name: fingerprint(
            {
                "stage": INDEXED_CHUNKS.name,
                "version": STAGE_VERSIONS[INDEXED_CHUNKS.name],
                "metadata": dict(source.metadata),
                "acl": list(source.acl),
            }
        )
        for name, source in workspace.config.sources.items()
    }


def _given_up(
    workspace: Workspace, stage: Stage, shards: list[str], **dimension: str
) -> pl.DataFrame:
    """Chunks that the stage will not try again by itself."""
    return workspace.tables.read(
        stage.failures,
        [{SHARD: shard, **dimension} for shard in shards],
        columns=["chunk_id"],
        where=~pl.col("is_transient") | (pl.col("attempts") >= MAX_TRANSIENT_ATTEMPTS),
    )
