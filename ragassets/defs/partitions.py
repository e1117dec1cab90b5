"""Partitions and their mappings, all derived from the configuration.

A source shard is the first dimension of everything; chunkings, embedding sets and index versions
are the second one. A new entry in the configuration is a new key, hence missing partitions: the
backfill.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from ragassets.config import Config

SHARD, CHUNKING, EMBEDDING_SET, INDEX_VERSION = (
    "source_shard",
    "chunking",
    "embedding_set",
    "index_version",
)


@dataclass(frozen=True)
class Partitions:
    """Every partitions definition and mapping of the graph."""

    shards: dg.StaticPartitionsDefinition
    chunks: dg.MultiPartitionsDefinition
    embeddings: dg.MultiPartitionsDefinition
    indexed_chunks: dg.MultiPartitionsDefinition
    index_versions: dg.StaticPartitionsDefinition
    chunks_to_embeddings: dg.MultiPartitionMapping
    embeddings_to_indexed_chunks: dg.MultiPartitionMapping
    shard_dimension: dg.MultiToSingleDimensionPartitionMapping
    """Between one shard and all keys of a two-dimensional asset that have it."""
    index_version_dimension: dg.MultiToSingleDimensionPartitionMapping


def build_partitions(config: Config) -> Partitions:
    """Derive the partitions from the configuration."""
    shards = dg.StaticPartitionsDefinition(config.source_shards())
    sets, versions = config.embedding_sets(), config.index_versions

    def with_shards(dimension: str, keys: Iterable[str]) -> dg.MultiPartitionsDefinition:
        return dg.MultiPartitionsDefinition(
            {SHARD: shards, dimension: dg.StaticPartitionsDefinition(list(keys))}
        )

    return Partitions(
        shards=shards,
        chunks=with_shards(CHUNKING, config.chunkings),
        embeddings=with_shards(EMBEDDING_SET, sets),
        indexed_chunks=with_shards(INDEX_VERSION, versions),
        index_versions=dg.StaticPartitionsDefinition(list(versions)),
        chunks_to_embeddings=_same_shard(
            CHUNKING, EMBEDDING_SET, ((chunking, name) for name, (chunking, _) in sets.items())
        ),
        embeddings_to_indexed_chunks=_same_shard(
            EMBEDDING_SET,
            INDEX_VERSION,
            ((version.embedding_set, name) for name, version in versions.items()),
        ),
        shard_dimension=dg.MultiToSingleDimensionPartitionMapping(SHARD),
        index_version_dimension=dg.MultiToSingleDimensionPartitionMapping(INDEX_VERSION),
    )


def _same_shard(
    upstream: str, downstream: str, pairs: Iterable[tuple[str, str]]
) -> dg.MultiPartitionMapping:
    """The same shard on both sides; in the second dimension, an upstream key feeds several."""
    keys: dict[str, set[str]] = {}
    for upstream_key, downstream_key in pairs:
        keys.setdefault(upstream_key, set()).add(downstream_key)
    return dg.MultiPartitionMapping(
        {
            SHARD: dg.DimensionPartitionMapping(SHARD, dg.IdentityPartitionMapping()),
            upstream: dg.DimensionPartitionMapping(downstream, dg.StaticPartitionMapping(keys)),
        }
    )
