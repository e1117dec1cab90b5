"""A canary takes its share of the searches and breaks none of them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.workspace import Workspace
from ragassets.core.access import EVERYTHING, Access
from ragassets.core.canaries import choose_arm
from ragassets.errors import ConfigurationError, StorageUnavailableError
from ragassets.queries.answers import Answer, answer
from ragassets.queries.canaries import read_canary
from ragassets.queries.questions import Question, parse_batch
from ragassets.queries.search import Target, resolve_target, search
from ragassets.stages.canaries import change_canary
from ragassets_tests.scenario import Project
from ragassets_tests.two_versions import CONTEXT, LoadedModels, build_two_versions

QUERIES = [f"question number {number}" for number in range(40)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`v1` is live, `v2` answers half of the searches."""
    with pytest.MonkeyPatch.context() as patch:
        LoadedModels().install(patch)
        project = build_two_versions(tmp_path_factory.mktemp("answers") / "project")
        change_canary(
            project.workspace,
            CONTEXT,
            alias="documents",
            index_version="v2",
            share=0.5,
            actor="me",
            reason="",
        )
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


def ask(workspace: Workspace, *questions: Question | str, **options: object) -> list[Answer]:
    asked = [q if isinstance(q, Question) else Question(q) for q in questions]
    target = resolve_target(workspace, alias="documents")
    return list(answer(workspace, target, asked, **options))


def arms(workspace: Workspace, queries: Sequence[str]) -> list[str]:
    canary = read_canary(workspace, "documents")
    assert canary is not None
    return [choose_arm(canary, query=query) for query in queries]


def one_of_arm(workspace: Workspace, arm: str) -> str:
    return QUERIES[arms(workspace, QUERIES).index(arm)]


def test_every_answer_comes_from_the_version_of_its_arm(workspace: Workspace) -> None:
    """In the order of the questions, and as if that version had been named."""
    found = ask(workspace, *QUERIES)
    assert [one.arm for one in found] == arms(workspace, QUERIES)
    assert {one.arm for one in found} == {"live", "canary"}
    versions = {"live": "v1", "canary": "v2"}
    assert [one.index_version for one in found] == [versions[one.arm or ""] for one in found]
    by_name = {
        version: list(search(workspace, Target(version, None), QUERIES)) for version in ("v1", "v2")
    }
    for position, one in enumerate(found):
        assert one.question.text == QUERIES[position]
        assert one.hits == by_name[one.index_version][position]
        assert one.fallback is None


def test_users_keep_their_arm_whatever_they_ask(workspace: Workspace) -> None:
    questions = [Question(query, f"user-{n % 4}") for n, query in enumerate(QUERIES)]
    found = ask(workspace, *questions)
    for user in ("user-0", "user-1", "user-2", "user-3"):
        assert len({one.arm for one in found if one.question.user == user}) == 1


@pytest.mark.parametrize(("arm", "model"), [("live", "minilm"), ("canary", "other")])
def test_only_the_model_that_answers_is_loaded(
    workspace: Workspace, models: LoadedModels, arm: str, model: str
) -> None:
    """Loading one costs seconds: nine searches in ten must not pay for the canary's."""
    ask(workspace, one_of_arm(workspace, arm))
    assert models.loaded == [model]


def test_a_canary_whose_model_fails_answers_by_the_live_version(
    workspace: Workspace, models: LoadedModels
) -> None:
    models.broken.add("other")
    found = ask(workspace, *QUERIES)
    assert {one.index_version for one in found} == {"v1"}
    assert [one.arm for one in found] == arms(workspace, QUERIES)
    assert all(one.hits for one in found)
    told = {one.arm: one.fallback for one in found}
    assert told == {"live": None, "canary": "canary 'v2' failed: the weights cannot be read"}


def test_a_canary_that_failed_is_not_asked_again_in_a_batch(
    workspace: Workspace, models: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that hangs would cost its time-out every 256 queries."""
    monkeypatch.setattr("ragassets.queries.answers.session_queries", lambda _reranking: 4)
    models.broken.add("other")
    assert len(ask(workspace, *QUERIES)) == 40
    assert models.loaded.count("other") == 1


def test_a_canary_whose_collection_is_gone_answers_by_the_live_version(
    workspace: Workspace,
) -> None:
    shutil.rmtree(Path(workspace.config.vector_store) / "collections" / "v2")
    (found,) = ask(workspace, one_of_arm(workspace, "canary"))
    assert found.index_version == "v1"
    assert found.hits
    assert "v2" in (found.fallback or "")


def test_without_its_history_an_alias_answers_by_the_live_version(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables may be on an object store that is away; the vector store is not."""
    query = one_of_arm(workspace, "canary")

    def away(*_arguments: object) -> None:
        raise StorageUnavailableError(service="table 'live_index'", detail="no route to host")

    monkeypatch.setattr(DeltaTables, "snapshot", away)
    target = resolve_target(workspace, alias="documents")
    assert target.canary is None
    assert "no route to host" in target.note
    (found,) = answer(workspace, target, [Question(query)])
    assert (found.index_version, found.arm) == ("v1", None)


def test_a_canary_that_was_taken_out_of_the_configuration_is_left_out(
    workspace: Workspace, built: Project
) -> None:
    project = built.restore()
    versions = project.settings["index_versions"]
    project.configure(index_versions={name: versions[name] for name in ("v1", "v3")})
    target = resolve_target(project.workspace, alias="documents")
    assert target.canary is None
    assert "'v2'" in target.note


def test_a_named_version_has_no_canary(workspace: Workspace) -> None:
    target = resolve_target(workspace, index_version="v1")
    (found,) = answer(workspace, target, [Question(one_of_arm(workspace, "canary"))])
    assert (found.index_version, found.arm) == ("v1", None)


def test_an_alias_that_moved_meanwhile_is_followed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resolved, then promoted, and the old version dropped before the search reached it."""
    target = resolve_target(workspace, alias="documents")
    query = one_of_arm(workspace, "live")
    with workspace.vector_store() as store:
        store.switch_alias("documents", "v2", expected="v1")
        store.drop_collection("v1")
    (found,) = answer(workspace, target, [Question(query)])
    assert (found.index_version, found.arm) == ("v2", None)
    assert found.hits


def test_a_live_version_that_fails_is_an_error(workspace: Workspace) -> None:
    """Without a move of the alias nothing else may answer for it."""
    target = resolve_target(workspace, alias="documents")
    shutil.rmtree(Path(workspace.config.vector_store) / "collections" / "v1")
    with pytest.raises(ConfigurationError, match="v1"):
        list(answer(workspace, target, [Question(one_of_arm(workspace, "live"))]))


def test_a_collection_that_goes_while_a_search_waits_for_the_store_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner drops it, then lets the search in: the error must say which name is gone."""
    original = QdrantEdgeStore._own

    def dropped_before(store: QdrantEdgeStore) -> None:
        folder = Path(workspace.config.vector_store) / "collections" / "v1"
        if folder.exists():
            shutil.rmtree(folder)
        original(store)

    monkeypatch.setattr(QdrantEdgeStore, "_own", dropped_before)
    with pytest.raises(ConfigurationError, match="collection: 'v1' is not defined"):
        list(search(workspace, Target("v1", None), ["anything"]))


def test_whoever_answers_keeps_to_what_the_asker_may_see(
    workspace: Workspace, models: LoadedModels
) -> None:
    """A fallback that forgot for whom it was asked would show documents of others."""
    nobody = Access(tenant="somebody else")
    queries = [one_of_arm(workspace, arm) for arm in ("live", "canary")] * 2
    accesses = [nobody, nobody, EVERYTHING, EVERYTHING]
    for broken in (False, True):
        models.broken = {"other"} if broken else set()
        found = ask(workspace, *queries, accesses=accesses)
        assert [bool(one.hits) for one in found] == [False, False, True, True]


def test_a_line_of_a_batch_may_name_its_user() -> None:
    lines = '{"query": "a", "user": "anna"}\n{"query": "b", "user": 7}\n{"query": "c"}\n'
    assert parse_batch(lines, origin="file") == [
        Question("a", "anna"),
        Question("b", "7"),
        Question("c", None),
    ]
