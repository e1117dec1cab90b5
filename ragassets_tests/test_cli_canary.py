"""`ragassets index canary` and searches beside it, from outside."""

import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import Result

from ragassets.stages.search_log import record_feedback
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


def test_a_week_of_searches_is_compared(project: Project, tmp_path: Path) -> None:
    """Asked, said what was useful, compared; in the table, in JSON and in the UI's metadata."""
    from ragassets.defs.instance import open_instance

    succeed(project, "index", "canary", "v2", "--share", "50%")
    file = tmp_path / "queries.jsonl"
    lines = [{"query": "paid vacation", "user": f"user-{number}"} for number in range(160)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [
        json.loads(line)
        for line in succeed(project, "search", "--batch", str(file)).split("\n")[:-1]
    ]
    for number, line in enumerate(found):
        rank = 1 if line["arm"] == "canary" else 2
        asked = (line["search_id"], line["hits"][rank - 1]["uri"])
        if number < 3:
            assert as_json(project, "index", "feedback", *asked)["rank"] == rank
        else:  # the same without a command each
            record_feedback(project.workspace, *asked, datetime.now(UTC))
    n_canary = sum(line["arm"] == "canary" for line in found)

    told = as_json(project, "index", "compare")
    assert told["arms"]["canary"]["searches"] == told["arms"]["canary"]["feedback"] == n_canary
    assert told["arms"]["live"]["searches"] == 160 - n_canary
    assert told["differences"]["MRR"]["difference"] == pytest.approx(0.5)
    assert told["differences"]["MRR"]["verdict"] == "better"
    assert told["differences"]["success@3"]["verdict"] == "no difference shown"
    assert told["is_running"]
    assert (told["index_version"], told["live_version"], told["share"]) == ("v2", "v1", 0.5)

    table = succeed(project, "index", "compare", "--since", "7d")
    assert "canary v2, 50%, beside v1, is running" in table
    assert any(
        line.split()[0] == "MRR" and line.endswith("better") for line in table.splitlines() if line
    )

    succeed(project, "index", "canary", "--off")
    with open_instance(project.folder) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("live_index"))
    assert event is not None
    assert event.asset_materialization is not None
    report = event.asset_materialization.metadata["comparison documents"].value
    assert "## v2 beside v1" in str(report)
    assert "| MRR | 0.500 | 1.000 | 0.500 |" in str(report)


def test_an_unknown_search_gets_no_feedback(project: Project) -> None:
    result = command(project, "index", "feedback", "20260101T000000-abc.0", "file:///a.md")
    assert result.exit_code == 2
    assert "no search of a canary" in result.stderr


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
