"""Small named corpora, and projects that ingest them; not fixtures.

A `Project` is a folder with a configuration, documents and whatever an ingestion makes of them. Ids
follow from absolute paths, so a project is never copied elsewhere: it is saved and put back in
place.
"""

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from dagster import DagsterInstance

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config, load_config
from ragassets.core.asset_tables import (
    ALIAS_SWITCHES,
    BUILD_WINDOWS,
    DEAD_LETTERS,
    DROPPED_VERSIONS,
    INDEX_INTENTS,
    INDEX_VERSIONS,
    INDEXED_CHUNKS,
    RECORDED_SETTINGS,
    SOURCE_OBJECTS,
    STAGES,
)
from ragassets.core.periods import Window
from ragassets.core.searching import SearchMode, SearchRequest
from ragassets.core.tables import TableSpec
from ragassets.defs.ingest import IngestReport, ingest
from ragassets.defs.instance import open_instance
from ragassets.defs.resources import WorkspaceResource
from ragassets_tests.fakes import FakeEmbedder

CLEAN: Mapping[str, str] = {
    "vacation.md": "# Vacation policy\n\nEvery employee has thirty days of paid vacation a year."
    " Unused days expire at the end of March of the following year.\n",
    "expenses.txt": "Travel expenses are paid back within two weeks. Keep the receipts of hotels,"
    " trains and taxis, and hand them in with the travel form.\n",
    "security.md": "# Security\n\nLock the screen whenever you leave the desk. Passwords are at"
    " least sixteen characters long and come from the password manager.\n",
    "onboarding.html": "<html><head><title>Onboarding</title></head><body><h1>Onboarding</h1><p>On"
    " the first day a new colleague gets a laptop, a badge and a mentor who answers questions."
    "</p></body></html>",
    "kitchen.txt": "The coffee machine is cleaned every Friday afternoon. Whoever takes the last"
    " oat milk writes it on the shopping list beside the refrigerator.\n",
    "teams/garden.md": "# Roof garden\n\nTomatoes, basil and strawberries grow on the roof. The"
    " gardening team waters them before eight in the morning.\n",
    "teams/library.txt": "Books of the company library may be borrowed for six weeks. A novel that"
    " is reserved by somebody else cannot be renewed.\n",
}
"""Seven short documents about seven things."""

MANUAL = "manual.md"

MANUAL_TOPICS = (
    ("Bicycle", "The bicycle workshop opens on Tuesday and repairs brakes, chains and flat tyres"),
    ("Printer", "A jammed printer is opened at the left side and the paper is pulled out slowly"),
    ("Heating", "Radiators are bled in October with the small brass key that hangs in the cellar"),
    ("Elevator", "The elevator is inspected twice a year by an engineer of the city authority"),
    ("Fire drill", "During a fire drill everybody walks down the stairs to the car park and waits"),
    ("Mail room", "Parcels arrive before noon and are kept in the mail room for ten working days"),
    ("Parking", "Parking permits are blue for bicycles, green for cars and white for visitors"),
    ("Windows", "Windows of the ground floor are closed every evening by the last one who leaves"),
)


def manual() -> str:
    """One long Markdown document of 24 paragraphs under eight headings."""
    sections: list[str] = ["# The house manual"]
    for title, sentence in MANUAL_TOPICS:
        sections.append(f"## {title}")
        sections += [
            f"{sentence}. " + _filler(title, number, n_sentences=5) for number in range(1, 4)
        ]
    return "\n\n".join(sections) + "\n"


def _filler(title: str, number: int, n_sentences: int) -> str:
    verbs = ("describes", "explains", "records", "repeats", "illustrates", "summarizes")
    return " ".join(
        f"Note {number}.{index} about the {title.lower()} {verbs[(number + index) % 6]} what"
        f" colleagues reported in week {number * 7 + index} of the year."
        for index in range(n_sentences)
    )


MIXED: Mapping[str, str | bytes] = {
    **CLEAN,
    MANUAL: manual(),
    "copies/vacation-copy.md": CLEAN["vacation.md"],
    "broken.pdf": b"%PDF-1.7\nthis is no PDF body at all\n%%EOF\n",
    "empty.txt": "",
}
"""The clean corpus, a long document, an exact copy, a corrupt and an empty file."""

DEFAULTS: dict[str, object] = {
    "root": ".ragassets",
    "workers": 1,
    "sources": {"handbook": {"uri": "./documents", "shards": 4}},
}

VOLATILE = frozenset(
    {"run_id", "failed_run_id", "computed_at", "first_failed_at", "last_failed_at", "sealed_at"}
    | {"latency_ms_p50", "latency_ms_p95"}
    | {"first_seen_at", "changed_at", "switched_at", "updated_at", "switch_id", "stack_trace"}
    | {"begun_at", "recorded_at", "dropped_at"}
)
"""Columns that tell when, by which run and on which line of the code, not what."""

SPECS: tuple[TableSpec, ...] = (
    SOURCE_OBJECTS,
    *(stage.outputs for stage in STAGES),
    *(stage.failures for stage in STAGES if not stage.has_inline_failures),
    INDEX_INTENTS,
    DEAD_LETTERS,
    INDEX_VERSIONS,
    ALIAS_SWITCHES,
    BUILD_WINDOWS,
    RECORDED_SETTINGS,
    DROPPED_VERSIONS,
)


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that an ingestion leaves behind, without times and run ids."""

    tables: dict[str, list[str]]
    vectors: dict[tuple[str, str], tuple[float, ...]]
    """By embedding set and chunk."""
    catalog: list[str]
    points: dict[str, list[tuple[str, ...]]]
    """Of every collection: point id, chunk, document and payload hash."""
    aliases: dict[str, str]

    def differences(self, other: "Content", *, but: Collection[str] = ()) -> list[str]:
        """What is not the same, in words, `but` for some tables; vectors may differ by rounding."""
        found = [
            f"{name}: {len(set(rows) - set(theirs))} rows only here, {len(set(theirs) - set(rows))}"
            f" only there, {len(rows)} and {len(theirs)} in all"
            for name in sorted((self.tables | other.tables).keys() - set(but))
            if (rows := self.tables.get(name, [])) != (theirs := other.tables.get(name, []))
        ]
        if self.vectors.keys() != other.vectors.keys():
            found.append("vectors of other chunks")
        elif any(
            not np.allclose(vector, other.vectors[key], atol=1e-4)
            for key, vector in self.vectors.items()
        ):
            found.append("other vectors")
        found += [
            f"{name} differs"
            for name in ("catalog", "points", "aliases")
            if getattr(self, name) != getattr(other, name)
        ]
        return found


class Project:
    """A project folder: configuration, documents, state."""

    def __init__(self, folder: Path, documents: Mapping[str, str | bytes] | None = None) -> None:
        """Make the folder with the default configuration and these documents."""
        self.folder = folder
        self.documents = folder / "documents"
        self.documents.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = {**DEFAULTS}
        self.configure()
        for name, content in (documents or {}).items():
            self.write(name, content)

    # The configuration

    @property
    def config_file(self) -> Path:
        """The configuration file."""
        return self.folder / "ragassets.yaml"

    @property
    def config(self) -> Config:
        """The configuration as it is written now."""
        return load_config(self.config_file)

    def configure(self, **sections: object) -> None:
        """Replace top-level sections of the configuration."""
        self.settings |= sections
        self.config_file.write_text(yaml.safe_dump(self.settings), encoding="utf-8")

    def configure_source(self, name: str = "handbook", **values: object) -> None:
        """Change keys of one source."""
        sources = dict(self.settings["sources"])
        self.configure(sources={**sources, name: {**sources.get(name, {}), **values}})

    # Documents

    def path(self, name: str) -> Path:
        """Where a document lies."""
        return self.documents / name

    def uri(self, name: str) -> str:
        """A document's URI."""
        return self.path(name).absolute().as_uri()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a document; a later write is always seen as a change."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if path.stat().st_mtime_ns <= before:
            os.utime(path, ns=(before + 1, before + 1))
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a passage of a document that must be there."""
        text = self.path(name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        self.write(name, text.replace(old, new))

    # State

    @property
    def saved(self) -> Path:
        """Where `save` keeps the folder."""
        return self.folder.with_name(f"{self.folder.name}-saved")

    def save(self) -> None:
        """Keep the folder as it is, times of files included."""
        if self.saved.exists():
            shutil.rmtree(self.saved)
        shutil.copytree(self.folder, self.saved, symlinks=True)

    def restore(self) -> "Project":
        """Put the saved folder back; a fresh object for it."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder, symlinks=True)
        project = Project.__new__(Project)
        project.folder, project.documents = self.folder, self.documents
        project.settings = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        return project

    def revert(self) -> "Project":
        """Put documents and configuration back as they were saved; the state stays."""
        shutil.rmtree(self.documents)
        shutil.copytree(self.saved / "documents", self.documents, symlinks=True)
        shutil.copy2(self.saved / self.config_file.name, self.config_file)
        self.settings = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        return self

    @property
    def workspace(self) -> Workspace:
        """A new workspace on the state of now."""
        return Workspace(self.config)

    # Computing

    def ingest(
        self,
        *sources: str,
        confirmed: Sequence[str] = (),
        versions: Sequence[str] | None = None,
        window: Window | None = None,
        instance: DagsterInstance | None = None,
    ) -> IngestReport:
        """Ingest in this process, by default on a Dagster instance that is forgotten."""
        resource = WorkspaceResource(self.config)
        with nullcontext(instance) if instance else DagsterInstance.ephemeral() as opened:
            return ingest(
                resource,
                opened,
                sources,
                confirmed=confirmed,
                index_versions=versions,
                window=window,
                progress=lambda _stage, _done, _total: None,
            )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start Python with these arguments, in a process group of its own; output to `log`."""
        root = Path(__file__).resolve().parents[1]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """What the processes of this project wrote."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def ingest_until(self, moment: int) -> int:
        """Ingest with a fake model in another process, killed at a moment; its return code."""
        arguments = (str(self.config_file), "--kill-at", str(moment))
        return self.start("-m", "ragassets_tests.scenario", *arguments).wait(timeout=240)

    # Reading

    def rows(self, spec: TableSpec, where: pl.Expr | None = None) -> pl.DataFrame:
        """All rows of a table."""
        return self.workspace.tables.read(spec, where=where)

    def versions(self) -> dict[str, int | None]:
        """The newest commit of every table that an unchanged source must leave alone."""
        tables = self.workspace.tables
        return {spec.name: tables.snapshot(spec).version for spec in SPECS}

    def chunk_texts(self, name: str) -> list[str]:
        """Texts of a document's chunks, in its order."""
        chunks = _stage("chunks").outputs
        rows = self.rows(chunks, pl.col("uri") == self.uri(name)).sort("start_char")
        return rows["text"].to_list()

    def search(
        self,
        query: str,
        *,
        version: str = "v1",
        mode: SearchMode = "hybrid",
        limit: int = 5,
        filters: Mapping[str, str] | None = None,
    ) -> list[Mapping[str, object]]:
        """Payloads of the best hits."""
        workspace = self.workspace
        model = self.config.index_version(version).embedding_model
        vector = workspace.embedder(model).embed_queries([query])[0]
        request = SearchRequest(mode, limit, vector, query, filters or {})
        with workspace.vector_store() as store:
            return [hit.payload for hit in store.search(version, request)]

    def found_uris(self, query: str, **options: Any) -> list[str]:
        """URIs of the best hits, best first, each once."""
        return list(dict.fromkeys(str(hit["uri"]) for hit in self.search(query, **options)))

    def holds_text(self, passage: str, version: str = "v1") -> bool:
        """Whether any point of the collection contains a passage."""
        with self.workspace.vector_store() as store:
            n_points, dim = store.count(version), store.collection_config(version).dim
            anything = np.ones(dim, np.float32)
            hits = store.search(version, SearchRequest("dense", max(n_points, 1), anything))
        return any(passage in str(hit.payload["text"]) for hit in hits)

    def content(self) -> Content:
        """Everything that is stored."""
        workspace = self.workspace
        tables: dict[str, list[str]] = {}
        vectors: dict[tuple[str, str], tuple[float, ...]] = {}
        for spec in SPECS:
            rows = workspace.tables.read(spec)
            if "vector" in rows.columns:
                columns = ("embedding_set", "chunk_id", "vector")
                for name, chunk, vector in rows.select(columns).iter_rows():
                    vectors[name, chunk] = tuple(vector)
            kept = [c for c in rows.columns if c not in VOLATILE and c != "vector"]
            tables[spec.name] = sorted(map(repr, rows.select(kept).iter_rows()))
        catalog = [
            repr({k: v for k, v in dataclasses.asdict(row).items() if k not in VOLATILE})
            for row in workspace.catalog.documents()
        ]
        with workspace.vector_store() as store:
            points = {
                name: [tuple(p) for p in store.scroll(name)] for name in store.list_collections()
            }
            aliases = store.aliases()
        return Content(tables, vectors, catalog, points, aliases)

    def audit(self) -> list[str]:
        """What the package's own audit finds that is not true."""
        from ragassets.queries.audit import run_audit

        return [f"{entry.name}: {entry.count}" for entry in run_audit(self.workspace).damage]

    def disagreements(self) -> list[str]:
        """Where tables, catalog, collections and sources contradict each other; none is right.

        Written out here again, so that the package's own audit is not its own judge.
        """
        found: list[str] = []
        alive = self.rows(SOURCE_OBJECTS, ~pl.col("is_deleted"))
        places = set(alive.select("document_id", "source_shard").iter_rows())
        for stage in STAGES:
            rows = self.rows(stage.outputs)
            strays = set(rows.select("document_id", "source_shard").iter_rows()) - places
            if strays:
                found.append(f"{stage.name} holds {len(strays)} documents that no source has there")
        indexed = self.rows(INDEXED_CHUNKS.outputs)
        embeddings = self.rows(_stage("embeddings").outputs)
        chunks = self.rows(_stage("chunks").outputs)
        if self.rows(INDEX_INTENTS).height:
            found.append("intents are left")
        with self.workspace.vector_store() as store:
            for name, version in self.config.index_versions.items():
                if name not in store.list_collections():
                    continue
                mine = indexed.filter(pl.col("index_version") == name)
                wanted = set(mine.select("point_id", "payload_hash").iter_rows())
                points = {(p.point_id, p.payload_hash) for p in store.scroll(name)}
                of_set = embeddings.filter(pl.col("embedding_set") == version.embedding_set)
                of_chunking = chunks.filter(pl.col("chunking") == version.chunking)
                if wanted != points or len(wanted) != mine.height:
                    found.append(
                        f"{name}: {len(points - wanted)} orphan or stale points,"
                        f" {len(wanted - points)} missing, {mine.height - len(wanted)} twice"
                    )
                if sorted(of_set["chunk_id"]) != sorted(mine["chunk_id"]):
                    found.append(f"{name}: embeddings and indexed chunks are not the same")
                if sorted(of_chunking["chunk_id"]) != sorted(of_set["chunk_id"]):
                    found.append(f"{name}: chunks and embeddings are not the same")
        catalogued = {
            (row.document_id, row.source_shard) for row in self.workspace.catalog.documents()
        }
        if catalogued != places:
            found.append("the catalog lists other documents than the sources hold")
        return found


def _stage(name: str) -> Any:
    return next(stage for stage in STAGES if stage.name == name)


def counts(report: IngestReport, asset: str) -> tuple[int, int, int]:
    """Computed, reused and removed of one asset."""
    values = report.counts.get(asset, {})
    return tuple(values.get(f"n_{name}", 0) for name in ("computed", "reused", "removed"))  # type: ignore[return-value]


@contextmanager
def fake_embedder() -> Iterator[None]:
    """Give every embedding model hash vectors, for tests that are not about meaning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ragassets.adapters.workspace.open_embedder",
            lambda name, config: FakeEmbedder(name, config.dim, seed=config.model),
        )
        yield


EFFECTS: tuple[tuple[str, str], ...] = (
    ("ragassets.adapters.tables.DeltaTables", "replace"),
    ("ragassets.adapters.tables.DeltaTables", "append"),
    ("ragassets.adapters.checkpoints.ObjectCheckpoints", "append"),
    ("ragassets.adapters.checkpoints.ObjectCheckpoints", "clear"),
    ("ragassets.adapters.qdrant_edge_store.QdrantEdgeStore", "ensure_collection"),
    ("ragassets.adapters.qdrant_edge_store.QdrantEdgeStore", "upsert"),
    ("ragassets.adapters.qdrant_edge_store.QdrantEdgeStore", "delete"),
    ("ragassets.adapters.qdrant_edge_store.QdrantEdgeStore", "flush"),
    ("ragassets.adapters.qdrant_edge_store.QdrantEdgeStore", "switch_alias"),
    ("ragassets.adapters.qdrant_edge_store.QdrantEdgeStore", "drop_collection"),
    ("ragassets.adapters.qdrant_server_store.QdrantServerStore", "ensure_collection"),
    ("ragassets.adapters.qdrant_server_store.QdrantServerStore", "upsert"),
    ("ragassets.adapters.qdrant_server_store.QdrantServerStore", "delete"),
    ("ragassets.adapters.qdrant_server_store.QdrantServerStore", "switch_alias"),
    ("ragassets.adapters.qdrant_server_store.QdrantServerStore", "drop_collection"),
    *(
        (f"ragassets.adapters.{store}", effect)
        for store in (
            "faiss_store.FaissStore",
            "chroma_store.ChromaStore",
            "chroma_server_store.ChromaServerStore",
            "pinecone_store.PineconeStore",
        )
        for effect in ("ensure_collection", "upsert", "delete", "switch_alias", "drop_collection")
    ),
    ("ragassets.adapters.catalog.Catalog", "replace_documents"),
    ("ragassets.adapters.sources.landed_bodies.LandedBodies", "land"),
    ("ragassets.adapters.sources.kafka_topic.TopicReader", "tell"),
)
"""Every function that changes something outside the process."""


@contextmanager
def watched_effects(observe: Callable[[str, str], None]) -> Iterator[None]:
    """Call `observe(moment, what)` before and after every effect; moment is `before` or `after`."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in EFFECTS:
            module, _, kind = owner.rpartition(".")
            cls = getattr(importlib.import_module(module), kind)
            patch.setattr(cls, name, _watched(getattr(cls, name), name, observe))
        yield


def _watched(
    original: Callable[..., Any], name: str, observe: Callable[[str, str], None]
) -> Callable[..., Any]:
    def watched(self: object, *args: Any, **kwargs: Any) -> Any:
        what = f"{name} {args[0].spec.name}" if name == "replace" else name
        if args and isinstance(args[0], TableSpec):
            what = f"{name} {args[0].name}"
        observe("before", what)
        result = original(self, *args, **kwargs)
        observe("after", what)
        return result

    return watched


class Executioner:
    """Counts effects and calls `kill` at one of them."""

    def __init__(self, at: float = math.inf, kill: Callable[[], None] = lambda: None) -> None:
        """Kill at the moment `at`; moment 2n is before effect n, moment 2n + 1 after it."""
        self.at, self.kill = at, kill
        self.moments: list[str] = []

    def __call__(self, moment: str, what: str) -> None:
        """Note the moment, and kill when it has come or is past."""
        self.moments.append(f"{moment} {what}")
        if len(self.moments) > self.at:
            self.kill()


def main(arguments: Sequence[str]) -> int:
    """Ingest with a fake model: `CONFIG --kill-at MOMENT`."""
    config = load_config(arguments[0])
    executioner = Executioner(int(arguments[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    with fake_embedder(), watched_effects(executioner), open_instance(config.folder) as instance:
        resource = WorkspaceResource(config)
        ingest(resource, instance, [], progress=lambda _stage, _done, _total: None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
