"""A seal says that a version holds the corpus as it is now, and an alias trusts no old seal."""

from datetime import UTC, datetime

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import (
    ALIAS_SWITCHES,
    BUILD_WINDOWS,
    CHUNKS,
    INDEXED_CHUNKS,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.stages import RunContext
from ragassets.core.tables import TableSpec
from ragassets.errors import ConfigurationError, IndexVersionError
from ragassets.queries.audit import run_audit
from ragassets.queries.search import Target, search
from ragassets.stages.alias_history import AliasSwitch
from ragassets.stages.embeddings import update_embeddings
from ragassets.stages.golden_queries import check_golden_queries, golden_queries
from ragassets.stages.index_versions import SealReport, describe_unservable, seal_index_version
from ragassets.stages.indexed_chunks import update_indexed_chunks
from ragassets.stages.live_index import (
    move_aliases,
    plan_move,
    start_aliases,
    switch_alias,
)
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.scenario import CLEAN, Project, fake_embedder

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")

CONTEXT = RunContext("a-run", lambda: datetime(2026, 1, 1, tzinfo=UTC))
SET = "recursive-256-minilm"


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the tests' own patch: two that undo each other out of order would leave the fake."""
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder",
        lambda name, config: FakeEmbedder(name, config.dim, seed=config.model),
    )


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Seven documents in one shard, ingested once."""
    project = Project(tmp_path_factory.mktemp("seals") / "project", CLEAN)
    project.configure(sources={"handbook": {"uri": "./documents", "shards": 1}})
    with fake_embedder():
        project.ingest()
    project.save()
    return project


@pytest.fixture
def workspace(ingested: Project) -> Workspace:
    """The ingested state, fresh for every test."""
    return ingested.restore().workspace


def rewrite(workspace: Workspace, spec: TableSpec, keep: pl.Expr) -> None:
    """Drop rows behind the back of the engine."""
    snapshot = workspace.tables.snapshot(spec)
    rows = workspace.tables.read_at(snapshot)
    partitions = rows.select(spec.partition_by).unique().to_dicts()
    workspace.tables.replace(snapshot, partitions, rows.filter(keep))


def texts(report: SealReport) -> list[str]:
    """The problems as a person reads them."""
    return [problem.text for problem in report.problems]


def serve_again(workspace: Workspace) -> None:
    """Move the alias to the version that it serves: the check of the target is what counts."""
    switch = AliasSwitch("documents", "v1", "v1", "promote", "a test", "a test")
    switch_alias(workspace, switch, CONTEXT)


class ChangedModel(FakeEmbedder):
    """The model after its files were replaced under the same name."""

    def __init__(self) -> None:
        """Make another model of the same dimension."""
        super().__init__("minilm", 384, seed="changed")


def test_an_ingested_version_is_sealed_and_may_be_served(workspace: Workspace) -> None:
    assert seal_index_version(workspace, "v1", CONTEXT).state == "sealed"
    serve_again(workspace)


def test_a_version_without_the_chunks_of_a_document_is_not_sealed(workspace: Workspace) -> None:
    """Nothing chunked, nothing embedded, nothing indexed: all counts agree, and it is empty."""
    nothing = pl.lit(value=False)
    for spec in (CHUNKS.outputs, INDEXED_CHUNKS.outputs):
        rewrite(workspace, spec, nothing)
    with workspace.vector_store() as store:
        store.drop_collection("v2")
    report = seal_index_version(workspace, "v1", CONTEXT)
    assert report.state == "incomplete"
    assert "7 documents are not chunked as they are now, in handbook-000" in texts(report)


def test_a_version_that_still_holds_a_removed_document_is_not_sealed(workspace: Workspace) -> None:
    survivor = workspace.tables.read(UNIQUE_DOCUMENTS.outputs)["document_id"][0]
    rewrite(workspace, UNIQUE_DOCUMENTS.outputs, pl.col("document_id") != survivor)
    report = seal_index_version(workspace, "v1", CONTEXT)
    assert texts(report) == [
        "1 documents are gone or duplicates, and still chunked, in handbook-000"
    ]


def test_an_empty_corpus_is_sealed(workspace: Workspace) -> None:
    """The first ingestion of an empty folder is no failure."""
    empty = _with(workspace, root=f"{workspace.config.root}-empty", vector_store="")
    empty = _with(empty, vector_store=f"{empty.config.root}/qdrant")
    assert seal_index_version(empty, "v1", CONTEXT).state == "sealed"


def test_an_old_seal_is_not_trusted(workspace: Workspace) -> None:
    """Rows that came or went after the seal were never judged."""
    lost = workspace.tables.read(INDEXED_CHUNKS.outputs)["chunk_id"][0]
    rewrite(workspace, INDEXED_CHUNKS.outputs, pl.col("chunk_id") != lost)
    with pytest.raises(IndexVersionError, match=r"changed since it was sealed.*index build v1"):
        serve_again(workspace)


def test_a_version_that_fell_behind_is_not_served_nor_started(workspace: Workspace) -> None:
    """Its points are those of its seal, and its corpus is not that of today."""
    survivor = workspace.tables.read(UNIQUE_DOCUMENTS.outputs)["document_id"][0]
    rewrite(workspace, UNIQUE_DOCUMENTS.outputs, pl.col("document_id") != survivor)
    with pytest.raises(IndexVersionError, match="is not up to date"):
        serve_again(workspace)
    assert start_aliases(workspace, CONTEXT, actor="a test") == []


def test_a_promotion_that_was_killed_before_its_record_can_be_rolled_back(
    workspace: Workspace,
) -> None:
    """The alias had moved already; whoever asks first must see that move in the history."""
    two = _with_second_version(workspace)
    with two.vector_store() as store:
        store.switch_alias("documents", "v2", expected="v1")

    planned = plan_move(two, **_move("rollback"))
    moved = move_aliases(two, CONTEXT, **_move("rollback"))

    assert planned == AliasSwitch("documents", "v2", "v1", "rollback", "a test", "me")
    assert moved == [planned]
    history = two.tables.read(ALIAS_SWITCHES)["action"].to_list()
    assert sorted(history) == ["promote", "rollback", "start"]


def test_a_planned_move_writes_nothing(workspace: Workspace) -> None:
    two = _with_second_version(workspace)
    before = two.tables.snapshot(ALIAS_SWITCHES).version

    planned = plan_move(two, **_move("promote", "v2"))

    assert planned == AliasSwitch("documents", "v1", "v2", "promote", "a test", "me")
    assert two.tables.snapshot(ALIAS_SWITCHES).version == before
    with two.vector_store() as store:
        assert store.alias_target("documents") == "v1"


def test_a_move_to_what_is_served_moves_nothing(workspace: Workspace) -> None:
    assert plan_move(workspace, **_move("promote", "v1")) is None
    assert move_aliases(workspace, CONTEXT, **_move("promote", "v1")) == []


def _move(action: str, to_version: str = "") -> dict[str, str]:
    return {
        "alias": "documents",
        "action": action,
        "to_version": to_version,
        "actor": "me",
        "reason": "a test",
    }


def _with_second_version(workspace: Workspace) -> Workspace:
    """`v2`: the same vectors in a collection of its own, sealed."""
    version = workspace.config.index_version("v1")
    two = _with(workspace, index_versions={"v1": version, "v2": version})
    update_indexed_chunks(two, "v2", two.config.source_shards(), CONTEXT)
    assert seal_index_version(two, "v2", CONTEXT).is_sealed
    return two


def test_another_model_of_the_same_name_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances between vectors of two models mean nothing, and nobody would notice."""
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder", lambda _name, _config: ChangedModel()
    )
    (embedding_set,) = workspace.config.embedding_sets()
    shards = workspace.config.source_shards()
    with pytest.raises(IndexVersionError, match="built with another embedding model"):
        update_embeddings(workspace, embedding_set, shards, CONTEXT)
    with pytest.raises(IndexVersionError, match="built with another embedding model"):
        update_indexed_chunks(workspace, "v1", shards, CONTEXT)
    with pytest.raises(IndexVersionError, match="built with another embedding model"):
        next(search(workspace, Target("v1", None), ["coffee"]))
    assert next(search(workspace, Target("v1", None), ["coffee"], mode="sparse"))
    unservable = describe_unservable(workspace, "v1")
    assert unservable is not None
    assert unservable.kind == "behind"
    assert "not embedded as they are now" in unservable.problem


def test_golden_queries_are_those_of_the_aliases_of_a_version(
    workspace: Workspace, ingested: Project
) -> None:
    """A version that serves one alias is not judged by the questions of another."""
    files: dict[str, str] = {}
    for name in ("first", "second"):
        file = ingested.folder / f"{name}.jsonl"
        file.write_text(f'{{"query": "{name}", "relevant": {{"file:///a": 1}}}}\n', "utf-8")
        files[name] = str(file)
    live = {"first": "v1", "second": "v2"}
    version = workspace.config.index_version("v1")
    changed = _with(
        workspace,
        index_versions=dict.fromkeys(("v1", "v2", "v3"), version),
        aliases={name: {"live": live[name], "golden_queries": files[name]} for name in live},
    )
    asked = {name: golden_queries(changed, name) for name in ("v1", "v2", "v3")}
    assert {name: [q.query for q in queries or ()] for name, queries in asked.items()} == {
        "v1": ["first"],
        "v2": ["second"],
        "v3": ["first"],
    }


def test_a_wrong_golden_file_is_noticed_by_itself(workspace: Workspace, ingested: Project) -> None:
    """Not after an hour of embedding."""
    file = ingested.folder / "wrong.jsonl"
    for content in (b"{}\n", b"\xff\xfe\n"):
        file.write_bytes(content)
        wrong = _with(workspace, aliases={"documents": {"live": "v1", "golden_queries": str(file)}})
        with pytest.raises(ConfigurationError, match="golden"):
            check_golden_queries(wrong)


def test_a_lost_collection_is_written_again(workspace: Workspace) -> None:
    """The table is emptied by whoever creates the collection, and by nobody else."""
    shards = workspace.config.source_shards()
    with workspace.vector_store() as store:
        n_points = store.count("v1")
    import shutil
    from pathlib import Path

    shutil.rmtree(Path(workspace.config.vector_store) / "collections" / "v1")
    update_indexed_chunks(workspace, "v1", shards, CONTEXT)
    with workspace.vector_store() as store:
        assert store.count("v1") == n_points > 0
    assert seal_index_version(workspace, "v1", CONTEXT).state == "sealed"


def test_a_manual_version_that_nobody_serves_or_began_may_fall_behind(workspace: Workspace) -> None:
    """An audit that is never clean again is not read."""
    survivor = workspace.tables.read(UNIQUE_DOCUMENTS.outputs)["document_id"][0]
    rewrite(workspace, CHUNKS.outputs, pl.col("document_id") != survivor)
    manual = workspace.config.index_version("v1").model_copy(update={"backfill": "manual"})
    served = _with(workspace, index_versions={"v1": manual})
    unserved = _with(served, vector_store=f"{workspace.config.root}/elsewhere")
    assert _n_orphans(served) == _n_orphans(unserved) == 1
    rewrite(workspace, BUILD_WINDOWS, pl.col("index_version") != "v1")
    assert (_n_orphans(served), _n_orphans(unserved)) == (1, 0)


def _n_orphans(workspace: Workspace) -> int:
    found = {finding.name: finding.count for finding in run_audit(workspace).findings}
    return found["orphan_embeddings"]


def _with(workspace: Workspace, **changes: object) -> Workspace:
    """A workspace of the same configuration but for these sections."""
    return Workspace(Config.model_validate(workspace.config.model_dump() | changes))
