"""The whole pipeline on a Qdrant server: `qdrant_loopback` over real sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragassets.defs.resources import WorkspaceResource
from ragassets.queries.audit import run_audit
from ragassets.queries.index_versions import list_index_versions
from ragassets_tests.qdrant_loopback import LoopbackQdrant, loopback_qdrant
from ragassets_tests.scenario import CLEAN, Executioner, Project, fake_embedder, watched_effects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackQdrant]:
    """An empty server."""
    with loopback_qdrant(tmp_path / "server") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: LoopbackQdrant) -> Project:
    """Documents that were never ingested, and a configuration that names the server."""
    project = Project(tmp_path / "project", CLEAN)
    project.configure(
        vector_store=server.url,
        qdrant={"grpc_port": server.grpc_port, "collection_prefix": "acme-"},
    )
    return project


def _is_clean(project: Project) -> bool:
    return run_audit(project.workspace).is_clean


def test_documents_are_ingested_searched_edited_and_audited(
    project: Project, server: LoopbackQdrant
) -> None:
    """Everything that the embedded engine is used for works by URL."""
    with fake_embedder():
        project.ingest()
        assert _is_clean(project)
        assert set(server.engine.collections) == {"acme-v1"}
        assert server.engine.alias_targets["acme-documents"] == "acme-v1"
        found = project.found_uris("paid vacation", mode="sparse")
        assert found[0] == project.uri("vacation.md")
        assert project.found_uris("vacation", mode="hybrid", filters={"source": "handbook"})
        version = list_index_versions(project.workspace)[0]
        assert (version.state, version.live, version.points) == ("sealed", True, version.chunks)

        project.edit("security.md", "sixteen", "eighteen")
        project.path("kitchen.txt").unlink()
        project.ingest(confirmed=["handbook"])
        assert _is_clean(project)
        assert project.holds_text("eighteen")
        assert not project.holds_text("sixteen")
        assert not project.holds_text("coffee")
        n_upserts = server.calls.count("upsert")
        project.ingest()
        assert server.calls.count("upsert") == n_upserts


def test_an_ingestion_that_was_killed_is_finished_by_the_next_one(
    project: Project, server: LoopbackQdrant
) -> None:
    """A real SIGKILL when points are on the server that no committed row has."""
    # In several shards the moments would depend on which documents the path puts where.
    project.configure_source(shards=1)
    executioner = Executioner()
    rehearsal = Project(project.folder.with_name("rehearsal"), CLEAN)
    rehearsal.configure(**{**project.settings, "qdrant": {"grpc_port": server.grpc_port}})
    with fake_embedder(), watched_effects(executioner):
        rehearsal.ingest()
    moment = executioner.moments.index("after upsert")
    assert project.ingest_until(moment) == -9, project.log.read_text()
    assert server.engine.collections.keys() == {"v1", "acme-v1"}
    assert not run_audit(project.workspace).is_clean
    with fake_embedder():
        project.ingest()
    assert _is_clean(project)
    assert len(project.content().points["v1"]) == len(rehearsal.content().points["v1"])


def test_two_writers_of_one_version_wait_for_each_other(project: Project) -> None:
    """A run that finds points without rows takes them for those of a dead one and deletes them."""
    import threading

    workspace = WorkspaceResource(project.config).workspace
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        assert inside.wait(20)
        with project.workspace.index_writer("v1"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with workspace.index_writer("v1"), workspace.index_writer("v2"):
        inside.set()
        thread.join(timeout=0.5)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]
