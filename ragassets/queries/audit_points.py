"""Tables against collections, in both directions: ids, payloads, vectors.

Points are scrolled, never held: memory grows with the ids of one index version's table (about
250 bytes a chunk), vectors are read a few thousand at a time.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import EMBEDDINGS, INDEX_INTENTS, INDEXED_CHUNKS
from ragassets.core.embedding import validate_vectors
from ragassets.core.indexing import GivesVectors, VectorStore
from ragassets.core.stages import SHARD
from ragassets.queries.audit_findings import Finding, Thing, finding, row_things

VECTORS_PER_LOOK = 2_000
"""3 MB of vectors at 384 dimensions."""

VECTOR_TOLERANCE = 1e-3
"""Of a component of a unit vector: engines normalize and store float32, which moves the last
digits; vectors of two texts differ by a hundred times more."""

Things = defaultdict[str, list[Thing]]


def audit_points(workspace: Workspace) -> Iterator[Finding]:
    """Compare every version that either side has."""
    found: Things = defaultdict(list)
    indexed = workspace.tables.read(INDEXED_CHUNKS.outputs, columns=["index_version"])
    with workspace.vector_store() as store:
        collections = store.list_collections()
    for name in sorted({*collections, *indexed["index_version"].unique()}):
        # A session for each: an embedded store has one owner, and searches wait for it.
        with workspace.vector_store() as store:
            _compare_points(workspace, store, name, found, is_there=name in collections)
        if name in collections and name in workspace.config.index_versions:
            _compare_vectors(workspace, name, found)
    for check in ("orphan_points", "missing_points", "stale_points", "wrong_vectors"):
        yield finding(check, found[check])
    yield finding("unsound_vectors", _unsound_vectors(workspace))
    yield _leftover_intents(workspace)


def _compare_points(
    workspace: Workspace, store: VectorStore, name: str, found: Things, *, is_there: bool
) -> None:
    rows = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{"index_version": name}],
        columns=["point_id", "payload_hash", "document_id", SHARD],
    )
    expected = {row[0]: row for row in rows.iter_rows()}

    def thing(point_id: str, document_id: str, shard: str = "") -> Thing:
        return Thing(f"{name}/{point_id}", point_id, document_id, shard, name)

    for point in store.scroll(name) if is_there else ():
        row = expected.pop(point.point_id, None)
        if row is None:
            found["orphan_points"].append(thing(point.point_id, point.document_id))
        elif row[1] != point.payload_hash:
            found["stale_points"].append(thing(point.point_id, row[2], row[3]))
    found["missing_points"] += [thing(key, row[2], row[3]) for key, row in expected.items()]


def _compare_vectors(workspace: Workspace, name: str, found: Things) -> None:
    """The vectors of a version's points against those that were embedded."""
    version = workspace.config.index_version(name)
    dim = workspace.config.embedding_model(version.embedding_model).dim
    shards = workspace.tables.read(
        INDEXED_CHUNKS.outputs, [{"index_version": name}], columns=[SHARD]
    )
    for shard in shards[SHARD].unique().sort():
        rows = _points_with_vectors(workspace, name, shard)
        rows = rows.filter(pl.col("vector").list.len() == dim)
        for part in rows.iter_slices(VECTORS_PER_LOOK):
            wanted = part["vector"].list.to_array(dim).to_numpy()
            with workspace.vector_store() as store:
                if not isinstance(store, GivesVectors):
                    return
                stored = store.vectors(name, part["point_id"].to_list())
            wrong = _differing(part["point_id"].to_list(), wanted, stored)
            found["wrong_vectors"] += [
                Thing(f"{name}/{row[0]}", row[0], row[1], shard, name)
                for row in part.select("point_id", "document_id").iter_rows()
                if row[0] in wrong
            ]


def _points_with_vectors(workspace: Workspace, name: str, shard: str) -> pl.DataFrame:
    """Point id, document and embedded vector of a version's chunks in a shard.

    Only of points that were written from the embedding of now: what is not indexed yet is no
    damage, and is counted elsewhere.
    """
    embedding_set = workspace.config.index_version(name).embedding_set
    points = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{SHARD: shard, "index_version": name}],
        columns=["chunk_id", "point_id", "document_id"],
    )
    vectors = workspace.tables.read(
        EMBEDDINGS.outputs,
        [{SHARD: shard, "embedding_set": embedding_set}],
        columns=["chunk_id", "vector"],
    )
    return points.join(vectors, on="chunk_id")


def _differing(
    point_ids: Sequence[str],
    wanted: NDArray[np.float32],
    stored: Mapping[str, NDArray[np.float32]],
) -> set[str]:
    """Points whose direction is another one; lengths depend on the distance's normalization."""
    known = [row for row, name in enumerate(point_ids) if name in stored]
    if not known:
        return set()
    dim = wanted.shape[1]
    odd = {point_ids[row] for row in known if stored[point_ids[row]].shape != (dim,)}
    known = [row for row in known if point_ids[row] not in odd]
    if not known:
        return odd
    names = [point_ids[row] for row in known]
    there = np.stack([stored[name] for name in names])
    gap = np.abs(_unit(there) - _unit(wanted[known])).max(axis=1)
    # Written so that NaN counts as different.
    is_same = gap <= VECTOR_TOLERANCE
    return odd | {name for name, same in zip(names, is_same, strict=True) if not same}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norms > 0, norms, 1)


def _unsound_vectors(workspace: Workspace) -> Iterator[Thing]:
    """Embeddings that no collection may hold."""
    models = {name: model for name, (_, model) in workspace.config.embedding_sets().items()}
    places = workspace.tables.read(EMBEDDINGS.outputs, columns=[SHARD, "embedding_set"]).unique()
    for shard, name in sorted(places.select(SHARD, "embedding_set").iter_rows()):
        if name not in models:
            continue
        dim = workspace.config.embedding_model(models[name]).dim
        rows = workspace.tables.read(
            EMBEDDINGS.outputs,
            [{SHARD: shard, "embedding_set": name}],
            columns=["chunk_id", "document_id", SHARD, "embedding_set", "vector"],
        )
        fitting = rows.filter(pl.col("vector").list.len() == dim)
        vectors = fitting["vector"].list.to_array(dim).to_numpy()
        problems = pl.Series("problem", validate_vectors(vectors, dim=dim), pl.String)
        sound = fitting.filter(problems.is_null())
        unsound = rows.drop("vector").join(sound.select("chunk_id"), on="chunk_id", how="anti")
        yield from row_things(unsound, "chunk_id", under="embedding_set")


def _leftover_intents(workspace: Workspace) -> Finding:
    columns = ["index_version", "point_id", SHARD]
    intents = workspace.tables.read(INDEX_INTENTS, columns=columns)
    return finding(
        "leftover_intents",
        [
            Thing(f"{name}/{point_id}", point_id, shard=shard, under=name)
            for name, point_id, shard in intents.select(columns).iter_rows()
        ],
    )
