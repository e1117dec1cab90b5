"""The whole pipeline on the vector stores that are no Qdrant."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ragassets.queries.audit import run_audit
from ragassets.queries.index_versions import list_index_versions
from ragassets_tests.chroma_server import running_chroma
from ragassets_tests.pinecone_loopback import loopback_pinecone
from ragassets_tests.scenario import CLEAN, Executioner, Project, fake_embedder, watched_effects
from ragassets_tests.small_project import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

Settings = Mapping[str, object]


def faiss_settings(_folder: Path) -> Iterator[Settings]:
    yield {"vector_store": "faiss:.ragassets/faiss"}


def chroma_settings(_folder: Path) -> Iterator[Settings]:
    yield {"vector_store": "chroma:.ragassets/chroma"}


def chroma_server_settings(folder: Path) -> Iterator[Settings]:
    with running_chroma(folder / "server") as server:
        yield {"vector_store": f"chroma+{server.url}", "chroma": {"collection_prefix": "acme-"}}


def pinecone_settings(_folder: Path) -> Iterator[Settings]:
    with loopback_pinecone() as service:
        service.lag_seconds = 0.02
        pinecone = {"api_key": service.api_key, "host": service.url}
        yield {"vector_store": "pinecone://acme", "pinecone": pinecone}


BACKENDS: dict[str, Callable[[Path], Iterator[Settings]]] = {
    "faiss": faiss_settings,
    "chroma": chroma_settings,
    "chroma-server": chroma_server_settings,
    "pinecone": pinecone_settings,
}


@pytest.fixture(params=list(BACKENDS))
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Sections of a configuration that name a running store."""
    with contextmanager(BACKENDS[request.param])(tmp_path) as sections:
        yield sections


@pytest.fixture
def project(tmp_path: Path, settings: Settings) -> Project:
    """Documents that were never ingested."""
    project = Project(tmp_path / "project", CLEAN)
    project.configure(**settings)
    return project


def is_clean(project: Project) -> bool:
    return run_audit(project.workspace).is_clean and project.disagreements() == []


def test_documents_are_ingested_searched_edited_and_audited(project: Project) -> None:
    """Everything that the embedded Qdrant is used for works, but sparse vectors."""
    with fake_embedder():
        project.ingest()
        assert is_clean(project)
        text = project.chunk_texts("vacation.md")[0]
        assert project.found_uris(text, mode="dense")[0] == project.uri("vacation.md")
        assert project.found_uris(text, mode="dense", filters={"source": "handbook"})
        assert project.found_uris(text, mode="dense", filters={"source": "other"}) == []
        version = list_index_versions(project.workspace)[0]
        assert (version.state, version.live, version.points) == ("sealed", True, version.chunks)

        project.edit("security.md", "sixteen", "eighteen")
        project.path("kitchen.txt").unlink()
        project.configure_source(metadata={"team": "facility"})
        project.ingest(confirmed=["handbook"])
        assert is_clean(project)
        assert project.holds_text("eighteen")
        assert not project.holds_text("sixteen")
        assert not project.holds_text("coffee")
        assert project.found_uris(text, mode="dense", filters={"team": "facility"})
        before = project.content()
        project.ingest()
        assert before.differences(project.content()) == []


def test_an_ingestion_that_was_killed_is_finished_by_the_next_one(project: Project) -> None:
    """A real SIGKILL around each kind of write to the collection."""
    if "://" in str(project.settings["vector_store"]):
        pytest.skip("putting a project back as it was does not put its server back")
    project.configure_source(shards=1)
    project.save()
    executioner = Executioner()
    with fake_embedder(), watched_effects(executioner):
        project.ingest()
    undisturbed = project.content()
    for effect in ("before upsert", "after upsert", "after switch_alias"):
        project = project.restore()
        moment = executioner.moments.index(effect)
        assert project.ingest_until(moment) == -signal.SIGKILL, project.log.read_text()
        with fake_embedder():
            project.ingest()
        assert undisturbed.differences(project.content()) == [], effect
        assert is_clean(project)


def test_every_command_works(project: Project) -> None:
    """As a user meets it; what the store cannot do is said in words."""
    config = ("--config", str(project.config_file))
    with fake_embedder():
        assert run("ingest", *config).exit_code == 0
        found = run("search", "anything", "--mode", "hybrid", "--json", *config)
        assert found.exit_code == 0
        assert len(json.loads(found.stdout)["hits"]) == 5
        assert "holds no sparse vectors: dense instead of hybrid" in found.stderr
        refused = run("search", "anything", "--mode", "sparse", *config)
        assert refused.exit_code == 2
        assert "vector_store that does: a path or http(s)://HOST" in refused.stderr
        plan = json.loads(run("index", "plan", "v1", "--json", *config).stdout)
        assert plan["points"]["reuse"] == len(CLEAN)
        status = json.loads(run("status", "--json", *config).stdout)
        assert [v["points"] for v in status["index_versions"].values()] == [len(CLEAN)]
        assert run("audit", *config).exit_code == 0
        doctor = run("doctor", "--json", *config)
        checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
        assert checks["vector store"]["outcome"] == "ok", checks
        assert "v1: 7 points; documents -> v1" in checks["vector store"]["value"]
