"""`ragassets index canary` and searches beside it, from outside."""

import json
from pathlib import Path

import pytest
from typer.testing import Result

from ragassets_tests.scenario import Project
from ragassets_tests.small_project import run
from ragassets_tests.two_versions import LoadedModels, build_two_versions

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        LoadedModels().install(patch)
        return build_two_versions(tmp_path_factory.mktemp("cli") / "project")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> LoadedModels:
    models = LoadedModels()
    models.install(monkeypatch)
    return models


@pytest.fixture
def project(built: Project, models: LoadedModels) -> Project:
    return built.restore()


def command(project: Project, *arguments: str) -> Result:
    return run("--config", str(project.config_file), *arguments)


def succeed(project: Project, *arguments: str) -> str:
    result = command(project, *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def as_json(project: Project, *arguments: str) -> dict:
    return json.loads(succeed(project, "--json", *arguments))


def test_a_canary_lives_until_its_version_is_promoted(project: Project) -> None:
    """Begun, raised, seen, searched, promoted: what a person does on a good day."""
    begun = succeed(project, "index", "canary", "v2", "--share", "10%", "--reason", "try it")
    assert begun == "alias documents: no canary -> canary v2, 10%\n"
    again = succeed(project, "index", "canary", "v2", "--share", "0.1")
    assert again == "alias documents: canary v2, 10% already; nothing to do\n"
    raised = as_json(project, "index", "canary", "v2", "--share", "100%")
    assert (raised["from"]["share"], raised["to"]["share"]) == (0.1, 1.0)
    assert raised["from"]["canary_id"] == raised["to"]["canary_id"]

    versions = as_json(project, "status")["index_versions"]
    assert versions["v2"]["canary_of"] == {"documents": 1.0}
    assert [name for name, entry in versions.items() if entry["live"]] == ["v1"]
    listed = succeed(project, "index", "list")
    assert "100% of documents" in listed

    found = as_json(project, "search", "paid vacation", "--user", "anna")
    assert (found["index_version"], found["arm"]) == ("v2", "canary")
    assert found["hits"]

    promoted = succeed(project, "index", "promote", "v2")
    assert promoted == "alias documents: v1 -> v2\nalias documents: canary v2 ended with it\n"
    assert set(as_json(project, "search", "paid vacation")) == {"hits"}


def test_a_batch_names_version_and_arm_of_every_line(project: Project, tmp_path: Path) -> None:
    succeed(project, "index", "canary", "v2", "--share", "50%")
    file = tmp_path / "queries.jsonl"
    file.write_text(
        "".join(
            json.dumps({"query": "paid vacation", "user": f"user-{number}"}) + "\n"
            for number in range(20)
        )
    )
    lines = [
        json.loads(line)
        for line in succeed(project, "search", "--batch", str(file)).split("\n")[:-1]
    ]
    assert len(lines) == 20
    assert {(line["index_version"], line["arm"]) for line in lines} == {
        ("v1", "live"),
        ("v2", "canary"),
    }
    assert {line["query"] for line in lines} == {"paid vacation"}


def test_a_broken_canary_says_so_once_and_breaks_nothing(
    project: Project, models: LoadedModels, tmp_path: Path
) -> None:
    succeed(project, "index", "canary", "v2", "--share", "100%")
    models.broken.add("other")
    file = tmp_path / "queries.jsonl"
    file.write_text('{"query": "vacation"}\n{"query": "coffee"}\n')
    result = command(project, "search", "--batch", str(file))
    assert result.exit_code == 0
    assert result.stderr == (
        "attention: canary 'v2' failed: the weights cannot be read; 'v1' answered instead\n"
    )
    assert [json.loads(line)["index_version"] for line in result.stdout.splitlines()] == ["v1"] * 2


def test_an_ended_canary_answers_nothing(project: Project) -> None:
    succeed(project, "index", "canary", "v2", "--share", "100%")
    assert succeed(project, "index", "canary", "--off") == (
        "alias documents: canary v2, 100% -> no canary\n"
    )
    assert set(as_json(project, "search", "vacation")) == {"hits"}
    assert succeed(project, "index", "canary", "--off") == (
        "alias documents: no canary already; nothing to do\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["v2"],
        ["--share", "10%"],
        ["v2", "--off"],
        ["--share", "10%", "--off"],
        ["v2", "--share", "10"],
    ],
)
def test_half_a_request_is_wrong_use(project: Project, arguments: list[str]) -> None:
    assert command(project, "index", "canary", *arguments).exit_code == 2


def test_a_version_that_was_never_built_is_refused(project: Project) -> None:
    result = command(project, "index", "canary", "v3", "--share", "10%")
    assert result.exit_code == 1
    assert "'v3' was never built" in result.stderr
