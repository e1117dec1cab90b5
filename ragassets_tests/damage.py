"""Damages that people and machines do to a project behind the engine's back, done for real."""

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import polars as pl

from ragassets.core.asset_tables import (
    CHUNKS,
    DEAD_LETTERS,
    EMBEDDINGS,
    INDEX_INTENTS,
    INDEXED_CHUNKS,
    RAW_DOCUMENTS,
)
from ragassets.core.indexing import PointBatch, point_id
from ragassets.core.stages import SHARD, Stage
from ragassets.core.tables import TableSpec
from ragassets_tests.points import payload_of
from ragassets_tests.scenario import Project

FOREIGN_CHUNK = "f" * 32

Damage = Callable[[Project, random.Random], None]


def rewrite(project: Project, spec: TableSpec, change: Callable[[pl.DataFrame], pl.DataFrame]):
    """Change all rows of a table without telling anybody."""
    tables = project.workspace.tables
    snapshot = tables.snapshot(spec)
    rows = tables.read_at(snapshot)
    places = rows.select(spec.partition_by).unique().to_dicts()
    if places:
        tables.replace(snapshot, places, change(rows))


def drop_some(project: Project, spec: TableSpec, dice: random.Random) -> None:
    """Delete one to three rows."""
    rows = project.rows(spec)
    if rows.is_empty():
        return
    ordered = sorted(rows[spec.key].to_list())
    lost = dice.sample(ordered, min(len(ordered), dice.randint(1, 3)))
    rewrite(project, spec, lambda frame: frame.filter(~pl.col(spec.key).is_in(lost)))


def some_points(project: Project, dice: random.Random) -> list[str]:
    """Ids of one to three points."""
    ids = sorted(project.rows(INDEXED_CHUNKS.outputs)["point_id"])
    return dice.sample(ids, min(len(ids), dice.randint(1, 3)))


def lost_points(project: Project, dice: random.Random) -> None:
    """Delete points from the collection."""
    with project.workspace.vector_store() as store:
        store.delete("v1", some_points(project, dice))
        store.flush("v1")


def write_points(project: Project, chunk_ids: list[str], text: str) -> None:
    """Write points that no table knows like this."""
    payloads = [payload_of(text, chunk_id=chunk_id) for chunk_id in chunk_ids]
    dim = project.config.embedding_model("minilm").dim
    vectors = np.full((len(chunk_ids), dim), dim**-0.5, np.float32)
    with project.workspace.vector_store() as store:
        store.upsert("v1", PointBatch([point_id(c) for c in chunk_ids], vectors, payloads))
        store.flush("v1")


def foreign_points(project: Project, dice: random.Random) -> None:
    """Add points of no chunk."""
    write_points(project, [f"{dice.getrandbits(128):032x}" for _ in range(2)], "a foreign text")


def changed_points(project: Project, dice: random.Random) -> None:
    """Give points another payload and vector."""
    wanted = some_points(project, dice)
    rows = project.rows(INDEXED_CHUNKS.outputs, pl.col("point_id").is_in(wanted))
    write_points(project, rows["chunk_id"].to_list(), "another text under the same id")


def changed_vectors(project: Project, dice: random.Random) -> None:
    """Turn vectors in the table of embeddings around."""
    chosen = dice.choice(sorted(project.rows(EMBEDDINGS.outputs)["chunk_id"]))
    is_chosen = pl.col("chunk_id") == chosen
    turned = pl.col("vector").list.eval(-pl.element())
    new = pl.when(is_chosen).then(turned).otherwise(pl.col("vector")).alias("vector")
    rewrite(project, EMBEDDINGS.outputs, lambda rows: rows.with_columns(new))


def unsound_vectors(project: Project, dice: random.Random) -> None:
    """Make an embedding all zeros."""
    chosen = dice.choice(sorted(project.rows(EMBEDDINGS.outputs)["chunk_id"]))
    is_chosen = pl.col("chunk_id") == chosen
    zeros = pl.col("vector").list.eval(pl.element() * 0)
    new = pl.when(is_chosen).then(zeros).otherwise(pl.col("vector")).alias("vector")
    rewrite(project, EMBEDDINGS.outputs, lambda rows: rows.with_columns(new))


def altered_chunks(project: Project, dice: random.Random) -> None:
    """Change the text of a chunk."""
    chosen = dice.choice(sorted(project.rows(CHUNKS.outputs)["chunk_id"]))
    is_chosen = pl.col("chunk_id") == chosen
    new = pl.when(is_chosen).then(pl.lit("altered")).otherwise(pl.col("text")).alias("text")
    rewrite(project, CHUNKS.outputs, lambda rows: rows.with_columns(new))


def lost_catalog_rows(project: Project, dice: random.Random) -> None:
    """Delete a row of the catalog."""
    catalog = project.workspace.catalog
    chosen = dice.choice(catalog.documents())
    of_shard = catalog.documents(source_shard=chosen.source_shard)
    kept = [row for row in of_shard if row.document_id != chosen.document_id]
    catalog.replace_documents(chosen.source_shard, kept)


def foreign_catalog_rows(project: Project, dice: random.Random) -> None:
    """Add a row of no document, in a shard that there is or was."""
    catalog = project.workspace.catalog
    like = dice.choice(catalog.documents())
    shard = dice.choice([like.source_shard, "handbook-099"])
    of_shard = catalog.documents(source_shard=shard)
    foreign = dataclasses.replace(like, document_id=FOREIGN_CHUNK, source_shard=shard)
    catalog.replace_documents(shard, [*of_shard, foreign])


def wrong_catalog_rows(project: Project, dice: random.Random) -> None:
    """Let the catalog say something else."""
    catalog = project.workspace.catalog
    chosen = dice.choice(catalog.documents())
    of_shard = catalog.documents(source_shard=chosen.source_shard)
    wrong = dataclasses.replace(chosen, n_chunks=99, title="somebody changed this")
    changed = [wrong if row.document_id == chosen.document_id else row for row in of_shard]
    catalog.replace_documents(chosen.source_shard, changed)


def object_paths(project: Project) -> list[str]:
    """Hashes of documents that were fetched, as far as their bytes are there."""
    rows = project.rows(RAW_DOCUMENTS.outputs, pl.col("content_hash").is_not_null())
    stored = set(project.workspace.landing_zone.content_hashes())
    return sorted(stored & set(rows["content_hash"]))


def lost_bytes(project: Project, dice: random.Random) -> None:
    """Delete an object of the landing zone."""
    project.workspace.landing_zone.delete(dice.choice(object_paths(project)))


def damaged_bytes(project: Project, dice: random.Random) -> None:
    """Flip bytes of an object of the landing zone, which keeps its size."""
    name = dice.choice(object_paths(project))
    path = project.folder / ".ragassets" / "landing" / name[:2] / name
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()) or b"not empty")


def unused_bytes(project: Project, dice: random.Random) -> None:
    """Leave an object of no document in the landing zone."""
    project.workspace.landing_zone.put(b"%d" % dice.getrandbits(64))


def leftover_intents(project: Project, dice: random.Random) -> None:
    """Leave what a run that died leaves behind."""
    shard = project.config.source_shards()[0]
    ids = [*some_points(project, dice), point_id(FOREIGN_CHUNK)]
    rows = [{"point_id": name, SHARD: shard, "index_version": "v1"} for name in ids]
    tables = project.workspace.tables
    tables.replace(
        tables.snapshot(INDEX_INTENTS),
        [{SHARD: shard, "index_version": "v1"}],
        pl.DataFrame(rows, schema=INDEX_INTENTS.schema),
    )


def lost_rows(stage: Stage) -> Damage:
    """Delete rows of a stage."""
    return lambda project, dice: drop_some(project, stage.outputs, dice)


def lost_dead_letters(project: Project, dice: random.Random) -> None:
    """Delete dead letters."""
    drop_some(project, DEAD_LETTERS, dice)
