"""Documents and chunks per second of every stage on the bulk corpus, and without changes."""

import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.core.stages import RunContext
from ragassets.stages.chunks import update_chunks
from ragassets.stages.clean_documents import update_clean_documents
from ragassets.stages.dead_letters import update_dead_letters
from ragassets.stages.document_catalog import update_document_catalog
from ragassets.stages.embeddings import update_embeddings
from ragassets.stages.index_versions import seal_index_version
from ragassets.stages.indexed_chunks import update_indexed_chunks
from ragassets.stages.parsed_documents import update_parsed_documents
from ragassets.stages.raw_documents import update_raw_documents
from ragassets.stages.source_objects import discover
from ragassets.stages.unique_documents import (
    update_document_signatures,
    update_unique_documents,
)
from ragassets.stages.valid_documents import update_valid_documents

TITLE = "Stages on the bulk corpus"
CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
SHARDS = 8
N_EMBEDDED_FILES = 100
"""Embedding takes most of the time; this many files give a stable rate."""


def measure() -> list[str]:
    """All stages up to chunks on the whole corpus; embedding and index on part of it."""
    archive = CORPORA / "bulk" / "bulk.tar.xz"
    if not archive.exists():
        return [f"Not measured: {archive.name} is not here."]
    folder = Path(tempfile.mkdtemp(prefix="ragassets-bulk-"))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "bulk", filter="data")
        return _measure(folder)
    finally:
        shutil.rmtree(folder)


def _measure(folder: Path) -> list[str]:
    everything = sorted(path for path in (folder / "bulk").rglob("*") if path.is_file())
    (folder / "documents").mkdir()
    files = [
        Path(shutil.copy(path, folder / "documents" / f"{number:05d}{path.suffix}"))
        for number, path in enumerate(everything)
    ]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    started = time.perf_counter()
    for path in files:
        path.read_bytes()
    reading = len(files) / (time.perf_counter() - started)
    whole = _Run(folder, "documents")
    lines = [
        (
            f"All {len(files)} files, {megabytes:.0f} MB, {SHARDS} shards."
            f" Baseline: reading every file once, {reading:,.0f} documents/s."
        ),
        "",
        "| stage | inputs | seconds | per second | reading is faster by |",
        "|---|---|---|---|---|",
    ]
    first = whole.documents()
    lines += [_line(name, n, seconds, reading) for name, n, seconds in first]
    again = whole.documents()
    n_documents = first[0][1]
    first_seconds, again_seconds = (sum(row[2] for row in rows) for rows in (first, again))
    part = folder / "part"
    part.mkdir()
    for path in files[:: len(files) // N_EMBEDDED_FILES][:N_EMBEDDED_FILES]:
        shutil.copy(path, part)
    some = _Run(folder, "part")
    some.documents()
    vectors = some.vectors()
    lines += [
        "",
        f"Embedding and index, on {N_EMBEDDED_FILES} of the files:",
        "",
        "| stage | chunks | seconds | chunks/s |",
        "|---|---|---|---|",
        *(f"| {name} | {n} | {s:.2f} | {n / s:,.1f} |" for name, n, s in vectors),
        "",
        (
            f"A run without changes over all stages up to chunks: {again_seconds:.1f} s,"
            f" {n_documents / again_seconds:,.0f} documents/s,"
            f" {first_seconds / again_seconds:.0f} times as fast as the first run"
            f" ({first_seconds:.0f} s)."
        ),
    ]
    return lines


def _line(name: str, n_inputs: int, seconds: float, reading: float) -> str:
    rate = n_inputs / seconds
    return f"| {name} | {n_inputs} | {seconds:.1f} | {rate:,.0f} | {reading / rate:,.0f} |"


class _Run:
    """The stages of one configuration, timed."""

    def __init__(self, folder: Path, documents: str) -> None:
        home = folder / f"home-{documents}"
        home.mkdir()
        (home / "ragassets.yaml").write_text(
            f"sources: {{bulk: {{uri: {folder / documents}, shards: {SHARDS}}}}}\n"
        )
        self.config = load_config(home / "ragassets.yaml")
        self.workspace = Workspace(self.config)
        self.shards = self.config.source_shards()
        self.context = RunContext(
            run_id="benchmark",
            now=lambda: datetime.now(UTC),
            checkpoints=self.workspace.checkpoints,
        )

    def documents(self) -> list[tuple[str, int, float]]:
        """Name, inputs and seconds of every stage up to chunks."""
        workspace, shards, context = self.workspace, self.shards, self.context
        started = time.perf_counter()
        found = discover(workspace, ["bulk"], now=context.now())
        rows = [("source_objects", found[0].n_objects, time.perf_counter() - started)]
        for name, update in (
            ("raw_documents", update_raw_documents),
            ("parsed_documents", update_parsed_documents),
            ("valid_documents", update_valid_documents),
            ("clean_documents", update_clean_documents),
            ("_document_signatures", update_document_signatures),
            ("unique_documents", update_unique_documents),
        ):
            rows.append(_timed(name, lambda update=update: update(workspace, shards, context)))
        rows.append(
            _timed("chunks", lambda: update_chunks(workspace, "recursive-256", shards, context))
        )
        started = time.perf_counter()
        update_dead_letters(workspace, shards)
        update_document_catalog(workspace, shards, context)
        rows.append(("dead_letters, document_catalog", rows[0][1], time.perf_counter() - started))
        return rows

    def vectors(self) -> list[tuple[str, int, float]]:
        """Name, chunks and seconds of embedding, index and seal."""
        workspace, shards, context = self.workspace, self.shards, self.context
        # The model loads once a run; its seconds are not what a rate is about.
        workspace.embedder("minilm").embed_documents(["warm up"])
        name = "recursive-256.minilm"
        rows = [
            _timed("embeddings", lambda: update_embeddings(workspace, name, shards, context)),
            _timed(
                "indexed_chunks", lambda: update_indexed_chunks(workspace, "v1", shards, context)
            ),
        ]
        started = time.perf_counter()
        seal_index_version(workspace, "v1", context)
        rows.append(("index_versions (seal)", rows[0][1], time.perf_counter() - started))
        again = _timed(
            "embeddings, no change", lambda: update_embeddings(workspace, name, shards, context)
        )
        return [*rows, again]


def _timed(name: str, update: Callable[[], dict]) -> tuple[str, int, float]:
    started = time.perf_counter()
    reports = update()
    seconds = time.perf_counter() - started
    return name, sum(report.n_inputs for report in reports.values()), seconds
