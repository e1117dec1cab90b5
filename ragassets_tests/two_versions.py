"""A project with two sealed versions that answer differently, the first of them live."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ragassets.core.stages import RunContext
from ragassets.stages.index_versions import seal_index_version
from ragassets.stages.live_index import start_aliases
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.scenario import CLEAN, Project
from ragassets_tests.stage_runs import run_documents, run_version

CONTEXT = RunContext("a-run", lambda: datetime(2026, 1, 1, tzinfo=UTC))

MODELS = {
    "minilm": {"model": "a-model", "dim": 16},
    "other": {"model": "another-model", "dim": 24},
}
VERSIONS = {
    "v1": {"chunking": "recursive-256", "embedding_model": "minilm"},
    "v2": {"chunking": "recursive-256", "embedding_model": "other"},
    "v3": {"chunking": "recursive-256", "embedding_model": "minilm", "sparse": None},
}


class LoadedModels:
    """Fake models that say which of them were given a query, and that fail on demand."""

    def __init__(self) -> None:
        """Nothing was loaded, nothing fails."""
        self.loaded: list[str] = []
        """Names of the models that embedded queries, one a call."""
        self.broken: set[str] = set()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Use them wherever a workspace opens a model."""
        monkeypatch.setattr(
            "ragassets.adapters.workspace.open_embedder",
            lambda name, config: _Model(name, config.dim, seed=config.model, models=self),
        )


class _Model(FakeEmbedder):
    def __init__(self, name: str, dim: int, *, seed: str, models: LoadedModels) -> None:
        super().__init__(name, dim, seed=seed)
        self.models = models

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.models.loaded.append(self.name)
        if self.name in self.models.broken:
            message = "the weights cannot be read"
            raise RuntimeError(message)
        return super().embed_queries(texts)


def build_two_versions(folder: Path, **sections: object) -> Project:
    """Ingest, build and seal `v1` and `v2` (and not `v3`), and start the alias at `v1`."""
    project = Project(folder, CLEAN)
    project.configure(
        sources={"handbook": {"uri": "./documents", "shards": 1}},
        embedding_models=MODELS,
        index_versions=VERSIONS,
        aliases={"documents": {"live": "v1"}},
        **sections,
    )
    run_documents(project)
    for version in ("v1", "v2"):
        run_version(project, version)
        assert seal_index_version(project.workspace, version, CONTEXT).is_sealed
    start_aliases(project.workspace, CONTEXT, actor="a test")
    project.save()
    return project
