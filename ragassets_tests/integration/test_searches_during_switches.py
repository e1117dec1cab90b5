"""Searches never fail while an alias is promoted, rolled back, tried by a canary, and cleaned up.

Clients in threads and in another process search without pause. Every answer is checked against what
its version answers when nothing happens: a mix of two versions, or half of one, is a finding.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.indexing import PointBatch, chunk_payload, point_id
from ragassets.stages.canaries import change_canary
from ragassets.stages.live_index import move_aliases
from ragassets_tests.qdrant_loopback import loopback_qdrant
from ragassets_tests.scenario import Project
from ragassets_tests.search_loop import (
    Expected,
    SearchLoop,
    expected_answers,
    wait_for,
    wait_for_rounds,
)
from ragassets_tests.two_versions import CONTEXT, MODELS, LoadedModels, build_two_versions

pytestmark = [pytest.mark.slow, pytest.mark.integration]

N_THREADS = {"embedded": 2, "server": 3}
N_CYCLES = {"embedded": 1, "server": 3}
"""An embedded store has one owner at a time: who switches waits for those who search."""

STALE = [f"{number:032x}" for number in range(1, 41)]
"""Chunk ids of points that no table knows."""


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def project(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Project]:
    LoadedModels().install(monkeypatch)
    if store == "embedded":
        yield build_two_versions(tmp_path / "project")
        return
    with loopback_qdrant(tmp_path / "server") as server:
        sections = {"vector_store": server.url, "qdrant": {"grpc_port": server.grpc_port}}
        yield build_two_versions(tmp_path / "project", **sections)


class Operator:
    """Everything that a person does to an alias on a busy day."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def promote(self, version: str) -> None:
        self._move("promote", version)

    def roll_back(self) -> None:
        self._move("rollback", "")

    def _move(self, action: str, version: str) -> None:
        moved = move_aliases(
            self.workspace,
            CONTEXT,
            alias="documents",
            action=action,
            to_version=version,
            actor="me",
            reason="",
        )
        assert moved

    def canary(self, version: str, share: float | None) -> None:
        changed = change_canary(
            self.workspace,
            CONTEXT,
            alias="documents",
            index_version=version,
            share=share,
            actor="me",
            reason="",
        )
        assert changed

    def clear_stale_points(self, version: str) -> None:
        """Leave points that no table knows, as a run that died would, and take them away."""
        entry = self.workspace.config.index_version(version)
        dim = MODELS[entry.embedding_model]["dim"]
        payloads = [
            chunk_payload(
                chunk_id=chunk,
                document_id=chunk,
                uri="file:///gone",
                source="another",
                source_shard="another-000",
                page=None,
                text="paid vacation and passwords in the roof garden",
                title=None,
                language=None,
                document_type=None,
                metadata={},
                acl=[],
            )
            for chunk in STALE
        ]
        vectors = np.random.default_rng(1).normal(size=(len(STALE), dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = [point_id(chunk) for chunk in STALE]
        with self.workspace.index_writer(version) as store:
            store.upsert(version, PointBatch(ids, vectors, payloads))
            store.flush(version)
            store.delete(version, ids)
            store.flush(version)

    def drop(self, version: str) -> None:
        """What stood there is gone while clients still mean it."""
        with self.workspace.index_writer(version) as store:
            store.drop_collection(version)

    def cycle(self) -> None:
        """`v1` is live before and after."""
        self.canary("v2", 0.5)
        self.clear_stale_points("v2")
        self.canary("v2", 0.9)
        self.canary("v2", None)
        self.promote("v2")
        self.clear_stale_points("v1")
        self.canary("v1", 0.5)
        self.roll_back()
        self.canary("v2", 1.0)
        self.promote("v2")
        self.roll_back()


@pytest.mark.timeout(600)
def test_no_search_fails_and_every_answer_is_of_one_version(
    project: Project, store: str, tmp_path: Path
) -> None:
    expected = expected_answers(project.workspace, ["v1", "v2"])
    assert expected["v1"] != expected["v2"]
    operator = Operator(project.workspace)
    with (
        _searching_threads(project, expected, N_THREADS[store]) as loops,
        _searching_process(project, expected, tmp_path) as told,
    ):
        for _ in range(N_CYCLES[store]):
            operator.cycle()
        operator.promote("v2")
        operator.canary("v1", 0.5)
        operator.drop("v1")  # `index drop` refuses that; searches go on all the same
        wait_for_rounds(loops)
        operator.canary("v1", None)
        wait_for_rounds(loops)
    problems = [problem for loop in loops for problem in loop.problems]
    assert problems + told["problems"] == []
    for loop in loops:
        assert loop.versions.keys() == {"v1", "v2"}
    assert sum(told["versions"].values()) > 0


@contextmanager
def _searching_threads(
    project: Project, expected: Expected, n_threads: int
) -> Iterator[list[SearchLoop]]:
    is_over = threading.Event()
    loops = [SearchLoop(project.config_file, expected, number) for number in range(n_threads)]
    threads = [threading.Thread(target=loop.run, args=(is_over,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield loops
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@contextmanager
def _searching_process(project: Project, expected: Expected, folder: Path) -> Iterator[dict]:
    """What it says is there once the block is left."""
    stop, file = folder / "stop", folder / "expected.json"
    file.write_text(json.dumps(expected), encoding="utf-8")
    command = [sys.executable, "-m", "ragassets_tests.search_loop"]
    process = subprocess.Popen(
        [*command, str(project.config_file), str(file), str(stop)],
        stdout=subprocess.PIPE,
        text=True,
    )
    told: dict = {}
    try:
        wait_for(stop.with_suffix(".ready"))
        yield told
    finally:
        stop.touch()
        output, _ = process.communicate(timeout=120)
    told |= json.loads(output)
