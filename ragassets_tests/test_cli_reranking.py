"""`search --rerank`: the best hits in another order, and nothing that may not be seen."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import Result

from ragassets.adapters.workspace import Workspace
from ragassets_tests.scenario import Project, fake_embedder
from ragassets_tests.small_project import run

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

TEXTS = {
    "a.txt": "salary salary salary salary",
    "b.txt": "salary and the weather of 7 cities in spring",
    "c.txt": "salary and the menu of 9 canteens in autumn",
    "d.txt": "salary and the plan of 8 gardens in summer",
}
"""The more often a word, the better by BM25; the fake reranker likes high digits."""

RERANKERS = {
    "digits": {"provider": "onnx", "model": "fake", "candidates": 4},
    "narrow": {"provider": "onnx", "model": "fake", "candidates": 1},
    "missing": {"model": "./no-such-directory"},
}


class DigitReranker:
    """`Reranker`: the largest digit in a text. Remembers what it was given."""

    fingerprint = "fake"

    def __init__(self, name: str, seen: list[str]) -> None:
        """Write what is read into a list."""
        self.name, self.seen = name, seen

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) float32."""
        assert query == "salary"
        self.seen += texts
        digits = [[int(c) for c in text if c.isdigit()] for text in texts]
        return np.array([max(found, default=0) for found in digits], dtype=np.float32)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One text of another tenant among four of ours."""
    project = Project(tmp_path_factory.mktemp("reranking") / "project", TEXTS)
    foreign = project.folder / "foreign"
    foreign.mkdir()
    (foreign / "secret.txt").write_text("salary of 99 directors", encoding="utf-8")
    project.configure(
        sources={
            "ours": {"uri": "./documents", "shards": 1, "tenant": "acme"},
            "theirs": {"uri": str(foreign), "shards": 1, "tenant": "globex"},
        },
        rerankers=RERANKERS,
        aliases={"documents": {"live": "v1"}},
    )
    with fake_embedder():
        project.ingest()
    return project


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the fake reranker read; it takes the place of every model but the missing one."""
    texts: list[str] = []
    real = Workspace.reranker

    def opened(self: Workspace, name: str) -> object:
        return real(self, name) if name == "missing" else DigitReranker(name, texts)

    monkeypatch.setattr(Workspace, "reranker", opened)
    return texts


def ask(project: Project, *arguments: str) -> Result:
    """Search our tenant by words; no model is loaded."""
    options = ("--mode", "sparse", "--tenant", "acme", "--json")
    return run("--config", str(project.config_file), "search", "salary", *options, *arguments)


def names(result: Result) -> list[str]:
    """File names of the hits in order."""
    assert result.exit_code == 0, result.stderr
    return [hit["uri"].rpartition("/")[2] for hit in json.loads(result.stdout)["hits"]]


def test_hits_are_in_the_order_of_the_reranker_and_keep_their_first_score(
    ingested: Project, seen: list[str]
) -> None:
    """`score` stays what it was: whoever read it before reads the same."""
    plain = json.loads(ask(ingested).stdout)["hits"]
    assert all(hit["rerank_score"] is None for hit in plain)
    result = ask(ingested, "--rerank", "digits")
    assert names(result) == ["c.txt", "d.txt", "b.txt", "a.txt"]
    hits = json.loads(result.stdout)["hits"]
    assert [hit["rerank_score"] for hit in hits] == [9, 8, 7, 0]
    first = {hit["uri"]: hit["score"] for hit in plain}
    assert {hit["uri"]: hit["score"] for hit in hits} == first


def test_candidates_decide_what_is_read_not_the_limit(ingested: Project, seen: list[str]) -> None:
    """The best of four, not the best one read again; and never fewer than were asked for."""
    assert names(ask(ingested, "--rerank", "digits", "-k", "1")) == ["c.txt"]
    assert len(seen) == 4
    assert len(names(ask(ingested, "--rerank", "narrow", "-k", "3"))) == 3


def test_the_reranker_reads_nothing_that_may_not_be_seen(
    ingested: Project, seen: list[str]
) -> None:
    """The secret of another tenant would be its first choice, and takes no candidate's place."""
    assert "c.txt" in names(ask(ingested, "--rerank", "digits"))
    assert sorted(seen) == sorted(TEXTS.values())


def test_an_alias_reranks_by_itself_and_can_be_asked_not_to(
    ingested: Project, seen: list[str]
) -> None:
    """What users of the alias get is decided in one place."""
    ingested.configure(aliases={"documents": {"live": "v1", "reranker": "digits"}})
    try:
        assert names(ask(ingested))[0] == "c.txt"
        assert names(ask(ingested, "--no-rerank"))[0] == "a.txt"
        assert names(ask(ingested, "--index", "v1"))[0] == "a.txt"
        assert names(ask(ingested, "--rerank", "narrow", "-k", "1")) == ["a.txt"]
    finally:
        ingested.configure(aliases={"documents": {"live": "v1"}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rerank", "nope"], "rerankers: 'nope' is not defined. Known: digits, missing, narrow"),
        (["--rerank", "missing"], "rerankers.missing.model: './no-such-directory' cannot be"),
        (["--rerank", "digits", "--no-rerank"], "cannot be combined with --no-rerank"),
    ],
)
def test_a_reranker_that_cannot_be_had_is_wrong_use(
    ingested: Project, seen: list[str], arguments: list[str], message: str
) -> None:
    """Hits in the old order would look like the answer."""
    result = ask(ingested, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr


def test_the_doctor_names_the_key_of_a_reranker_that_is_missing(ingested: Project) -> None:
    """Before anybody searches."""
    from ragassets.queries.doctor import _check_rerankers

    found = {check.name: check for check in _check_rerankers(ingested.workspace)}
    assert found["reranker missing"].outcome == "fail"
    assert "rerankers.missing.model" in found["reranker missing"].value


def test_an_alias_must_name_a_reranker_that_is_configured(ingested: Project) -> None:
    """A typing error is found before the first search."""
    ingested.configure(aliases={"documents": {"live": "v1", "reranker": "digit"}})
    try:
        result = ask(ingested)
    finally:
        ingested.configure(aliases={"documents": {"live": "v1"}})
    assert result.exit_code == 2
    assert "aliases.documents.reranker: 'digit' is not defined" in result.stderr
