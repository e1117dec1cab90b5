"""The Dagster UI on a project: what `ragassets ingest` made is there, and a person can go on.

With RAGASSETS_WRITE_SCREENSHOTS=1 the two pictures of the documentation are written anew.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ragassets.core.asset_tables import UNIQUE_DOCUMENTS
from ragassets.defs.ingest import ingest
from ragassets.defs.instance import open_instance
from ragassets.defs.resources import WorkspaceResource
from ragassets_tests.browser import Page, chromium, wait_until
from ragassets_tests.corpora import REPOSITORY_ROOT
from ragassets_tests.dagster_project import Dagster, copy_instance_settings, dagster_dev
from ragassets_tests.scenario import Project

pytestmark = [pytest.mark.ui, pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(900)]

DEMO_CORPUS = REPOSITORY_ROOT / "ragassets" / "demo" / "corpus"
PICTURES = REPOSITORY_ROOT / "docs" / "images"
IS_WRITING = os.environ.get("RAGASSETS_WRITE_SCREENSHOTS") == "1"

ASSETS = (
    "source_objects",
    "raw_documents",
    "parsed_documents",
    "valid_documents",
    "clean_documents",
    "_document_signatures",
    "unique_documents",
    "chunks",
    "embeddings",
    "indexed_chunks",
    "index_versions",
    "live_index",
    "dead_letters",
    "document_catalog",
    "audit",
    "forgotten_documents",
)
DOCUMENT_ASSETS = ASSETS[1:7]

FINAL = {"SUCCESS", "FAILURE", "CANCELED"}


class Scene(NamedTuple):
    """An ingested project with the UI running on it."""

    project: Project
    dagster: Dagster


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The demo corpus, ingested the way the command does it, then `dagster dev`."""
    # The pictures show the folder, so it has a name that means something.
    folder = (
        Path(tempfile.mkdtemp(prefix="fernhill-"))
        if IS_WRITING
        else tmp_path_factory.mktemp("project")
    )
    project = Project(folder)
    shutil.copytree(DEMO_CORPUS, project.documents, dirs_exist_ok=True)
    copy_instance_settings(folder)
    with open_instance(folder) as instance:
        report = ingest(WorkspaceResource(project.config), instance, [], progress=lambda *_: None)
    assert report.problems == ()
    with dagster_dev(folder) as dagster:
        yield Scene(project, dagster)


@pytest.fixture(scope="module")
def page(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser; skips where there is none."""
    with chromium(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_the_runs_of_an_ingestion_are_listed_with_their_partitions(scene: Scene) -> None:
    """The command and the UI share one history."""
    runs = {run["jobName"]: run for run in scene.dagster.runs()}

    assert set(runs) == {
        "observe_sources",
        "process_documents",
        "decide_duplicates",
        "chunk_documents",
        "embed_chunks",
        "index_chunks",
        "seal_index_versions",
        "move_aliases",
        "update_catalog",
    }
    assert {run["status"] for run in runs.values()} == {"SUCCESS"}
    tags = runs["process_documents"]["tags"]
    assert tags["dagster/asset_partition_range_start"] == "handbook-000"
    assert tags["dagster/asset_partition_range_end"] == "handbook-003"


def test_after_an_ingestion_no_partition_is_missing_failed_or_stale(scene: Scene) -> None:
    """Otherwise the UI offers to compute again what is there."""
    nodes = scene.dagster.ask(
        "{assetNodes {assetKey {path} isObservable partitionKeys"
        " partitionStats {numPartitions numMaterialized numFailed}}}"
    )["assetNodes"]
    stale = {
        (node["assetKey"]["path"][0], key): _stale_causes(scene.dagster, node, key)
        for node in nodes
        if not node["isObservable"]
        for key in node["partitionKeys"]
    }

    assert sorted(node["assetKey"]["path"][0] for node in nodes) == sorted(ASSETS)
    for node in nodes:
        stats = node["partitionStats"]
        if stats is None or node["isObservable"]:
            continue
        assert stats["numMaterialized"] == stats["numPartitions"] > 0, node
        assert stats["numFailed"] == 0, node
    assert {key: causes for key, causes in stale.items() if causes} == {}


def _stale_causes(dagster: Dagster, node: dict[str, Any], partition: str) -> list[str]:
    found = dagster.ask(
        "query($key: [AssetKeyInput!], $partition: String) {assetNodes(assetKeys: $key)"
        " {staleCauses(partition: $partition) {reason}}}",
        key=[{"path": node["assetKey"]["path"]}],
        partition=partition,
    )
    return [cause["reason"] for cause in found["assetNodes"][0]["staleCauses"]]


def test_the_asset_graph_shows_every_asset(scene: Scene, page: Page, tmp_path: Path) -> None:
    """The first thing that a person opens."""
    page.open(f"{scene.dagster.address}/asset-groups?expanded={_expanded()}")
    page.wait_for_text("source_objects", "raw_documents", "embeddings", "live_index", seconds=120)
    page.click_text("Hide navigation")
    # Opened again, the graph fits itself into the wider room.
    page.open(str(page.evaluate("location.href")))
    page.wait_for_text("source_objects", "live_index", seconds=120)
    time.sleep(3)
    text = page.text()

    for asset in ASSETS:
        # The graph shortens long names in the middle.
        assert asset in text or asset in {"_document_signatures", "forgotten_documents"}
    _picture(page, tmp_path, "asset-graph.png")


def _expanded() -> str:
    groups = ("ingestion", "embedding", "indexing", "operations")
    return "%2C".join(f"global%40global%3A{group}" for group in groups)


def test_a_partition_page_shows_what_was_done(scene: Scene, page: Page, tmp_path: Path) -> None:
    """Counts, a preview and the settings that made the partition."""
    page.open(
        f"{scene.dagster.address}/assets/chunks?view=partitions"
        "&partition=recursive-256%7Chandbook-001"
    )
    text = page.wait_for_text("n_computed", "n_reused", "preview", "max_tokens", seconds=120)

    assert "Materialized (4)" in text
    assert "Failed (0)" in text
    _picture(page, tmp_path, "partition.png")


def test_a_partition_leads_to_what_it_was_made_from(scene: Scene, page: Page) -> None:
    """A click from chunks to their documents: the address fits behind any host and prefix."""
    page.open(
        f"{scene.dagster.address}/assets/chunks?view=partitions"
        "&partition=recursive-256%7Chandbook-001"
    )
    page.wait_for_text("made_from", "unique_documents handbook-001", seconds=120)
    page.click_text("unique_documents handbook-001")
    page.wait_for_text("duplicate_of", "clean_documents handbook-001", seconds=120)

    assert page.evaluate("location.pathname") == "/assets/unique_documents"
    assert "partition=handbook-001" in str(page.evaluate("location.search"))


def test_an_observation_says_what_was_found(scene: Scene, page: Page) -> None:
    """`source_objects` is observed, not made: its numbers stand with the observation."""
    page.open(f"{scene.dagster.address}/assets/source_objects?view=overview")

    text = page.wait_for_text("n_objects_of_source", seconds=120)

    assert "Observe" in text


def _shards_in_use(scene: Scene) -> list[str]:
    """Shards that hold documents, sorted: which ones do follows from absolute paths."""
    return sorted(set(scene.project.rows(UNIQUE_DOCUMENTS.outputs)["source_shard"]))


def test_a_partition_that_is_launched_from_the_ui_reuses_everything(scene: Scene) -> None:
    """One partition through the document stages, as the button of the UI launches it."""
    shard = _shards_in_use(scene)[-1]
    before = _latest(scene.dagster, "clean_documents", shard)
    launched = scene.dagster.ask(
        "mutation($run: ExecutionParams!) {launchPipelineExecution(executionParams: $run)"
        " {__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}",
        run={
            "selector": {
                "repositoryLocationName": "ragassets",
                "repositoryName": "__repository__",
                "pipelineName": "process_documents",
            },
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": shard}]},
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    status = _final_status(scene.dagster, launched["run"]["runId"])
    after = _latest(scene.dagster, "clean_documents", shard)

    assert status == "SUCCESS"
    assert after["runId"] == launched["run"]["runId"]
    assert after["metadata"]["n_computed"] == 0
    assert after["metadata"]["n_reused"] == after["metadata"]["n_inputs"] > 0
    assert after["data_version"] == before["data_version"]


def test_a_backfill_of_two_partitions_gives_each_its_own_events(scene: Scene) -> None:
    """What a person selects in the partitions dialog; the daemon turns it into runs."""
    first, *_, last = _shards_in_use(scene)
    before = {key: _latest(scene.dagster, "unique_documents", key) for key in (first, last)}
    launched = scene.dagster.ask(
        "mutation($backfill: LaunchBackfillParams!) {launchPartitionBackfill("
        "backfillParams: $backfill) {__typename ... on LaunchBackfillSuccess {backfillId}"
        " ... on PythonError {message}}}",
        backfill={
            "assetSelection": [{"path": [name]} for name in DOCUMENT_ASSETS],
            "partitionNames": list(before),
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    status = _final_backfill_status(scene.dagster, launched["backfillId"])
    after = {key: _latest(scene.dagster, "unique_documents", key) for key in before}

    assert status == "COMPLETED_SUCCESS"
    for key, event in after.items():
        assert event["runId"] != before[key]["runId"]
        assert event["data_version"] == before[key]["data_version"]
    assert after[first]["data_version"] != after[last]["data_version"]


def _final_status(dagster: Dagster, run_id: str) -> str:
    def status() -> str:
        return next(run["status"] for run in dagster.runs() if run["runId"] == run_id)

    return wait_until(status, FINAL.__contains__, seconds=240, what=f"run {run_id}")


def _final_backfill_status(dagster: Dagster, backfill_id: str) -> str:
    def status() -> str:
        found = dagster.ask(
            "query($id: String!) {partitionBackfillOrError(backfillId: $id)"
            " {... on PartitionBackfill {status}}}",
            id=backfill_id,
        )
        return found["partitionBackfillOrError"]["status"]

    return wait_until(
        status,
        lambda value: value.startswith(("COMPLETED", "FAILED", "CANCELED")),
        seconds=300,
        what=f"backfill {backfill_id}",
    )


def _latest(dagster: Dagster, asset: str, partition: str) -> dict[str, Any]:
    """The newest materialization of a partition."""
    found = dagster.ask(
        "query($key: [AssetKeyInput!], $partitions: [String!]) {assetNodes(assetKeys: $key)"
        " {latestMaterializationByPartition(partitions: $partitions) {runId tags {key value}"
        " metadataEntries {label ... on IntMetadataEntry {intValue}}}}}",
        key=[{"path": [asset]}],
        partitions=[partition],
    )
    event = found["assetNodes"][0]["latestMaterializationByPartition"][0]
    tags = {tag["key"]: tag["value"] for tag in event["tags"]}
    return {
        "runId": event["runId"],
        "data_version": tags["dagster/data_version"],
        "metadata": {e["label"]: e.get("intValue") for e in event["metadataEntries"]},
    }


def _picture(page: Page, folder: Path, name: str) -> None:
    path = page.screenshot((PICTURES if IS_WRITING else folder) / name)
    assert path.stat().st_size > 20_000, "the page is nearly empty"
