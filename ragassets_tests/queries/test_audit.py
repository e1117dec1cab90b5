"""The audit finds exactly what was damaged: nothing less, and nothing beside it."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    DEAD_LETTERS,
    EMBEDDINGS,
    INDEX_INTENTS,
    INDEXED_CHUNKS,
    RAW_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.core.indexing import PointBatch, point_id
from ragassets.core.stages import SHARD
from ragassets.core.tables import TableSpec
from ragassets.queries.audit import run_audit
from ragassets_tests.points import payload_of
from ragassets_tests.small_project import SmallProject, small_project

FOREIGN_CHUNK = "f" * 32


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> SmallProject:
    return small_project(tmp_path_factory.getbasetemp()).copy(tmp_path / "project")


@pytest.fixture
def workspace(project: SmallProject) -> Workspace:
    return project.workspace()


def findings(workspace: Workspace) -> dict[str, int]:
    """What the audit counts, without the zeros."""
    audit = run_audit(workspace)
    counts = {finding.name: finding.count for finding in audit.findings if finding.count}
    is_clean = not counts.keys() - {"unused_raw_bytes"}
    assert audit.is_clean is is_clean
    assert audit.as_json()["clean"] is is_clean
    return counts


def indexed(workspace: Workspace) -> pl.DataFrame:
    return workspace.tables.read(INDEXED_CHUNKS.outputs).sort("point_id")


def rewrite(workspace: Workspace, spec: TableSpec, keep: pl.Expr) -> int:
    """Drop rows behind the back of the engine; how many."""
    snapshot = workspace.tables.snapshot(spec)
    rows = workspace.tables.read_at(snapshot)
    partitions = rows.select(spec.partition_by).unique().to_dicts()
    workspace.tables.replace(snapshot, partitions, rows.filter(keep))
    return rows.height - rows.filter(keep).height


def write_point(workspace: Workspace, chunk_id: str, text: str) -> None:
    """Write a point that the table does not know like this."""
    payload = payload_of(text, chunk_id=chunk_id)
    vectors = workspace.embedder("minilm").embed_documents([text])
    with workspace.vector_store() as store:
        store.upsert("v1", PointBatch([point_id(chunk_id)], vectors, [payload]))
        store.flush("v1")


def test_an_untouched_project_is_clean(workspace: Workspace) -> None:
    assert findings(workspace) == {}


def test_a_project_that_was_never_ingested_is_clean(tmp_path: Path) -> None:
    from ragassets.config import load_config

    (tmp_path / "documents").mkdir()
    (tmp_path / "ragassets.yaml").write_text("{}", encoding="utf-8")
    assert findings(Workspace(load_config(tmp_path / "ragassets.yaml"))) == {}


def test_a_deleted_point_is_missing(workspace: Workspace) -> None:
    lost = indexed(workspace)["point_id"][0]
    with workspace.vector_store() as store:
        store.delete("v1", [lost])
        store.flush("v1")
    assert findings(workspace) == {"missing_points": 1}
    examples = run_audit(workspace).as_json()["examples"]
    assert examples == {"missing_points": [f"v1/{lost}"]}


def test_a_foreign_point_is_an_orphan(workspace: Workspace) -> None:
    """It would be found by every search, and nothing would ever remove it."""
    write_point(workspace, FOREIGN_CHUNK, "a text that no document has")
    assert findings(workspace) == {"orphan_points": 1}


def test_a_point_with_another_payload_is_stale(workspace: Workspace) -> None:
    write_point(workspace, indexed(workspace)["chunk_id"][0], "another text under the same id")
    assert findings(workspace) == {"stale_points": 1, "wrong_vectors": 1}


def test_an_indexed_row_that_was_lost_leaves_its_point_an_orphan(workspace: Workspace) -> None:
    lost = indexed(workspace)["chunk_id"][0]
    assert rewrite(workspace, INDEXED_CHUNKS.outputs, pl.col("chunk_id") != lost) == 1
    assert findings(workspace) == {
        "orphan_points": 1,
        "missing_indexed_chunks": 1,
        "wrong_catalog_rows": 1,
    }


def test_tables_are_compared_with_each_other(workspace: Workspace) -> None:
    lost = indexed(workspace)["chunk_id"][0]
    assert rewrite(workspace, CHUNKS.outputs, pl.col("chunk_id") != lost) == 1
    rest = {"missing_chunks": 1, "wrong_catalog_rows": 1}
    assert findings(workspace) == {"orphan_embeddings": 1, **rest}
    assert rewrite(workspace, EMBEDDINGS.outputs, pl.col("chunk_id") != lost) == 1
    assert findings(workspace) == {"orphan_indexed_chunks": 1, **rest}


def test_a_lost_dead_letter_is_missed(workspace: Workspace) -> None:
    assert rewrite(workspace, DEAD_LETTERS, pl.col("reason") != "empty") == 1
    assert findings(workspace) == {"missing_dead_letters": 1}


def test_a_dead_letter_of_nothing_is_an_orphan(workspace: Workspace) -> None:
    snapshot = workspace.tables.snapshot(DEAD_LETTERS)
    rows = workspace.tables.read_at(snapshot)
    foreign = rows.head(1).with_columns(
        pl.lit(FOREIGN_CHUNK).alias("dead_letter_id"), pl.lit(FOREIGN_CHUNK).alias("document_id")
    )
    of_shard = rows.filter(pl.col(SHARD) == foreign[SHARD][0])
    workspace.tables.replace(snapshot, [{SHARD: foreign[SHARD][0]}], pl.concat([of_shard, foreign]))
    assert findings(workspace) == {"orphan_dead_letters": 1}


def test_the_catalog_is_compared_in_both_directions(workspace: Workspace) -> None:
    documents = workspace.catalog.documents(source_shard="office-000")
    workspace.catalog.replace_documents("office-000", documents[1:])
    assert findings(workspace) == {"missing_catalog_rows": 1}
    foreign = replace(documents[0], document_id=FOREIGN_CHUNK)
    workspace.catalog.replace_documents("office-000", [*documents, foreign])
    assert findings(workspace) == {"orphan_catalog_rows": 1}


def test_lost_raw_bytes_are_missed(workspace: Workspace) -> None:
    """Two documents with the same bytes share one object."""
    hashes = workspace.tables.read(RAW_DOCUMENTS.outputs, columns=["content_hash"])["content_hash"]
    workspace.landing_zone.delete(hashes.mode().sort()[0])
    assert findings(workspace) == {"missing_raw_bytes": 1}


def test_damaged_raw_bytes_are_found_by_their_hash(
    project: SmallProject, workspace: Workspace
) -> None:
    """A flipped bit changes no name and no size."""
    name = next(iter(sorted(workspace.landing_zone.content_hashes())))
    path = project.folder / ".ragassets" / "landing" / name[:2] / name
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"x")
    assert findings(workspace) == {"damaged_raw_bytes": 1}


def test_bytes_that_no_document_has_are_named_and_are_no_damage(workspace: Workspace) -> None:
    """Whoever edits a document leaves its earlier bytes."""
    workspace.landing_zone.put(b"an earlier state")
    assert findings(workspace) == {"unused_raw_bytes": 1}


def test_a_document_that_a_stage_lost_is_missed(workspace: Workspace) -> None:
    lost = indexed(workspace)["document_id"][0]
    assert rewrite(workspace, VALID_DOCUMENTS.outputs, pl.col("document_id") != lost) == 1
    assert findings(workspace) == {"missing_documents": 1, "orphan_documents": 1}


def test_a_changed_chunk_text_is_found_by_its_hash(workspace: Workspace) -> None:
    chosen = indexed(workspace)["chunk_id"][0]
    snapshot = workspace.tables.snapshot(CHUNKS.outputs)
    rows = workspace.tables.read_at(snapshot)
    is_chosen = pl.col("chunk_id") == chosen
    text = pl.when(is_chosen).then(pl.lit("altered")).otherwise(pl.col("text")).alias("text")
    partitions = rows.select(CHUNKS.partition_by).unique().to_dicts()
    workspace.tables.replace(snapshot, partitions, rows.with_columns(text))
    assert findings(workspace) == {"altered_chunks": 1}


def test_a_catalog_row_that_says_something_else_is_found(workspace: Workspace) -> None:
    first, *others = workspace.catalog.documents(source_shard="office-000")
    workspace.catalog.replace_documents("office-000", [replace(first, n_chunks=99), *others])
    assert findings(workspace) == {"wrong_catalog_rows": 1}


def test_intents_of_a_dead_run_are_found(workspace: Workspace) -> None:
    row = {"point_id": point_id(FOREIGN_CHUNK), SHARD: "office-000", "index_version": "v1"}
    snapshot = workspace.tables.snapshot(INDEX_INTENTS)
    partition = {SHARD: "office-000", "index_version": "v1"}
    frame = pl.DataFrame([row], schema=INDEX_INTENTS.schema)
    workspace.tables.replace(snapshot, [partition], frame)
    assert findings(workspace) == {"leftover_intents": 1}


def test_shards_that_the_configuration_lost_are_found(project: SmallProject) -> None:
    """With fewer shards, old partitions would serve documents twice."""
    file = project.folder / "ragassets.yaml"
    text = file.read_text(encoding="utf-8").replace("shards: 2", "shards: 1")
    file.write_text(text, encoding="utf-8")
    assert findings(project.workspace()) == {"retired_shards": 1}
