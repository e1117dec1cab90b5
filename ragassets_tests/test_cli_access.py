"""`search --tenant` and `--as`: nobody finds what is not theirs, and nobody forgets to say."""

import json
from pathlib import Path

import pytest
from typer.testing import Result

from ragassets.queries.search import Target, search
from ragassets_tests.scenario import Project, fake_embedder
from ragassets_tests.small_project import run

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

SOURCES = {
    "acme": {"tenant": "acme"},
    "acme-hr": {"tenant": "acme", "acl": ["group:hr", "user:ann"]},
    "globex": {"tenant": "globex"},
    "public": {},
}
"""One document each, all of them about the same."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four sources with the same text, of two tenants and of nobody."""
    project = Project(tmp_path_factory.mktemp("access") / "project")
    sources: dict[str, object] = {}
    for name, settings in SOURCES.items():
        folder = project.folder / name
        folder.mkdir()
        (folder / "plan.txt").write_text("The salary plan is kept in the safe.", encoding="utf-8")
        sources[name] = {"uri": str(folder), "shards": 1, **settings}
    project.configure(sources=sources)
    with fake_embedder():
        project.ingest()
    return project


def ask(project: Project, *arguments: str) -> Result:
    """Search without a model."""
    return run("--config", str(project.config_file), "search", "--mode", "sparse", *arguments)


def sources_of(result: Result) -> list[str]:
    """Sources of the hits of one search, sorted."""
    assert result.exit_code == 0, result.stderr
    return sorted(hit["source"] for hit in json.loads(result.stdout)["hits"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tenant", "acme"], ["acme", "acme-hr"]),
        (["--tenant", "acme", "-k", "1"], 1),
        (["--tenant", "globex"], ["globex"]),
        (["--all-tenants"], ["acme", "acme-hr", "globex", "public"]),
        (["--all-tenants", "--as", "user:bob"], ["acme", "globex", "public"]),
        (["--tenant", "acme", "--as", "user:bob"], ["acme"]),
        (["--tenant", "acme", "--as", "user:bob", "--as", "group:hr"], ["acme", "acme-hr"]),
        (["--tenant", "acme", "--as", "user:ann"], ["acme", "acme-hr"]),
    ],
)
def test_a_search_finds_what_its_caller_may_see(
    project: Project, arguments: list[str], expected: list[str] | int
) -> None:
    """All four documents are equal, so only access decides; and copies stay beside each other."""
    found = sources_of(ask(project, "salary", "--json", *arguments))
    assert len(found) == expected if isinstance(expected, int) else found == expected


def test_hits_say_whose_they_are(project: Project) -> None:
    """An application that asks for all tenants has to tell them apart."""
    result = ask(project, "salary", "--json", "--all-tenants")
    owners = {hit["source"]: hit["tenant"] for hit in json.loads(result.stdout)["hits"]}
    assert owners == {"acme": "acme", "acme-hr": "acme", "globex": "globex", "public": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--tenant is needed: sources of this configuration belong to tenants"),
        (["--as", "user:bob"], "--tenant is needed"),
        (["--tenant", "initech"], "--tenant: 'initech' is the tenant of no source"),
        (["--tenant", ""], "--tenant: '' is the tenant of no source"),
        (["--tenant", "acme", "--all-tenants"], "--all-tenants cannot be combined with a tenant"),
        (["--tenant", "acme", "--as", " "], "--as: '' is empty"),
    ],
)
def test_a_search_that_does_not_say_whose_is_refused(
    project: Project, arguments: list[str], message: str
) -> None:
    """Exit code 2, one line, and no tenant is named that the caller has not named."""
    result = ask(project, "salary", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert "globex" not in result.stderr


def test_the_library_asks_too(project: Project) -> None:
    """An application that calls the function must not slip past the command's check."""
    with pytest.raises(Exception, match="--tenant is needed"):
        list(search(project.workspace, Target("v1", None), ["salary"], mode="sparse"))


def batch_file(tmp_path: Path, *lines: dict[str, object]) -> str:
    """A batch of these lines."""
    file = tmp_path / "batch.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(file)


def test_each_line_of_a_batch_is_asked_for_its_own_caller(project: Project, tmp_path: Path) -> None:
    """One process serves many users; what one may see must not reach the next line."""
    file = batch_file(
        tmp_path,
        {"query": "salary", "tenant": "acme"},
        {"query": "salary", "tenant": "globex", "as": ["group:hr"]},
        {"query": "salary", "tenant": "acme", "as": []},
        {"query": "salary", "tenant": "acme", "as": ["group:hr"]},
    )
    result = ask(project, "--batch", file)
    assert result.exit_code == 0, result.stderr
    answers = [json.loads(line)["hits"] for line in result.stdout.splitlines()]
    assert [sorted(hit["source"] for hit in hits) for hits in answers] == [
        ["acme", "acme-hr"],
        ["globex"],
        ["acme"],
        ["acme", "acme-hr"],
    ]


def test_the_command_line_speaks_for_lines_that_say_nothing(
    project: Project, tmp_path: Path
) -> None:
    """A batch of one tenant need not repeat it a thousand times."""
    file = batch_file(tmp_path, {"query": "salary"}, {"query": "plan", "as": ["user:ann"]})
    result = ask(project, "--batch", file, "--tenant", "acme")
    answers = [json.loads(line)["hits"] for line in result.stdout.splitlines()]
    assert [len(hits) for hits in answers] == [2, 2]


@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        ({}, [], "batch.jsonl:2' cannot be asked: --tenant is needed"),
        ({"tenant": "initech"}, [], ":2' cannot be asked: --tenant is the tenant of no source"),
        ({"tenant": ""}, [], ":2' cannot be asked: --tenant is the tenant of no source"),
        ({"tenant": 7}, [], ":2' has a 'tenant' that is no text"),
        ({"tenant": "acme", "as": "user:ann"}, [], ":2' has an 'as' that is no list of texts"),
        ({"tenant": "acme", "as": [1]}, [], ":2' has an 'as' that is no list of texts"),
        ({"tenant": "acme", "as": [""]}, [], ":2' cannot be asked: --as is empty"),
        ({"tenant": "globex"}, ["--tenant", "acme"], "has 'tenant', which the command line has"),
        ({"as": ["group:hr"]}, ["--as", "user:bob", "--tenant", "acme"], "has 'as', which the"),
    ],
)
def test_a_line_that_cannot_be_asked_refuses_the_batch_by_its_number(
    project: Project,
    tmp_path: Path,
    line: dict[str, object],
    arguments: list[str],
    message: str,
) -> None:
    """Before anything is searched: half a batch of answers helps nobody."""
    first = {} if arguments else {"tenant": "acme"}
    file = batch_file(tmp_path, {"query": "plan", **first}, {"query": "salary", **line})
    result = ask(project, "--batch", file, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr


def test_status_and_why_say_whose_a_source_is(project: Project) -> None:
    """Who asks why somebody cannot find a document sees the tenant beside it."""
    config = ("--config", str(project.config_file), "--json")
    sources = json.loads(run("status", *config).stdout)["sources"]
    assert {name: entry["tenant"] for name, entry in sources.items()} == {
        "acme": "acme",
        "acme-hr": "acme",
        "globex": "globex",
        "public": None,
    }
    path = str(project.folder / "globex" / "plan.txt")
    assert json.loads(run("why", path, *config).stdout)["tenant"] == "globex"
    assert "globex" in run("why", path, *config[:2]).stdout
