"""A complete version is measured, compared with the live one, and held against the gates."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any, Self

import dagster as dg
import pytest
from dagster import DagsterInstance, RunsFilter

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import ALIAS_SWITCHES, INDEX_VERSIONS, INDEXED_CHUNKS
from ragassets.core.indexing import VectorStore
from ragassets.core.searching import SearchHit, SearchRequest
from ragassets.core.stages import RunContext
from ragassets.errors import ConfigurationError, IndexVersionError
from ragassets.queries.evaluation import evaluate_version
from ragassets.queries.index_versions import list_index_versions
from ragassets.stages import index_versions
from ragassets.stages.alias_history import AliasSwitch
from ragassets.stages.index_versions import describe_unservable, seal_index_version
from ragassets.stages.judgement import last_seal
from ragassets.stages.live_index import move_aliases, start_aliases, switch_alias
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.scenario import CLEAN, Project, fake_embedder

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")

CONTEXT = RunContext("a-run", lambda: datetime(2026, 1, 1, tzinfo=UTC))

QUESTIONS = {
    "vacation.md": "days of paid vacation",
    "expenses.txt": "receipts of hotels and taxis",
    "security.md": "passwords and the screen",
    "kitchen.txt": "coffee machine oat milk",
    "teams/garden.md": "tomatoes and strawberries",
    "teams/library.txt": "borrow a novel",
}


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder",
        lambda name, config: FakeEmbedder(name, config.dim, seed=config.model),
    )


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Version v1 finds words; v2 has only vectors, which are random here, and is far worse."""
    project = Project(tmp_path_factory.mktemp("judging") / "project", CLEAN)
    golden = project.folder / "golden.jsonl"
    lines = [
        json.dumps({"query": query, "relevant": {project.uri(name): 1}})
        for name, query in QUESTIONS.items()
    ]
    golden.write_text("\n".join(lines), encoding="utf-8")
    made_of = {"chunking": "recursive-256", "embedding_model": "minilm"}
    project.configure(
        sources={"handbook": {"uri": "./documents", "shards": 2}},
        index_versions={"v1": made_of, "v2": {**made_of, "sparse": None}},
        aliases={"documents": {"live": "v1", "golden_queries": str(golden)}},
    )
    with fake_embedder():
        project.ingest()
    project.save()
    return project


@pytest.fixture
def workspace(ingested: Project) -> Workspace:
    return ingested.restore().workspace


def with_gates(workspace: Workspace, **gates: object) -> Workspace:
    return Workspace(Config.model_validate(workspace.config.model_dump() | {"gates": gates}))


class WrongNeighbours:
    """A store whose approximate search finds the farthest points; the exact one is right."""

    def __init__(self, store: VectorStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def search(self, name: str, request: SearchRequest) -> list[SearchHit]:
        if request.exact or request.mode != "dense":
            return self.store.search(name, request)
        every = dataclasses.replace(request, limit=1000)
        return self.store.search(name, every)[::-1][: min(request.limit, 2)]


def test_a_version_is_measured_and_found_good(workspace: Workspace) -> None:
    """The numbers are there, and say where they come from."""
    report = seal_index_version(workspace, "v1", CONTEXT)
    assert report.state == "sealed"
    assert report.quality is not None
    assert report.quality.ndcg_at_10 > 0.9
    assert report.judged_by == ("documents",)
    assert report.measured.recall is not None
    assert (report.measured.recall.recall, report.measured.recall.n_samples) == (1, 7)
    assert report.measured.latency is not None
    assert 0 < report.measured.latency.p50_ms <= report.measured.latency.p95_ms
    assert report.verdict.compared_with is None
    assert report.dead_letter_share == 0


def test_what_did_not_change_is_not_measured_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cost follows change: an idle ingestion asks no golden query, and writes no row."""
    before = last_seal(workspace, "v1")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("measure_recall", "run_golden_queries", "read_vectors"):
        monkeypatch.setattr(index_versions, name, refuse)
    assert seal_index_version(workspace, "v1", CONTEXT).quality is not None
    assert last_seal(workspace, "v1") == before
    changed = with_gates(workspace, min_ndcg_at_10=1.0, min_mrr_at_10=0.999999)
    assert before is not None
    assert seal_index_version(changed, "v1", CONTEXT).state in ("sealed", "failed_gates")


def test_a_worse_version_is_compared_query_by_query_with_the_live_one(
    workspace: Workspace,
) -> None:
    """Six of six queries lose: that is no accident, and the gate says so."""
    report = seal_index_version(workspace, "v2", CONTEXT)
    comparison = report.verdict.comparison
    assert report.verdict.compared_with == "v1"
    assert comparison is not None
    assert comparison.n_queries == len(QUESTIONS)
    assert comparison.difference < -0.05
    assert comparison.losing_queries[0].query in QUESTIONS.values()
    row = last_seal(workspace, "v2")
    assert row is not None
    assert json.loads(str(row["comparison"]))["losses"] == comparison.losses
    assert len(row["query_scores"]) == len(QUESTIONS)


def test_the_live_version_is_asked_when_its_own_row_does_not_tell(workspace: Workspace) -> None:
    """As for a version whose golden queries changed since it was sealed."""
    stored = seal_index_version(workspace, "v2", CONTEXT).verdict.comparison
    snapshot = workspace.tables.snapshot(INDEX_VERSIONS)
    partition = {"index_version": "v1"}
    workspace.tables.replace(snapshot, [partition], INDEX_VERSIONS.empty_frame())
    assert seal_index_version(workspace, "v2", CONTEXT).verdict.comparison == stored


def test_a_version_that_breaks_a_gate_is_whole_and_not_served(workspace: Workspace) -> None:
    """Told apart from an incomplete one: only this may be forced."""
    strict = with_gates(workspace, min_ndcg_at_10=0.9)
    report = seal_index_version(strict, "v2", CONTEXT)
    assert report.state == "failed_gates"
    assert report.problems == ()
    assert report.failed_gates[0].startswith("min_ndcg_at_10 is 0.9, found ")
    unservable = describe_unservable(strict, "v2")
    assert unservable is not None
    assert (unservable.kind, unservable.can_be_forced) == ("failed_gates", True)
    switch = AliasSwitch("documents", "v1", "v2", "promote", "a test", "a test")
    with pytest.raises(IndexVersionError, match=r"failed its gates \(min_ndcg_at_10.*evaluate v2"):
        switch_alias(strict, switch, CONTEXT)
    status = {entry.index_version: entry for entry in list_index_versions(strict)}["v2"]
    assert status.state == "failed_gates"
    assert status.as_json()["failed_gates"] == report.failed_gates
    assert seal_index_version(workspace, "v2", CONTEXT).state == (
        "failed_gates" if report.failed_gates[1:] else "sealed"
    )


def test_a_version_that_breaks_a_gate_is_served_by_force_with_a_reason(
    workspace: Workspace,
) -> None:
    """The gate may be wrong; who overrules it is on record."""
    strict = with_gates(workspace, min_ndcg_at_10=0.9)
    seal_index_version(strict, "v2", CONTEXT)
    wanted = {"alias": "documents", "action": "promote", "to_version": "v2", "actor": "ada"}

    with pytest.raises(ConfigurationError, match="--reason: '' must say why 'v2' is served"):
        move_aliases(strict, CONTEXT, **wanted, reason="", is_forced=True)
    with pytest.raises(IndexVersionError, match="--force"):
        move_aliases(strict, CONTEXT, **wanted, reason="new questions")
    moves = move_aliases(strict, CONTEXT, **wanted, reason="new questions", is_forced=True)

    assert [(move.to_version, move.reason) for move in moves] == [("v2", "new questions")]
    with strict.vector_store() as store:
        assert store.aliases() == {"documents": "v2"}
    row = strict.tables.read(ALIAS_SWITCHES).filter(action="promote").row(0, named=True)
    assert row["actor"] == "ada"
    assert row["forced_over"].startswith("failed its gates (min_ndcg_at_10 is 0.9, found ")


def test_force_does_not_serve_what_is_not_whole(workspace: Workspace) -> None:
    """A version that lacks documents is no matter of taste."""
    workspace.tables.replace(
        workspace.tables.snapshot(INDEX_VERSIONS),
        [{"index_version": "v2"}],
        INDEX_VERSIONS.empty_frame(),
    )
    with pytest.raises(IndexVersionError, match="was never built"):
        move_aliases(
            workspace,
            CONTEXT,
            alias="documents",
            action="promote",
            to_version="v2",
            actor="ada",
            reason="now",
            is_forced=True,
        )


def test_an_index_that_finds_wrong_neighbours_fails(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph with too few links answers fast and wrong, and no count notices."""
    opened = Workspace.vector_store
    monkeypatch.setattr(Workspace, "vector_store", lambda self: WrongNeighbours(opened(self)))
    snapshot = workspace.tables.snapshot(INDEX_VERSIONS)
    partitions = [{"index_version": name} for name in ("v1", "v2")]
    workspace.tables.replace(snapshot, partitions, INDEX_VERSIONS.empty_frame())
    report = seal_index_version(workspace, "v1", CONTEXT)
    assert report.state == "failed_gates"
    (failed,) = report.failed_gates
    assert failed.startswith("min_recall_vs_exact is 0.9, found ")
    assert start_aliases(workspace, CONTEXT, actor="a test") == []


def test_points_that_are_missing_are_named_by_their_shard(workspace: Workspace) -> None:
    """Somebody deleted behind our back; or a foreign point came."""
    rows = workspace.tables.read(INDEXED_CHUNKS.outputs, [{"index_version": "v1"}])
    lost = rows.row(0, named=True)
    with workspace.vector_store() as store:
        store.delete("v1", [lost["point_id"]])
        store.flush("v1")
    report = seal_index_version(workspace, "v1", CONTEXT)
    assert report.state == "incomplete"
    assert [(problem.check, problem.text) for problem in report.problems] == [
        ("counts", f"the collection holds {rows.height - 1} points, its table {rows.height}"),
        ("counts", f"1 points of the table are not in the collection, in {lost['source_shard']}"),
    ]
    unservable = describe_unservable(workspace, "v1")
    assert unservable is not None
    assert (unservable.kind, unservable.can_be_forced) == ("incomplete", False)


def test_without_golden_queries_a_version_is_judged_on_the_rest(workspace: Workspace) -> None:
    """And says so."""
    aliases = {"documents": {"live": "v1"}}
    bare = Workspace(Config.model_validate(workspace.config.model_dump() | {"aliases": aliases}))
    report = seal_index_version(bare, "v1", CONTEXT)
    assert report.state == "sealed"
    assert report.quality is None
    assert report.measured.recall is not None
    found = evaluate_version(bare, "v1")
    assert "completeness and soundness alone" in found.note
    assert found.as_json()["quality"] is None


def test_an_evaluation_changes_nothing(workspace: Workspace) -> None:
    """It may be asked of the live version at any time."""
    before = workspace.tables.snapshot(INDEX_VERSIONS).version
    found: dict[str, Any] = evaluate_version(workspace, "v2").as_json()
    assert workspace.tables.snapshot(INDEX_VERSIONS).version == before
    assert found["compared_with"] == "v1"
    assert found["n_golden_queries"] == len(found["queries"]) == len(QUESTIONS)
    assert set(found["comparison"]) >= {"difference", "low", "high", "p_value", "losing_queries"}
    assert set(found["latency_ms"]) == {"p50", "p95"}
    assert found["recall_vs_exact"] == 1
    assert {gate["gate"] for gate in found["gates"]} == {"max_ndcg_drop", "min_recall_vs_exact"}


def test_an_ingestion_goes_on_after_a_version_that_fails(ingested: Project) -> None:
    """Its run fails, so that somebody looks; the other version and the catalog are done."""
    project = ingested.restore()
    project.configure(gates={"min_ndcg_at_10": 0.95})
    with fake_embedder(), DagsterInstance.ephemeral() as instance:
        report = project.ingest(instance=instance)
        statuses = [
            run.status
            for run in instance.get_runs(filters=RunsFilter(job_name="seal_index_versions"))
        ]
        check = dg.AssetCheckKey(dg.AssetKey("index_versions"), "gates_are_kept")
        evaluations = [
            (record.event.dagster_event.asset_check_evaluation_data)
            for record in instance.event_log_storage.get_asset_check_execution_history(
                check, limit=5
            )
            if record.event is not None and record.event.dagster_event is not None
        ]
    (problem,) = report.problems
    assert problem.startswith("index version 'v2' failed its gates: min_ndcg_at_10 is 0.95, found ")
    assert report.counts["document_catalog"]["n_documents"] == len(CLEAN)
    assert sorted(status.value for status in statuses) == ["FAILURE", "SUCCESS"]
    assert {(found.partition, found.passed) for found in evaluations} == {
        ("v1", True),
        ("v2", False),
    }
