"""`ragassets index evaluate` on a small project."""

from pathlib import Path

import pytest

from ragassets_tests.small_project import SmallProject, small_project

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    return small_project(tmp_path_factory.getbasetemp())


def test_without_golden_queries_it_says_what_is_judged(project: SmallProject) -> None:
    """No file is no error: the version still has neighbours to find."""
    found = project.json("index", "evaluate", "v1")
    assert found["index_version"] == "v1"
    assert found["state"] == "sealed"
    assert found["quality"] is None
    assert found["recall_vs_exact"] == 1
    assert "completeness and soundness alone" in found["note"]


def test_golden_queries_are_measured_and_a_broken_gate_exits_with_1(
    project: SmallProject, tmp_path: Path
) -> None:
    """For people as lines, for a pipeline as an exit code."""
    copied = project.copy(tmp_path / "project")
    golden = tmp_path / "golden.jsonl"
    golden.write_text(
        f'{{"query": "days of leave", "relevant": {{"{project.uri("leave policy.md")}": 1}}}}\n',
        encoding="utf-8",
    )
    settings = copied.folder / "ragassets.yaml"
    base = settings.read_text(encoding="utf-8")
    aliases = f"aliases:\n  documents: {{live: v1, golden_queries: {golden}}}\n"
    settings.write_text(base + aliases, encoding="utf-8")
    found = copied.json("index", "evaluate", "v1")
    assert found["quality"]["ndcg_at_10"] == 1
    assert found["queries"][0]["query"] == "days of leave"
    settings.write_text(base + aliases + "gates: {max_dead_letter_share: 0.1}\n", encoding="utf-8")
    result = copied.run("index", "evaluate", "v1")
    assert result.exit_code == 1
    assert "max_dead_letter_share" in result.stdout
    assert "nDCG@10:" in result.stdout


def test_a_version_that_was_never_built_is_refused(project: SmallProject) -> None:
    """With the way out."""
    result = project.run("index", "evaluate", "v2")
    assert result.exit_code == 2
    assert "index build v2" in result.stderr
