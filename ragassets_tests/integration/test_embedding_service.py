"""The pipeline with a service as embedding model: outages, throttling, texts that it cannot bear.

Nothing may be lost, nothing may be paid for twice, and no text may be blamed for an outage.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ragassets.core.asset_tables import CHUNKS, DEAD_LETTERS, EMBEDDINGS
from ragassets.core.stages import RunContext, StageReport
from ragassets.queries.why import explain_document
from ragassets.stages.embeddings import update_embeddings
from ragassets_tests.embedding_server import EmbeddingServer, Reply, Request, failing
from ragassets_tests.scenario import CLEAN, MANUAL, Project, manual

pytestmark = pytest.mark.slow

SET = "small-chunks.remote"
KEY = "sk-very-secret-4711"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, server: EmbeddingServer) -> Project:
    """Eight documents, about 40 chunks, a service that gets four texts a request, one try each."""
    made = Project(tmp_path / "project", {**CLEAN, MANUAL: manual()})
    made.configure(
        chunkings={"small-chunks": {"max_tokens": 64, "overlap_tokens": 0}},
        embedding_models={
            "remote": {
                "provider": "openai",
                "model": "tiny",
                "dim": 8,
                "base_url": server.url,
                "api_key": KEY,
                "batch_texts": 4,
                "concurrency": 1,
                "retry": {"attempts": 1},
                "circuit_breaker": {"failures": 2},
            }
        },
        index_versions={"v1": {"chunking": "small-chunks", "embedding_model": "remote"}},
    )
    return made


def embed(project: Project) -> dict[str, StageReport]:
    """Run the stage alone, as a new run of Dagster would."""
    workspace = project.workspace
    context = RunContext(run_id="test", now=lambda: datetime.now(UTC))
    return update_embeddings(workspace, SET, project.config.source_shards(), context)


def answered(server: EmbeddingServer) -> list[str]:
    """Texts of the requests that got vectors."""
    return [text for request in server.sound for text in request["input"]]


def test_an_outage_in_the_middle_loses_nothing_and_embeds_nothing_twice(
    project: Project, server: EmbeddingServer
) -> None:
    """The first run keeps what it got; the second one asks for the rest only."""
    server.script = [None, None, None]
    server.rule = lambda _request: failing(503)
    first = project.ingest()
    n_chunks = project.rows(CHUNKS.outputs).height
    failures = project.rows(EMBEDDINGS.failures)
    assert n_chunks > 30
    assert project.rows(EMBEDDINGS.outputs).height == 12
    assert failures.height == n_chunks - 12
    assert set(failures["error_reason"]) == {"embedding_service_unavailable"}
    assert failures["is_transient"].all()
    assert set(failures["attempts"]) == {0}
    assert first.problems
    # Two batches in vain open the circuit, and the plain text showed that nobody is to blame.
    assert len(server.requests) <= 3 + 2 * 2
    assert project.rows(DEAD_LETTERS).height == 0

    # Which twelve texts came first follows from the shards, so from where the project lies.
    begun = set(project.rows(EMBEDDINGS.outputs)["uri"])
    for uri, n_failed in Counter(failures["uri"]).items():
        verdict = explain_document(project.workspace, uri).verdict
        if uri in begun:
            assert verdict.endswith(f"but {n_failed} of its chunks failed")
        else:
            assert verdict.startswith("not searchable yet: embeddings met an outage")

    server.rule = lambda _request: None
    second = project.ingest()
    assert second.problems == ()
    assert project.rows(EMBEDDINGS.outputs).height == n_chunks
    assert project.rows(EMBEDDINGS.failures).height == 0
    assert project.disagreements() == []
    assert project.audit() == []
    texts = project.rows(CHUNKS.outputs)["text"]
    assert Counter(answered(server)) == Counter(dict.fromkeys(texts, 1))

    n_requests = len(server.requests)
    project.ingest()
    assert len(server.requests) == n_requests


def test_a_long_outage_parks_no_chunk(project: Project, server: EmbeddingServer) -> None:
    """Five runs in vain give a poison chunk up; a service that was down looked at none."""
    server.rule = lambda _request: failing(503)
    project.ingest()
    for _ in range(6):
        embed(project)
    assert project.rows(DEAD_LETTERS).height == 0
    server.rule = lambda _request: None
    embed(project)
    assert project.rows(EMBEDDINGS.outputs).height == project.rows(CHUNKS.outputs).height


def test_a_text_that_is_refused_or_breaks_the_service_costs_its_own_chunk_only(
    project: Project, server: EmbeddingServer
) -> None:
    """A refused chunk is a dead letter at once; one that breaks the service after five runs."""
    bad = {"coffee": failing(400, "too_long"), "library": failing(500)}

    def refuse(request: Request) -> Reply | None:
        return next(
            (reply for word, reply in bad.items() if any(word in t for t in request["input"])),
            None,
        )

    server.rule = refuse
    project.ingest()
    failures = project.rows(EMBEDDINGS.failures).sort("error_reason")
    assert failures.select("error_reason", "is_transient", "attempts").rows() == [
        ("embedding_refused", False, 1),
        ("embedding_service_unavailable", True, 1),
    ]
    n_chunks = project.rows(CHUNKS.outputs).height
    assert project.rows(EMBEDDINGS.outputs).height == n_chunks - 2
    for _ in range(5):
        embed(project)
    n_requests = len(server.requests)
    embed(project)
    assert len(server.requests) == n_requests
    assert project.rows(EMBEDDINGS.failures)["attempts"].sort().to_list() == [1, 5]


def test_the_key_reaches_no_file_of_the_project(project: Project, server: EmbeddingServer) -> None:
    """Tables, catalog, checkpoints, collections: everything under the root."""
    server.script = [None, failing(503)]
    project.ingest()
    assert set(server.keys) == {f"Bearer {KEY}"}
    files = [path for path in (project.folder / ".ragassets").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    messages = project.rows(EMBEDDINGS.failures, pl.col("error_message").str.contains(KEY))
    assert messages.height == 0
