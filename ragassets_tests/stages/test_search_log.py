"""Records of searches: written beside the search, folded once, kept for a while, without names."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.search_log import SearchLog
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import ALIAS_SWITCHES
from ragassets.core.canaries import choose_arm
from ragassets.core.search_log import FEEDBACK, SEARCHES, SearchRecord, decode_records
from ragassets.errors import ConfigurationError, StorageUnavailableError
from ragassets.queries.answers import Answer, answer
from ragassets.queries.canaries import read_canary
from ragassets.queries.canary_comparison import compare_canary
from ragassets.queries.questions import Question
from ragassets.queries.search import resolve_target
from ragassets.queries.search_recorder import SearchRecorder
from ragassets.stages.canaries import change_canary
from ragassets.stages.search_log import fold_search_log, record_feedback
from ragassets_tests.scenario import Project
from ragassets_tests.two_versions import CONTEXT, LoadedModels, build_two_versions

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`v2` answers half of the searches."""
    with pytest.MonkeyPatch.context() as patch:
        LoadedModels().install(patch)
        project = build_two_versions(tmp_path_factory.mktemp("log") / "project")
        begin(project.workspace)
        project.save()
        return project


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> LoadedModels:
    models = LoadedModels()
    models.install(monkeypatch)
    return models


@pytest.fixture
def workspace(built: Project, models: LoadedModels) -> Workspace:
    return built.restore().workspace


def begin(workspace: Workspace, share: float | None = 0.5) -> None:
    change_canary(
        workspace,
        CONTEXT,
        alias="documents",
        index_version="v2",
        share=share,
        actor="me",
        reason="",
    )


def ask(workspace: Workspace, *questions: Question, now: datetime = NOW) -> Sequence[Answer]:
    recorder = SearchRecorder(workspace.search_log, now=lambda: now)
    target = resolve_target(workspace, alias="documents")
    found = list(answer(workspace, target, questions, recorder=recorder, limit=3))
    assert recorder.close() == []
    return found


def records(workspace: Workspace) -> list[SearchRecord]:
    log = workspace.search_log
    return [record for data in log.read(log.names(100)) for record in decode_records(data)]


def test_a_search_leaves_what_a_comparison_needs(workspace: Workspace) -> None:
    question = Question("Paid  vacation", "anna")
    (found,) = ask(workspace, question)
    (record,) = records(workspace)
    canary = read_canary(workspace, "documents")
    assert canary is not None
    arm = choose_arm(canary, query="", user="anna")
    assert (record.arm, record.index_version) == (arm, {"live": "v1", "canary": "v2"}[arm])
    assert record.search_id == found.search_id
    assert record.alias == "documents"
    assert record.canary_id == canary.canary_id
    assert record.searched_at == "2026-01-02T03:04:05+00:00"
    assert record.n_hits == len(record.hit_uris) == 3
    assert record.top_score == found.hits[0].score
    assert record.is_cold
    assert not record.is_fallback
    assert 0 < record.latency_ms < 60_000


def test_neither_the_query_nor_the_user_nor_a_document_is_named(workspace: Workspace) -> None:
    """Queries tell more of people than documents do."""
    ask(workspace, Question("vacation of mister smith", "anna.smith@example.com"))
    log = workspace.search_log
    (data,) = log.read(log.names(10))
    for secret in (b"smith", b"vacation", b"anna", b"file:", b"documents/"):
        assert secret not in data.replace(b'"documents"', b"")


def test_a_failed_canary_is_recorded_in_its_own_arm(
    workspace: Workspace, models: LoadedModels
) -> None:
    """Counted as live, its failures would be somebody else's."""
    models.broken.add("other")
    ask(workspace, *(Question("coffee", f"user-{n}") for n in range(20)))
    found = {(r.arm, r.index_version, r.is_fallback) for r in records(workspace)}
    assert found == {("live", "v1", False), ("canary", "v1", True)}


def test_without_a_canary_nothing_is_written(workspace: Workspace) -> None:
    begin(workspace, None)
    (found,) = ask(workspace, Question("coffee"))
    assert found.search_id is None
    assert records(workspace) == []


def test_a_log_that_cannot_be_written_breaks_no_search(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise StorageUnavailableError(service="search log", detail="no route to host")

    monkeypatch.setattr(SearchLog, "write", full)
    recorder = SearchRecorder(workspace.search_log)
    target = resolve_target(workspace, alias="documents")
    (found,) = answer(workspace, target, [Question("coffee")], recorder=recorder)
    assert found.hits
    assert recorder.close() == ["search log: no route to host. Try again later"]


def test_folding_moves_every_record_once(workspace: Workspace) -> None:
    ask(workspace, *(Question("coffee", f"user-{n}") for n in range(5)))
    ask(workspace, Question("hotel"))
    assert fold_search_log(workspace, NOW) == 2
    assert workspace.search_log.names(10) == []
    assert workspace.tables.read(SEARCHES).height == 6
    assert fold_search_log(workspace, NOW) == 0
    ask(workspace, Question("garden"))
    fold_search_log(workspace, NOW)
    assert workspace.tables.read(SEARCHES)["search_id"].n_unique() == 7


@pytest.mark.parametrize("killed", ["append", "delete"])
def test_a_fold_that_is_killed_loses_and_doubles_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """Before its commit, and between the commit and the end of the objects."""
    ask(workspace, *(Question("coffee", f"user-{n}") for n in range(5)))

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTables if killed == "append" else SearchLog, killed, die)
        with pytest.raises(KeyboardInterrupt):
            fold_search_log(workspace, NOW)
    fold_search_log(workspace, NOW)
    assert workspace.search_log.names(10) == []
    rows = workspace.tables.read(SEARCHES)
    assert rows.height == rows["search_id"].n_unique() == 5


def test_records_are_kept_for_ninety_days(workspace: Workspace) -> None:
    ask(workspace, Question("coffee"))
    fold_search_log(workspace, NOW)
    ask(workspace, Question("hotel"), now=NOW + timedelta(days=91))
    fold_search_log(workspace, NOW + timedelta(days=91))
    assert workspace.tables.read(SEARCHES).height == 1


class TestFeedback:
    @pytest.mark.parametrize("is_folded", [False, True])
    def test_it_names_the_rank_of_the_hit(self, workspace: Workspace, is_folded: bool) -> None:
        (found,) = ask(workspace, Question("coffee"))
        if is_folded:
            fold_search_log(workspace, NOW)
        said = record_feedback(workspace, found.search_id or "", found.hits[1].uri, NOW)
        first = [hit.uri for hit in found.hits].index(found.hits[1].uri)
        assert (said.rank, said.is_relevant) == (first + 1, True)
        fold_search_log(workspace, NOW)
        assert workspace.tables.read(FEEDBACK)["rank"].to_list() == [first + 1]

    def test_another_document_or_search_is_refused(self, workspace: Workspace) -> None:
        (found,) = ask(workspace, Question("coffee"))
        search = found.search_id or ""
        with pytest.raises(ConfigurationError, match="none of the 3 hits"):
            record_feedback(workspace, search, "file:///elsewhere.md", NOW)
        for unknown in ("nothing", f"{search}9", "../../catalog.db.0", ""):
            with pytest.raises(ConfigurationError, match="no search of a canary"):
                record_feedback(workspace, unknown, found.hits[0].uri, NOW)

    def test_it_reaches_the_comparison(self, workspace: Workspace) -> None:
        questions = [Question("coffee", f"user-{n}") for n in range(20)]
        answers = ask(workspace, *questions)
        for one in answers:
            hit = one.hits[0 if one.arm == "canary" else 1]
            record_feedback(workspace, one.search_id or "", hit.uri, NOW)
        fold_search_log(workspace, NOW)
        found = compare_canary(workspace, "documents")
        live, canary = found.searches.arms
        assert (live.searches, live.feedback) == (live.units, live.searches)
        assert live.searches + canary.searches == 20
        assert canary.success_at == {"1": 1.0, "3": 1.0, "5": 1.0}
        assert (canary.mrr, live.mrr) == (1.0, 0.5)
        assert found.is_running
        assert (found.index_version, found.live_version, found.share) == ("v2", "v1", 0.5)
        assert "too little data" in found.searches.differences[0].verdict
        assert found.golden is None
        assert "no golden queries" in found.golden_note


class TestComparison:
    def test_a_larger_share_begins_it_anew(self, workspace: Workspace) -> None:
        """Users who moved from one arm to the other would count in both."""
        ask(workspace, Question("coffee"), now=CONTEXT.now() - timedelta(hours=1))
        ask(workspace, Question("hotel"), now=CONTEXT.now() + timedelta(seconds=1))
        fold_search_log(workspace, NOW)
        found = compare_canary(workspace, "documents")
        assert sum(arm.searches for arm in found.searches.arms) == 1
        rows = workspace.tables.read(ALIAS_SWITCHES).filter(pl.col("action") == "canary")
        assert found.since == rows["switched_at"].item()

    def test_an_alias_that_never_had_a_canary_is_told_how(
        self, built: Project, tmp_path: Path, models: LoadedModels
    ) -> None:
        project = build_two_versions(tmp_path / "project")
        with pytest.raises(ConfigurationError, match=r"never had a canary.*index canary"):
            compare_canary(project.workspace, "documents")
