"""What dropping index versions would remove, with sizes; nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEXED_CHUNKS
from ragassets.core.build_costs import Rewrite, store_bytes, table_bytes
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.stages import SHARD
from ragassets.core.store_locations import parse_location
from ragassets.queries.json_values import json_value
from ragassets.stages.dropped_versions import read_drops
from ragassets.stages.dropping import check_droppable, composition, needed_compositions


@dataclass(frozen=True)
class PlannedDrop:
    """What goes with one version."""

    index_version: str
    is_dropped: bool
    """Whether it was dropped already, to the last row."""
    points: int
    indexed_chunks: int
    embeddings: int
    """0 where another version needs them."""
    chunks: int
    vector_store_bytes: int
    """By rule of thumb, like all bytes: see `ragassets index plan`."""
    disk_bytes: int
    """Of the tables. Vectors stay in the vector ledger for `ledger.keep_days`."""

    def as_json(self) -> dict[str, object]:
        """The public shape."""
        return cast("dict[str, object]", json_value(self))


def plan_drops(
    workspace: Workspace, index_versions: Sequence[str], now: datetime, *, is_now: bool, reason: str
) -> list[PlannedDrop]:
    """What dropping these versions together would remove.

    Raises:
        ConfigurationError: `is_now` without a reason.
        IndexVersionError: An alias uses one of them, or served it within the retention time.
        UnknownNameError: Nothing is known of one of them.
    """
    gone: list[str] = []
    planned: list[PlannedDrop] = []
    for name in index_versions:
        check_droppable(workspace, name, now, is_now=is_now, reason=reason)
        before = needed_compositions(workspace, without=gone)
        gone.append(name)
        after = needed_compositions(workspace, without=gone)
        planned.append(_plan(workspace, name, before, after))
    return planned


Needed = tuple[set[str], set[str]]
"""Chunkings and embedding sets."""


def _plan(workspace: Workspace, index_version: str, before: Needed, after: Needed) -> PlannedDrop:
    chunking, embedding_set = composition(workspace, index_version)
    drop = read_drops(workspace.tables).get(index_version)
    indexed = workspace.tables.read(
        INDEXED_CHUNKS.outputs, [{"index_version": index_version}], columns=["chunk_id", SHARD]
    )
    chunks = workspace.tables.read(
        CHUNKS.outputs,
        [{"chunking": chunking}] if chunking else [],
        columns=["chunk_id", "start_char", "end_char"],
    ).with_columns((pl.col("end_char") - pl.col("start_char")).alias("text_bytes"))
    goes = chunking in before[0] - after[0]
    n_embeddings = 0
    if embedding_set and embedding_set in before[1] - after[1]:
        partitions = [{"embedding_set": embedding_set}]
        rows = workspace.tables.read(EMBEDDINGS.outputs, partitions, columns=["chunk_id"])
        n_embeddings = rows.height
    n_points, collection = _collection(workspace, index_version)
    dim = collection.dim if collection else 0
    return PlannedDrop(
        index_version=index_version,
        is_dropped=drop is not None and drop.state == "dropped",
        points=n_points,
        indexed_chunks=indexed.height,
        embeddings=n_embeddings,
        chunks=chunks.height if goes else 0,
        vector_store_bytes=store_bytes(
            kind=parse_location(workspace.config.vector_store).kind,
            n_points=n_points,
            n_standing=0,
            text_bytes=int(chunks.join(indexed, on="chunk_id", how="semi")["text_bytes"].sum()),
            dim=dim,
            has_sparse=collection is not None and collection.sparse is not None,
        ),
        disk_bytes=table_bytes(
            Rewrite(
                n_chunks=chunks.height if goes else 0,
                n_vectors=n_embeddings,
                n_points=indexed.height,
                n_texts=0,
                n_new_points=0,
                text_bytes=int(chunks["text_bytes"].sum()) if goes else 0,
                n_shards=indexed[SHARD].n_unique(),
                dim=dim,
            )
        ),
    )


def _collection(workspace: Workspace, index_version: str) -> tuple[int, CollectionConfig | None]:
    """How many points the collection has, and what it was made with; none where it is gone."""
    with workspace.vector_store() as store:
        if index_version not in store.list_collections():
            return 0, None
        return store.count(index_version), store.collection_config(index_version)
