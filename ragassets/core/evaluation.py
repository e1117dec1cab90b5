"""Retrieval quality of a ranking against judged documents. Numbers only; who searches is elsewhere.

Gains are linear in the grade. Documents without a judgement count as not relevant.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import cast

from ragassets.errors import ConfigurationError

CUTOFF = 10
"""Ranks that count: what a person or a prompt reads, and what published baselines report."""

TIE = 1e-6
"""Scores closer than this are equal: float32 sums of a thousand products differ by their order."""


@dataclass(frozen=True)
class GoldenQuery:
    """A query with the grades of its relevant documents."""

    query: str
    relevant: Mapping[str, float]
    """URI to grade; a higher grade is better, 0 is not relevant."""


@dataclass(frozen=True)
class QueryScore:
    """How well one golden query was answered, each number in [0, 1]."""

    query: str
    ndcg_at_10: float
    recall_at_10: float
    reciprocal_rank: float


@dataclass(frozen=True)
class RetrievalQuality:
    """Means over queries, each in [0, 1]."""

    n_queries: int
    ndcg_at_10: float
    recall_at_10: float
    mrr_at_10: float


def ndcg(ranking: Sequence[str], relevant: Mapping[str, float], cutoff: int = CUTOFF) -> float:
    """Normalized discounted cumulative gain of the first `cutoff` ranks; 0 without relevant ones.

    Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with
    the discount log2(rank + 1) of trec_eval.
    """
    gains = [relevant.get(name, 0.0) for name in ranking[:cutoff]]
    ideal = _discounted(sorted(relevant.values(), reverse=True)[:cutoff])
    return _discounted(gains) / ideal if ideal > 0 else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


def recall(ranking: Sequence[str], relevant: Mapping[str, float], cutoff: int = CUTOFF) -> float:
    """Share of the relevant documents among the first `cutoff` ranks; 0 without relevant ones."""
    wanted = {name for name, grade in relevant.items() if grade > 0}
    return len(wanted & set(ranking[:cutoff])) / len(wanted) if wanted else 0.0


def reciprocal_rank(
    ranking: Sequence[str], relevant: Mapping[str, float], cutoff: int = CUTOFF
) -> float:
    """One over the rank of the first relevant document; 0 when none is among the first."""
    for rank, name in enumerate(ranking[:cutoff], start=1):
        if relevant.get(name, 0.0) > 0:
            return 1 / rank
    return 0.0


def score_rankings(
    queries: Sequence[GoldenQuery], rankings: Sequence[Sequence[str]]
) -> list[QueryScore]:
    """Score each query; each ranking holds every document at most once, best first."""
    return [
        QueryScore(
            query=query.query,
            ndcg_at_10=ndcg(ranking, query.relevant),
            recall_at_10=recall(ranking, query.relevant),
            reciprocal_rank=reciprocal_rank(ranking, query.relevant),
        )
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def average(scores: Sequence[QueryScore]) -> RetrievalQuality:
    """Means over the queries, which all count the same; zeros without queries."""
    if not scores:
        return RetrievalQuality(0, 0.0, 0.0, 0.0)
    return RetrievalQuality(
        n_queries=len(scores),
        ndcg_at_10=fmean(score.ndcg_at_10 for score in scores),
        recall_at_10=fmean(score.recall_at_10 for score in scores),
        mrr_at_10=fmean(score.reciprocal_rank for score in scores),
    )


def evaluate_rankings(
    queries: Sequence[GoldenQuery], rankings: Sequence[Sequence[str]]
) -> RetrievalQuality:
    """Means over the queries; see `score_rankings`."""
    return average(score_rankings(queries, rankings))


def recall_against_exact(
    found: Sequence[str], exact: Sequence[tuple[str, float]], cutoff: int = CUTOFF
) -> float:
    """Share of the true nearest neighbours that an approximate search found among its first.

    Points as near as the last true neighbour count as true ones: which of several equal texts comes
    first is an accident. 1 where there is nothing to find.

    Args:
        found: Ids by the approximate search, best first.
        exact: Ids and scores by the exact search, best first; more than `cutoff`, to see ties.
        cutoff: Neighbours that count.

    Source: the distance threshold of Aumüller, Bernhardsson and Faithfull 2020, "ANN-Benchmarks: A
    benchmarking tool for approximate nearest neighbor algorithms", section 3.6.
    """
    n_wanted = min(cutoff, len(exact))
    if not n_wanted:
        return 1.0
    threshold = exact[n_wanted - 1][1] - TIE
    true = {name for name, score in exact if score >= threshold}
    return min(len(true.intersection(found[:cutoff])), n_wanted) / n_wanted


def rank_documents(hit_uris: Sequence[str]) -> list[str]:
    """Documents in the order of their best chunk."""
    return list(dict.fromkeys(hit_uris))


def parse_golden_queries(text: str, *, origin: str) -> list[GoldenQuery]:
    """Read JSON lines `{"query": text, "relevant": {URI: grade}}`.

    Raises:
        ConfigurationError: A line is not of that form; the message names it.
    """
    lines = enumerate(text.splitlines(), start=1)
    return [_parse_line(line, f"{origin}:{number}") for number, line in lines if line.strip()]


def _parse_line(line: str, place: str) -> GoldenQuery:
    try:
        entry: object = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    if isinstance(entry, dict):
        fields = cast("dict[str, object]", entry)
        query, relevant = fields.get("query"), fields.get("relevant")
        if isinstance(query, str) and isinstance(relevant, dict):
            grades = cast("dict[str, object]", relevant)
            if all(isinstance(grade, int | float) for grade in grades.values()):
                return GoldenQuery(query, cast("dict[str, float]", grades))
    raise ConfigurationError(
        key="golden_queries",
        value=place,
        problem="is not a golden query",
        fix='Write {"query": "text", "relevant": {"file:///a.md": 1}}, one a line',
    )
