"""Points a second that `indexed_chunks` writes, against the engine and the client used directly."""

import itertools
import multiprocessing
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import pytest
from qdrant_client import QdrantClient, models
from qdrant_edge import Bm25, Bm25Config, EdgeShard, Point, UpdateOperation

from ragassets.adapters.edge_engine import create_shard
from ragassets.adapters.point_encoding import INDEXED_FIELDS
from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore
from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.core.asset_tables import CHUNKS, INDEX_INTENTS, INDEXED_CHUNKS
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.fingerprints import stable_hash
from ragassets.core.indexing import Payload, PointBatch
from ragassets.core.searching import split_unspaced_words
from ragassets.core.stages import SHARD, RunContext
from ragassets.stages.embeddings import update_embeddings
from ragassets.stages.indexed_chunks import update_indexed_chunks
from ragassets_tests.corpora import corpora_root
from ragassets_tests.qdrant_loopback import loopback_qdrant
from ragassets_tests.scenario import fake_embedder

TITLE = "Index writes"
N_POINTS = int(os.environ.get("INDEX_WRITES_POINTS", "20000"))
N_SERVER_POINTS = N_POINTS // 4
"""The loopback server is written in Python and takes most of the time."""
ROUNDS = int(os.environ.get("INDEX_WRITES_ROUNDS", "5"))
BATCH_POINTS = 1_000
DIM = 384
CHUNK_CHARS = 800
N_SHARDS = 4
VERSION = "v1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Points:
    """The points of the version, as a caller of the engine would have them in memory."""

    batches: list[PointBatch]
    """Those that the stage writes."""
    texts: list[list[str]]
    """What their BM25 terms are made of, batch by batch."""

    @property
    def n_points(self) -> int:
        """Of all batches."""
        return sum(map(len, self.batches))

    @property
    def uncut(self) -> "Points":
        """The same with the texts as they are in the payloads."""
        texts = [[str(payload["text"]) for payload in batch.payloads] for batch in self.batches]
        return Points(self.batches, texts)


@dataclass(frozen=True)
class Cost:
    """Of writing all points once."""

    seconds: float
    cpu_seconds: float
    """Of this process, with all its threads."""


def measure() -> list[str]:
    """The stage, the store that it writes through, and the same points without either."""
    texts = _texts(N_POINTS)
    if not texts:
        return ["Not measured: the corpus bulk_sample is not here."]
    folder = Path(tempfile.mkdtemp(prefix="ragassets-index-"))
    try:
        with fake_embedder():
            embedded = _embedded(folder / "embedded", texts)
            server = _server(folder / "server", texts[:N_SERVER_POINTS])
    finally:
        shutil.rmtree(folder)
    return [*embedded, "", *server]


def _embedded(folder: Path, texts: list[str]) -> list[str]:
    workspace = _workspace(folder, texts, {})
    points = _points(workspace)
    numbers = itertools.count()
    rounds = _rounds(
        {
            "engine": lambda: _raw_edge(folder / f"raw-{next(numbers)}", points),
            "uncut": lambda: _raw_edge(folder / f"raw-{next(numbers)}", points.uncut),
            "store": lambda: _through_store(workspace, points),
            "stage": lambda: _through_stage(workspace),
        },
        before=lambda: _forget(workspace),
    )
    _check_same(folder / "raw-0", workspace, points)
    _forget(workspace)
    split = _split_of_the_stage(workspace)
    intro = (
        f"Embedded engine, {points.n_points:,} points: {DIM} dimensions, BM25 terms, {CHUNK_CHARS}"
        f" characters of real text, {len(points.batches[0].payloads[0])} payload keys,"
        f" {len(INDEXED_FIELDS)} payload indexes, created anew and flushed each time. Medians of"
        f" {ROUNDS} rounds, in turn; ratios are medians of the rounds' ratios. Baseline: the"
        " engine's own Python interface, its BM25 encoder included, in a loop over the very points"
        " that the stage writes, ready in memory; what it wrote was compared with what the stage"
        " wrote."
    )
    return [intro, "", *_table(rounds, points.n_points), "", split]


def _server(folder: Path, texts: list[str]) -> list[str]:
    with _server_process(folder / "qdrant") as (url, grpc_port):
        settings = {"vector_store": url, "qdrant": {"grpc_port": grpc_port}}
        workspace = _workspace(folder, texts, settings)
        points = _points(workspace)
        rounds = _rounds(
            {
                "engine": lambda: _raw_client(workspace, url, grpc_port, points),
                "uncut": lambda: _raw_client(workspace, url, grpc_port, points.uncut),
                "store": lambda: _through_store(workspace, points),
                "stage": lambda: _through_stage(workspace),
            },
            before=lambda: _forget(workspace),
        )
    intro = (
        f"Server by gRPC, {points.n_points:,} points of the same kind, to the loopback server of"
        " the tests in another process. Baseline: `qdrant_client` with `PointStruct`, batches of"
        f" {BATCH_POINTS:,}, `wait=True`. The server takes most of the seconds; CPU seconds are"
        " those of the writing process alone."
    )
    return [intro, "", *_table(rounds, points.n_points)]


def _table(rounds: dict[str, list[Cost]], n_points: int) -> list[str]:
    names = {
        "engine": "baseline",
        "uncut": "baseline of other points: Chinese and Japanese uncut, hence fewer terms",
        "store": "vector store (checks, BM25 terms, points)",
        "stage": "`indexed_chunks` (also reads tables, hashes, intents, verifies, commits)",
    }
    lines = ["| way | points/s | share of the baseline | by CPU seconds |", "|---|---|---|---|"]
    for name, costs in rounds.items():
        pairs = list(zip(rounds["engine"], costs, strict=True))
        share = median(raw.seconds / ours.seconds for raw, ours in pairs)
        by_cpu = median(raw.cpu_seconds / ours.cpu_seconds for raw, ours in pairs)
        rate = n_points / median(cost.seconds for cost in costs)
        lines.append(f"| {names[name]} | {rate:,.0f} | {share:.0%} | {by_cpu:.0%} |")
    return lines


def _split_of_the_stage(workspace: Workspace) -> str:
    """Where the stage's CPU seconds go; the batches to come are made in another thread."""
    spent = dict.fromkeys(("ensure_collection", "upsert", "flush", "retrieve"), 0.0)

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                spent[name] += time.thread_time() - started

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in spent:
            patch.setattr(QdrantEdgeStore, name, watched(name, getattr(QdrantEdgeStore, name)))
        whole = _timed(lambda: _through_stage(workspace)).cpu_seconds
    verifying = spent.pop("retrieve") / whole
    writing = sum(spent.values()) / whole
    return (
        f"Of the stage's CPU seconds {writing:.0%} are writing through the store, {verifying:.0%}"
        f" reading every point back to verify it, and {1 - writing - verifying:.0%} the tables:"
        " chunks and vectors read, payloads and rows hashed, intents and rows committed."
    )


# The ways


def _raw_edge(path: Path, points: Points) -> None:
    terms = Bm25(Bm25Config(language="en", avg_len=100))
    create_shard(path, CollectionConfig(dim=DIM))
    shard = EdgeShard.load(str(path))
    for batch, texts in zip(points.batches, points.texts, strict=True):
        rows = zip(batch.point_ids, batch.vectors.tolist(), batch.payloads, texts, strict=True)
        upserted = [
            Point(name, {"dense": vector, "bm25": terms.embed_document(text)}, payload)
            for name, vector, payload, text in rows
        ]
        shard.update(UpdateOperation.upsert_points(upserted))
    shard.flush()
    shard.close()


def _raw_client(workspace: Workspace, url: str, grpc_port: int, points: Points) -> None:
    terms = Bm25(Bm25Config(language="en", avg_len=100))
    with workspace.vector_store() as store:
        store.ensure_collection(VERSION, workspace.collection_config(VERSION))
    client = QdrantClient(
        url=url, grpc_port=grpc_port, prefer_grpc=True, timeout=60, check_compatibility=False
    )
    for batch, texts in zip(points.batches, points.texts, strict=True):
        upserted = []
        rows = zip(batch.point_ids, batch.vectors.tolist(), batch.payloads, texts, strict=True)
        for name, vector, payload, text in rows:
            found = terms.embed_document(text)
            sparse = models.SparseVector(indices=found.indices, values=found.values)
            upserted.append(
                models.PointStruct(
                    id=name, vector={"dense": vector, "bm25": sparse}, payload=dict(payload)
                )
            )
        client.upsert(VERSION, points=upserted, wait=True)
    client.close()


def _through_store(workspace: Workspace, points: Points) -> None:
    with workspace.vector_store() as store:
        store.ensure_collection(VERSION, workspace.collection_config(VERSION))
        for batch in points.batches:
            store.upsert(VERSION, batch)
        store.flush(VERSION)


def _through_stage(workspace: Workspace) -> None:
    context = RunContext("benchmark", lambda: NOW, checkpoints=workspace.checkpoints)
    update_indexed_chunks(workspace, VERSION, workspace.config.source_shards(), context)


def _check_same(raw: Path, workspace: Workspace, points: Points) -> None:
    """Fail unless the baseline wrote what the stage wrote: the same payloads, vectors and terms."""
    written = Path(workspace.config.vector_store) / "collections" / VERSION / "shard"
    ids = [name for batch in points.batches for name in batch.point_ids[::50]]
    found = []
    for path in (raw, written):
        shard = EdgeShard.load(str(path))
        found.append(
            {
                str(record.id): (record.payload, _shown(record.vector or {}))
                for record in shard.retrieve(ids, with_payload=True, with_vector=True)
            }
        )
        shard.close()
    if found[0] != found[1] or len(found[0]) != len(ids):
        message = "the baseline does not write what the stage writes"
        raise ValueError(message)


def _shown(vectors: Any) -> dict[str, object]:
    """Vectors that can be compared; terms have no order."""
    terms = vectors.get("bm25")
    pairs = sorted(zip(terms.indices, terms.values, strict=True)) if terms else []
    return {"dense": vectors["dense"], "bm25": pairs}


def _forget(workspace: Workspace) -> None:
    """No collection, no rows: the next way starts from nothing."""
    with workspace.vector_store() as store:
        store.drop_collection(VERSION)
    for spec in (INDEXED_CHUNKS.outputs, INDEX_INTENTS):
        snapshot = workspace.tables.snapshot(spec)
        places = workspace.tables.read_at(snapshot, columns=[*spec.partition_by]).unique()
        if places.height:
            workspace.tables.replace(snapshot, places.to_dicts(), spec.empty_frame())


def _rounds(
    ways: dict[str, Callable[[], None]], *, before: Callable[[], None]
) -> dict[str, list[Cost]]:
    """Costs of each way, in turn, after one round that nobody counts."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, write in ways.items():
            before()
            cost = _timed(write)
            if number:
                costs[name].append(cost)
    return costs


def _timed(work: Callable[[], None]) -> Cost:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - cpu)


# The points


def _texts(n: int) -> list[str]:
    """Pieces of pages of real projects in several languages; from the start again if need be."""
    path = corpora_root() / "bulk_sample" / "bulk_sample.tar.gz"
    if not path.exists():
        return []
    pieces: list[str] = []
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and Path(member.name).suffix in {".md", ".txt", ".rst"}:
                text = content.read().decode("utf-8", "replace")
                pieces += [text[at : at + CHUNK_CHARS] for at in range(0, len(text), CHUNK_CHARS)]
    return [piece for _, piece in zip(range(n), itertools.cycle(pieces), strict=False)]


def _workspace(folder: Path, texts: list[str], settings: dict[str, Any]) -> Workspace:
    """A project whose chunks and embeddings are there, and nothing is indexed."""
    folder.mkdir(parents=True)
    lines = [f"{key}: {value!r}" for key, value in settings.items()]
    sources = f"sources: {{pages: {{uri: {folder}, shards: {N_SHARDS}}}}}"
    (folder / "ragassets.yaml").write_text("\n".join([sources, *lines]) + "\n")
    workspace = Workspace(load_config(folder / "ragassets.yaml"))
    shards = workspace.config.source_shards()
    chunking = workspace.config.index_version(VERSION).chunking
    rows = [_chunk(number, text, shards[number % N_SHARDS]) for number, text in enumerate(texts)]
    frame = pl.DataFrame(rows).with_columns(pl.lit(chunking).alias("chunking"))
    schema = CHUNKS.outputs.schema
    missing = [pl.lit(None, kind).alias(c) for c, kind in schema.items() if c not in frame.columns]
    snapshot = workspace.tables.snapshot(CHUNKS.outputs)
    partitions = [{"source_shard": shard, "chunking": chunking} for shard in shards]
    chunks = frame.with_columns(missing).select(list(schema)).cast(schema)
    workspace.tables.replace(snapshot, partitions, chunks)
    embedding_set = workspace.config.index_version(VERSION).embedding_set
    context = RunContext("benchmark", lambda: NOW, checkpoints=None)
    update_embeddings(workspace, embedding_set, shards, context)
    return workspace


def _chunk(number: int, text: str, shard: str) -> dict[str, object]:
    name = stable_hash("chunk", number)
    return {
        "chunk_id": name,
        "document_id": stable_hash("document", number // 10),
        "uri": f"file:///pages/{number // 10:05d}.md",
        "source": "pages",
        SHARD: shard,
        "text": text,
        "text_hash": stable_hash(text),
        "n_tokens": len(text) // 4,
        "start_char": 0,
        "end_char": len(text),
        "title": f"Page {number // 10}",
        "language": "en",
        "document_type": "page",
        "input_hash": name,
        "output_hash": name,
        "run_id": "benchmark",
        "computed_at": NOW,
    }


def _points(workspace: Workspace) -> Points:
    """The very points that the stage writes, caught on their way into the store."""
    batches: list[PointBatch] = []
    with workspace.vector_store() as store:
        kind = type(store)
    write = kind.upsert

    def catch(store: Any, name: str, batch: PointBatch) -> None:
        batches.append(batch)
        write(store, name, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "upsert", catch)
        _through_stage(workspace)
    return Points(batches, [[_cut(payload) for payload in batch.payloads] for batch in batches])


def _cut(payload: Payload) -> str:
    return split_unspaced_words(str(payload["text"]))


@contextmanager
def _server_process(folder: Path) -> Iterator[tuple[str, int]]:
    """The loopback server in a process of its own: its Python must not slow the writer's."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


def _serve(folder: Path, pipe: Any) -> None:
    with loopback_qdrant(folder) as server:
        pipe.send((server.url, server.grpc_port))
        pipe.recv()
