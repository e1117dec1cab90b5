"""`ragassets audit --repair` and `ragassets forget` as a person and a script meet them."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ragassets.cli import app
from ragassets_tests import damage
from ragassets_tests.scenario import CLEAN, Project, fake_embedder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]


@pytest.fixture(autouse=True)
def fakes() -> Iterator[None]:
    with fake_embedder():
        yield


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project", CLEAN)
    project.configure_source(shards=1)
    assert _run(project, "ingest").exit_code == 0
    return project


def _run(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--config", str(project.config_file), *arguments])


def test_damage_is_reported_mended_and_reported_as_mended(project: Project) -> None:
    """0 only when clean: a script needs nothing but the exit code."""
    damage.lost_points(project, random.Random(1))
    damage.wrong_catalog_rows(project, random.Random(1))
    found = _run(project, "audit", "--json")
    assert found.exit_code == 1
    n_lost = json.loads(found.stdout)["missing_points"]
    assert n_lost > 0

    mended = _run(project, "audit", "--repair", "--json")
    assert mended.exit_code == 0, mended.stderr
    values = json.loads(mended.stdout)
    assert values["clean"] is True
    assert (values["orphan_points"], values["missing_points"], values["stale_points"]) == (0, 0, 0)
    assert values["found"] == {"missing_points": n_lost, "wrong_catalog_rows": 1}
    assert values["repaired"] == values["found"]
    assert values["unrepaired"] == []

    again = _run(project, "audit", "--repair")
    assert again.exit_code == 0
    assert again.stdout.strip() == "clean"


def test_forgetting_asks_proves_refuses_and_can_be_undone(project: Project) -> None:
    path, uri = str(project.path("kitchen.txt")), project.uri("kitchen.txt")
    unsure = _run(project, "forget", path)
    assert unsure.exit_code == 2
    assert "--yes" in unsure.stderr
    assert project.holds_text("coffee")

    done = _run(project, "forget", path, "--yes", "--reason", "they asked", "--json")
    assert done.exit_code == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["forgotten"], values["uris"]) == (True, [uri])
    assert values["removed"]["points"] == 1
    assert values["proof"]["left"] == []
    assert values["proof"]["searches"] == 2
    assert values["same_bytes"] == values["next_in_line"] == []

    assert _run(project, "ingest").exit_code == 0
    assert not project.holds_text("coffee")
    why = _run(project, "why", path)
    assert why.stdout.startswith("forgotten by ")
    assert "they asked" in why.stdout
    status = json.loads(_run(project, "status", "--json").stdout)
    assert status["sources"]["handbook"]["forgotten"] == 1
    assert json.loads(_run(project, "audit", "--json").stdout)["clean"] is True

    assert _run(project, "forget", "--undo", path).exit_code == 0
    assert _run(project, "forget", "--undo", path).exit_code == 2
    assert _run(project, "ingest").exit_code == 0
    assert project.holds_text("coffee")


def test_a_document_that_nobody_knows_cannot_be_forgotten(project: Project) -> None:
    result = _run(project, "forget", str(project.path("never.txt")), "--yes")
    assert result.exit_code == 2
    assert "is not known" in result.stderr
