"""Whether a version is whole and sound, shard by shard; how good it is is measured elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    EMBEDDINGS,
    INDEXED_CHUNKS,
    SOURCE_OBJECTS,
    STAGES,
)
from ragassets.core.embedding import validate_vectors
from ragassets.core.indexing import VectorStore, point_id
from ragassets.core.stages import SHARD, Stage
from ragassets.core.tables import Tables
from ragassets.stages.inputs import partitions_of
from ragassets.stages.staleness import Gap, count_by_shard, find_unfinished_work

Check = Literal["completeness", "counts", "vectors"]

POINTS_PER_LOOK = 10_000
"""Ids in one question to the vector store."""


@dataclass(frozen=True)
class Problem:
    """Something that keeps a version from being sealed."""

    check: Check
    text: str
    """One line for people."""
    what: str = ""
    by_shard: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often, by source shard; empty where no shard is to blame."""


def problem(check: Check, gap: Gap) -> Problem:
    """A gap that a check found."""
    return Problem(check, gap.describe(), gap.problem, gap.by_shard)


def find_incomplete(
    workspace: Workspace, index_version: str, tables: Tables
) -> tuple[list[Problem], int]:
    """What the version lacks, and how many dead letters it leaves out."""
    failures = pl.concat(
        [
            tables.read(stage.failures, [dimension], columns=[SHARD, "is_transient"])
            for stage, dimension in _own_stages(workspace, index_version)
        ]
    )
    gaps = find_unfinished_work(workspace, index_version, tables)
    pending = failures.filter("is_transient")
    if pending.height:
        gaps.append(Gap("failures are still to be tried again", count_by_shard(pending)))
    return [problem("completeness", gap) for gap in gaps], failures.height


def find_unequal_counts(
    store: VectorStore, index_version: str, tables: Tables, n_rows: int
) -> tuple[list[Problem], int]:
    """What differs between the collection and its table, and how many points there are.

    The shards are looked at one at a time, and only when the totals differ.
    """
    is_there = index_version in store.list_collections()
    n_points = store.count(index_version) if is_there else 0
    if n_points == n_rows:
        return [], n_points
    total = Problem("counts", f"the collection holds {n_points} points, its table {n_rows}")
    if not is_there:
        return [total], n_points
    missing = _missing_points(store, index_version, tables)
    n_foreign = n_points - (n_rows - sum(missing.values()))
    problems = [total]
    if missing:
        gap = Gap("points of the table are not in the collection", missing)
        problems.append(problem("counts", gap))
    if n_foreign:
        problems.append(Problem("counts", f"{n_foreign} points of the collection are in no table"))
    return problems, n_points


def _missing_points(store: VectorStore, index_version: str, tables: Tables) -> dict[str, int]:
    """Rows without a point, by source shard."""
    spec, dimension = INDEXED_CHUNKS.outputs, {"index_version": index_version}
    shards = tables.read(spec, [dimension], columns=[SHARD])[SHARD].unique().sort()
    missing: dict[str, int] = {}
    for shard in shards:
        rows = tables.read(spec, [{SHARD: shard, **dimension}], columns=["point_id"])
        n_found = sum(
            len(store.retrieve(index_version, part["point_id"].to_list()))
            for part in rows.iter_slices(POINTS_PER_LOOK)
        )
        if n_found < rows.height:
            missing[shard] = rows.height - n_found
    return missing


def read_vectors(
    workspace: Workspace, index_version: str, tables: Tables, sampled: frozenset[str]
) -> tuple[list[Problem], dict[str, NDArray[np.float32]]]:
    """Look at every vector of the version's embedding set, one shard at a time.

    Args:
        workspace: Whose configuration says what the vectors must be.
        index_version: The version.
        tables: Where the vectors are read.
        sampled: Chunks whose vectors are wanted.

    Returns:
        What is wrong, and the (dim,) float32 vector of every sampled chunk by its point id.
    """
    version = workspace.config.index_version(index_version)
    dim = workspace.config.embedding_model(version.embedding_model).dim
    wrong: dict[str, int] = {}
    unsound: dict[str, int] = {}
    sample: dict[str, NDArray[np.float32]] = {}
    for shard in workspace.config.source_shards():  # one at a time: all vectors may be gigabytes
        rows = tables.read(
            EMBEDDINGS.outputs,
            partitions_of([shard], embedding_set=version.embedding_set),
            columns=["chunk_id", "vector"],
        )
        fitting = rows.filter(pl.col("vector").list.len() == dim)
        vectors = fitting["vector"].list.to_array(dim).to_numpy()
        n_unsound = sum(found is not None for found in validate_vectors(vectors, dim=dim))
        wrong |= {shard: rows.height - fitting.height} if fitting.height < rows.height else {}
        unsound |= {shard: n_unsound} if n_unsound else {}
        for chunk_id, vector in zip(fitting["chunk_id"], vectors, strict=True):
            if chunk_id in sampled:
                sample[point_id(chunk_id)] = vector.copy()
    gaps = [Gap(f"vectors do not have dimension {dim}", wrong), Gap("vectors are unsound", unsound)]
    return [problem("vectors", gap) for gap in gaps if gap.by_shard], sample


def dead_letter_share(workspace: Workspace, index_version: str, tables: Tables) -> float | None:
    """Share of the sources' documents that have a dead letter on the way into this version.

    None where the sources hold no documents.
    """
    shards = partitions_of(workspace.config.source_shards())
    objects = tables.read(SOURCE_OBJECTS, shards, columns=["document_id", "is_deleted"])
    alive = objects.filter(~pl.col("is_deleted"))["document_id"]
    if alive.is_empty():
        return None
    failed = pl.concat(
        [
            *(_failed_documents(tables, stage) for stage in STAGES if stage.has_inline_failures),
            *(
                _failed_documents(tables, stage, dimension)
                for stage, dimension in _own_stages(workspace, index_version)
            ),
        ]
    )
    return len(set(alive) & set(failed["document_id"])) / alive.len()


def _failed_documents(
    tables: Tables, stage: Stage, dimension: Mapping[str, str] | None = None
) -> pl.DataFrame:
    return tables.read(
        stage.outputs if stage.has_inline_failures else stage.failures,
        [dimension] if dimension else None,
        columns=["document_id"],
        where=pl.col("failed_input_hash").is_not_null(),
    )


def _own_stages(workspace: Workspace, index_version: str) -> list[tuple[Stage, dict[str, str]]]:
    """The stages that work for a version, each with its dimension's key."""
    version = workspace.config.index_version(index_version)
    return [
        (CHUNKS, {"chunking": version.chunking}),
        (EMBEDDINGS, {"embedding_set": version.embedding_set}),
        (INDEXED_CHUNKS, {"index_version": index_version}),
    ]
