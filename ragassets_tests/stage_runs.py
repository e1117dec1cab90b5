"""The stages of a project one after the other, without Dagster: a run costs less than a second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.workspace import Workspace
from ragassets.core.stages import RunContext, StageReport
from ragassets.stages.chunks import update_chunks
from ragassets.stages.clean_documents import update_clean_documents
from ragassets.stages.embeddings import update_embeddings
from ragassets.stages.indexed_chunks import update_indexed_chunks
from ragassets.stages.parsed_documents import update_parsed_documents
from ragassets.stages.raw_documents import update_raw_documents
from ragassets.stages.source_objects import discover
from ragassets.stages.unique_documents import update_document_signatures, update_unique_documents
from ragassets.stages.valid_documents import update_valid_documents
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.scenario import Project

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class RecordingEmbedder(FakeEmbedder):
    """A fake model that remembers, over all its instances, which texts it was given."""

    embedded: list[tuple[str, str]]
    """Seed and text, in order; emptied by the fixture that installs the model."""
    window = 512

    def __init__(self, name: str, dim: int, *, seed: str) -> None:
        """Make a model that takes `window` texts between two checkpoints."""
        super().__init__(name, dim, seed=seed)
        self.window_texts = self.window

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts, which are written down."""
        type(self).embedded += [(self.seed, text) for text in texts]
        return super().embed_documents(texts)


@dataclass
class Reports:
    """Sums over the shards of what each stage did."""

    by_stage: dict[str, Mapping[str, StageReport]] = field(default_factory=dict)

    def total(self, stage: str, name: str) -> int:
        """One number of one stage, over all shards."""
        return sum(getattr(report, name) for report in self.by_stage[stage].values())


def context(workspace: Workspace, now: datetime = NOW) -> RunContext:
    """A run with checkpoints."""
    return RunContext("a-run", lambda: now, checkpoints=workspace.checkpoints)


def run_documents(project: Project) -> None:
    """List, and every stage up to the duplicates."""
    workspace = project.workspace
    shards, run = workspace.config.source_shards(), context(workspace)
    discover(workspace, list(workspace.config.sources), now=NOW)
    for update in (
        update_raw_documents,
        update_parsed_documents,
        update_valid_documents,
        update_clean_documents,
        update_document_signatures,
        update_unique_documents,
    ):
        update(workspace, shards, run)


def run_version(project: Project, index_version: str = "v1", *, indexes: bool = True) -> Reports:
    """Chunk, embed and index one version."""
    workspace = project.workspace
    version = workspace.config.index_version(index_version)
    shards, run = workspace.config.source_shards(), context(workspace)
    reports = Reports()
    made = reports.by_stage
    made["chunks"] = update_chunks(workspace, version.chunking, shards, run)
    made["embeddings"] = update_embeddings(workspace, version.embedding_set, shards, run)
    if indexes:
        made["indexed_chunks"] = update_indexed_chunks(workspace, index_version, shards, run)
    return reports


def run_all(project: Project, index_version: str = "v1", *, indexes: bool = True) -> Reports:
    """All of it."""
    run_documents(project)
    return run_version(project, index_version, indexes=indexes)
