"""How good the rankings are on judged queries: dense, sparse, fused, and reranked.

Read-only over shared/corpora: Cranfield and XQuAD with one vector a document, as their published
baselines have it, and three long texts cut into chunks, where a chunk that overlaps an answer is
relevant. All through the embedded store and the adapters that `ragassets search` uses.
"""

import json
import os
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np

from ragassets.adapters.embedders.registry import open_embedder
from ragassets.adapters.rerankers.registry import open_reranker
from ragassets.adapters.tokenizers import load_tokenizer
from ragassets.adapters.vector_store import open_vector_store
from ragassets.core.chunking import split_document
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.evaluation import GoldenQuery, QueryScore, score_rankings
from ragassets.core.indexing import PointBatch, chunk_payload, point_id
from ragassets.core.paired_comparison import PairedComparison, compare_paired
from ragassets.core.reranking import Reranker, order_by_score
from ragassets.core.searching import SearchHit, SearchMode, SearchRequest
from ragassets.core.settings import ChunkingConfig, EmbeddingModelConfig, RerankerConfig

TITLE = "Search quality: dense, sparse, hybrid, reranked"
CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora" / "retrieval"
CORPORA = Path(os.environ.get("RAGASSETS_CORPORA", CORPORA.parent)) / "retrieval"

N_QUERIES = int(os.environ.get("SEARCH_QUALITY_QUERIES", "225"))
"""Of each set, taken evenly; all 225 of Cranfield."""
N_RERANKED = int(os.environ.get("SEARCH_QUALITY_RERANKED", "100"))
"""Queries that are reranked: a second each on two idle cores."""
CANDIDATES = tuple(map(int, os.environ.get("SEARCH_QUALITY_CANDIDATES", "20,50").split(",")))
DEPTH = 100
K = 60
MODES: tuple[SearchMode, ...] = ("dense", "sparse", "hybrid")
FUSIONS = {"k 60": (60, 1, 1), "k 10": (10, 1, 1), "2 : 1": (60, 2, 1), "1 : 2": (60, 1, 2)}
"""RRF constant, weight of dense and of sparse."""


@dataclass(frozen=True)
class JudgedSet:
    """Texts, and queries whose relevant texts are known."""

    name: str
    texts: Mapping[str, str]
    golden: Sequence[GoldenQuery]
    language: str = "en"


Ranking = list[str]


def measure() -> list[str]:
    """Rank every set every way."""
    reranker = open_reranker(
        "bundled", RerankerConfig(provider="onnx", model="ms-marco-MiniLM-L-12-v2")
    )
    ranked: list[str] = []
    fused: list[str] = []
    for judged in (_xquad("en"), _spans(), _cranfield(), _xquad("de")):
        with tempfile.TemporaryDirectory(prefix="ragassets-quality-") as folder:
            quality, fusion = _measure_set(judged, Path(folder), reranker)
        ranked += quality
        fused += fusion
        print("\n".join([*quality, *fusion]), flush=True)
    return [
        (
            "nDCG@10. Embedding: all-MiniLM-L6-v2. Reranker: ms-marco-MiniLM-L-12-v2 (8-bit ONNX,"
            " English) over the first candidates of the hybrid ranking. Difference to hybrid on"
            " the same queries with its 95 % interval and p-value, by a paired permutation test."
        ),
        "",
        "| set | ranking | queries | nDCG@10 | difference to hybrid | p | time, hybrid = 1 |",
        "|---|---|---|---|---|---|---|",
        *ranked,
        "",
        (
            f"Fusion of the first {DEPTH} of each ranking by weighted reciprocal ranks (constant k,"
            " weights dense : sparse); the default is k 60, 1 : 1."
        ),
        "",
        f"| set | dense | sparse | {' | '.join(FUSIONS)} |",
        "|---" * (3 + len(FUSIONS)) + "|",
        *fused,
    ]


def _measure_set(
    judged: JudgedSet, folder: Path, reranker: Reranker
) -> tuple[list[str], list[str]]:
    embedder = open_embedder("minilm", EmbeddingModelConfig(model="all-MiniLM-L6-v2", dim=384))
    names = list(judged.texts)
    texts = [judged.texts[name] for name in names]
    ids = [f"{zlib.crc32(name.encode()):08x}" * 4 for name in names]
    payloads = [
        chunk_payload(
            chunk_id=id_,
            document_id=id_,
            uri=name,
            source=judged.name,
            source_shard="",
            page=None,
            text=text,
            title=None,
            language=judged.language,
            document_type=None,
            metadata={},
            acl=[],
        )
        for id_, name, text in zip(ids, names, texts, strict=True)
    ]
    store = open_vector_store(str(folder / "store"), timeout_seconds=5)
    with store:
        store.ensure_collection("v1", CollectionConfig(dim=384))
        points = PointBatch([point_id(i) for i in ids], embedder.embed_documents(texts), payloads)
        store.upsert("v1", points)

        def find(query: str, mode: SearchMode) -> list[SearchHit]:
            vector = embedder.embed_queries([query])[0]
            return store.search("v1", SearchRequest(mode, DEPTH, vector, query))

        find("warm up", "hybrid")
        found, seconds = _search_all(judged.golden, find)
        rows = _quality_rows(judged, found, seconds, reranker)
    return rows, [_fusion_row(judged, found)]


def _search_all(
    golden: Sequence[GoldenQuery], find: Callable[[str, SearchMode], list[SearchHit]]
) -> tuple[dict[str, list[list[SearchHit]]], dict[str, float]]:
    """Hits of each mode, and the median time of a search; the modes take turns."""
    found: defaultdict[str, list[list[SearchHit]]] = defaultdict(list)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for query in golden:
        for mode in MODES:
            started = time.perf_counter()
            found[mode].append(find(query.query, mode))
            seconds[mode].append(time.perf_counter() - started)
    return dict(found), {mode: median(of_mode) for mode, of_mode in seconds.items()}


def _quality_rows(
    judged: JudgedSet,
    found: Mapping[str, list[list[SearchHit]]],
    seconds: Mapping[str, float],
    reranker: Reranker,
) -> list[str]:
    golden = judged.golden
    scores = {mode: _scores(golden, [_uris(hits) for hits in found[mode]]) for mode in MODES}
    rows = [
        _row(judged.name, mode, scores[mode], scores["hybrid"], seconds[mode] / seconds["hybrid"])
        for mode in MODES
    ]
    if not N_RERANKED:
        return rows
    chosen = _evenly(range(len(golden)), N_RERANKED)
    some = [golden[i] for i in chosen]
    base = [scores["hybrid"][i] for i in chosen]
    reader = _Reader(reranker)
    rankings = {
        n: [reader.rank(golden[i].query, found["hybrid"][i], n) for i in chosen] for n in CANDIDATES
    }
    for n, of_n in rankings.items():
        cost = 1 + reader.seconds_per_text * n / seconds["hybrid"]
        rows.append(_row(judged.name, f"hybrid, {n} reranked", _scores(some, of_n), base, cost))
    return rows


class _Reader:
    """A reranker that reads every pair once."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self._seconds, self._n_texts = 0.0, 0
        self._known: dict[tuple[str, str], float] = {}
        reranker.score("warm up", ["the model is loaded"])

    @property
    def seconds_per_text(self) -> float:
        return self._seconds / max(1, self._n_texts)

    def rank(self, query: str, hits: Sequence[SearchHit], n: int) -> Ranking:
        """The first n by the reranker, then the rest as they were."""
        texts = [str(hit.payload["text"]) for hit in hits[:n]]
        missing = [text for text in texts if (query, text) not in self._known]
        started = time.perf_counter()
        new = self._reranker.score(query, missing)
        self._seconds += time.perf_counter() - started
        self._n_texts += len(missing)
        self._known.update(zip([(query, text) for text in missing], new.tolist(), strict=True))
        scores = np.array([self._known[query, text] for text in texts], np.float32)
        return _uris([*(hits[i] for i in order_by_score(scores)), *hits[n:]])


def _fusion_row(judged: JudgedSet, found: Mapping[str, list[list[SearchHit]]]) -> str:
    dense = [_uris(hits) for hits in found["dense"]]
    sparse = [_uris(hits) for hits in found["sparse"]]
    cells = [_mean(_scores(judged.golden, ranking)) for ranking in (dense, sparse)]
    for k, *weights in FUSIONS.values():
        rankings = [_fuse(pair, k, weights) for pair in zip(dense, sparse, strict=True)]
        cells.append(_mean(_scores(judged.golden, rankings)))
    return f"| {judged.name} | {' | '.join(f'{cell:.4f}' for cell in cells)} |"


def _fuse(rankings: Sequence[Ranking], k: int, weights: Sequence[float]) -> Ranking:
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, name in enumerate(ranking, start=1):
            scores[name] += weight / (k + rank)
    return sorted(scores, key=lambda name: (-scores[name], name))


def _row(
    name: str,
    ranking: str,
    scores: Sequence[QueryScore],
    base: Sequence[QueryScore],
    cost: float,
) -> str:
    found: PairedComparison = compare_paired(scores, base)
    difference = (
        "| | |"
        if ranking == "hybrid"
        else f"| {found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f}) |"
        f" {found.p_value:.3f} |"
    )
    return f"| {name} | {ranking} | {len(scores)} | {_mean(scores):.4f} {difference} {cost:.1f} |"


def _scores(golden: Sequence[GoldenQuery], rankings: Sequence[Ranking]) -> list[QueryScore]:
    return score_rankings(golden, rankings)


def _mean(scores: Sequence[QueryScore]) -> float:
    return fmean(score.ndcg_at_10 for score in scores)


def _uris(hits: Sequence[SearchHit]) -> Ranking:
    return [str(hit.payload["uri"]) for hit in hits]


def _evenly(entries: Sequence, n: int) -> list:
    step = max(1.0, len(entries) / max(1, n))
    return [entries[int(i * step)] for i in range(min(n, len(entries)))]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _judged(folder: Path) -> tuple[list[dict], list[GoldenQuery]]:
    relevant: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        relevant[query][document] = float(grade)
    queries = _lines(folder / "queries.jsonl")
    return queries, [GoldenQuery(entry["text"], relevant[entry["_id"]]) for entry in queries]


def _cranfield() -> JudgedSet:
    folder = CORPORA / "cranfield"
    documents = _lines(folder / "corpus.jsonl")
    texts = {d["_id"]: f"{d['title']} {d['text']}" for d in documents if d["text"].strip()}
    return JudgedSet("cranfield", texts, _evenly(_judged(folder)[1], N_QUERIES))


def _xquad(language: str) -> JudgedSet:
    folder = CORPORA / "xquad"
    texts = {
        d["_id"]: d["text"]
        for d in _lines(folder / "corpus.jsonl")
        if d["_id"].startswith(f"{language}-")
    }
    queries, golden = _judged(folder)
    mine = [
        judged
        for entry, judged in zip(queries, golden, strict=True)
        if entry["metadata"]["lang"] == language
    ]
    return JudgedSet(f"xquad {language}", texts, _evenly(mine, N_QUERIES), language)


def _spans() -> JudgedSet:
    folder = CORPORA / "chunking_spans"
    texts: dict[str, str] = {}
    places: dict[str, tuple[str, int, int]] = {}
    tokenizer = load_tokenizer()
    for file in sorted((folder / "corpora").glob("*.md")):
        text = file.read_text(encoding="utf-8")
        for span in split_document(text, [], ChunkingConfig(), tokenizer):
            name = f"{file.stem}:{span.start_char}"
            texts[name] = text[span.start_char : span.end_char]
            places[name] = (file.stem, span.start_char, span.end_char)
    golden = [
        GoldenQuery(
            entry["text"],
            {
                name: 1.0
                for name, (corpus, start, end) in places.items()
                if corpus == entry["corpus_id"]
                and any(r["start"] < end and r["end"] > start for r in entry["references"])
            },
        )
        for entry in _lines(folder / "questions.jsonl")
    ]
    return JudgedSet("chunking_spans", texts, _evenly(golden, N_QUERIES))
