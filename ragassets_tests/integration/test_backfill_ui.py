"""A new embedding model, filled from the Dagster UI the way a person does it: by clicking.

With RAGASSETS_WRITE_SCREENSHOTS=1 the picture of the documentation is written anew.
"""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEXED_CHUNKS, PARSED_DOCUMENTS
from ragassets.defs.ingest import ingest
from ragassets.defs.instance import open_instance
from ragassets.defs.resources import WorkspaceResource
from ragassets_tests.browser import Page, chromium, wait_until
from ragassets_tests.corpora import REPOSITORY_ROOT
from ragassets_tests.dagster_project import Dagster, copy_instance_settings, dagster_dev
from ragassets_tests.scenario import CLEAN, Project

pytestmark = [pytest.mark.ui, pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(900)]

BUNDLED = {"model": "all-MiniLM-L6-v2"}
NEW_SET = "recursive-256.minilm-128"
ONLY_MISSING = "Backfill only failed and missing partitions within selection"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Seven documents under `v1`; the configuration has a second model that nobody built."""
    project = Project(tmp_path_factory.mktemp("backfill"), CLEAN)
    project.configure(
        embedding_models={"minilm": {**BUNDLED, "dim": 384}, "minilm-128": {**BUNDLED, "dim": 128}},
        index_versions={
            "v1": {"chunking": "recursive-256", "embedding_model": "minilm"},
            "v2": {
                "chunking": "recursive-256",
                "embedding_model": "minilm-128",
                "backfill": "manual",
            },
        },
    )
    copy_instance_settings(project.folder)
    with open_instance(project.folder) as instance:
        report = ingest(WorkspaceResource(project.config), instance, [], progress=lambda *_: None)
    assert report.problems == ()
    return project


def test_a_new_model_is_backfilled_by_clicking(project: Project, tmp_path: Path) -> None:
    """One run takes all four partitions, so that the model loads once; nothing is parsed again."""
    tables = project.workspace.tables
    before = {
        stage.name: tables.snapshot(stage.outputs).version for stage in (PARSED_DOCUMENTS, CHUNKS)
    }
    with dagster_dev(project.folder) as dagster:
        earlier = {run["runId"] for run in dagster.runs()}
        with chromium(tmp_path / "browser") as page:
            _launch_missing(page, dagster, tmp_path)
        backfill = wait_until(
            lambda: _newest_backfill(dagster),
            lambda found: str(found.get("status")).startswith(("COMPLETED", "FAILED", "CANCELED")),
            seconds=600,
            what="the backfill",
        )
        runs = [run for run in dagster.runs() if run["runId"] not in earlier]

    assert backfill["status"] == "COMPLETED_SUCCESS"
    assert sorted(backfill["partitionNames"]) == [
        f"{NEW_SET}|handbook-{number:03d}" for number in range(4)
    ]
    assert [run["status"] for run in runs] == ["SUCCESS"]
    made = project.rows(EMBEDDINGS.outputs, pl.col("embedding_set") == NEW_SET)
    assert sorted(made["chunk_id"]) == sorted(project.rows(CHUNKS.outputs)["chunk_id"])
    assert set(made["vector"].list.len()) == {128}
    for stage in (PARSED_DOCUMENTS, CHUNKS):
        assert tables.snapshot(stage.outputs).version == before[stage.name], stage.name
    # Nobody asked for the version itself: it waits for a person.
    assert set(project.rows(INDEXED_CHUNKS.outputs)["index_version"]) == {"v1"}


def _launch_missing(page: Page, dagster: Dagster, folder: Path) -> None:
    """Select all partitions in both dimensions, then only the missing ones, and launch."""
    page.open(f"{dagster.address}/assets/embeddings?view=partitions")
    page.wait_for_text("Materialized (4)", "Missing (4)", "Materialize…", seconds=180)
    page.click_text("Materialize…")
    page.wait_for_text("Partition selection", "Launch backfill", seconds=60)
    page.evaluate(
        "[...document.querySelectorAll('button')]"
        ".filter(button => button.innerText.trim() === 'All').forEach(button => button.click())"
    )
    page.wait_for_text("8 partitions", seconds=60)
    page.click_text(ONLY_MISSING)
    page.wait_for_text("4 partitions", seconds=60)
    is_writing = os.environ.get("RAGASSETS_WRITE_SCREENSHOTS") == "1"
    pictures = REPOSITORY_ROOT / "docs" / "images" if is_writing else folder
    assert page.screenshot(pictures / "backfill.png").stat().st_size > 20_000
    page.click_text("Launch backfill")
    wait_until(lambda: _newest_backfill(dagster), bool, seconds=120, what="a backfill")


def _newest_backfill(dagster: Dagster) -> dict[str, Any]:
    found = dagster.ask(
        "{partitionBackfillsOrError {... on PartitionBackfills {results"
        " {id status partitionNames}}}}"
    )["partitionBackfillsOrError"]["results"]
    return found[0] if found else {}
