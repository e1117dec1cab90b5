"""Two rankings of the same queries, compared query by query: is one of them really worse?

Means over two dozen queries differ by chance alone. What counts are the differences of the single
queries, so every number here is made of those. Numbers only: who searched is elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragassets.core.evaluation import QueryScore

N_RESAMPLES = 10_000
"""The standard error of a p-value of 0.05 is then 0.002."""

RESAMPLES_AT_ONCE = 500
"""Bounds the memory: 500 times 10,000 queries are 40 MB."""

SEED = 20_260_101
"""The same scores give the same verdict, today and in the next run."""

CONFIDENCE = 0.95

MIN_DIFFERENCE = 1e-9
"""Below it a query is a tie: the same ranks, summed in another order."""

N_LOSING_QUERIES = 10
"""What a person reads of the queries that lost."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class QueryDifference:
    """One query that the candidate answers worse."""

    query: str
    ndcg_at_10: float
    live_ndcg_at_10: float


@dataclass(frozen=True)
class PairedComparison:
    """The candidate's nDCG@10 minus the live version's, over the same queries."""

    n_queries: int
    difference: float
    """Mean of the differences, in [-1, 1]; negative where the candidate is worse."""
    low: float
    high: float
    """Bounds of the 95 % confidence interval of the difference."""
    p_value: float
    """Probability of a mean difference of this size, or a larger one, by chance."""
    wins: int
    losses: int
    ties: int
    losing_queries: tuple[QueryDifference, ...]
    """Those that lost most, worst first."""


def compare_paired(
    candidate: Sequence[QueryScore], live: Sequence[QueryScore]
) -> PairedComparison | None:
    """Compare the scores of the same queries in the same order; None without queries.

    Exchanging the two turns the sign of the difference and of the interval, and wins into losses;
    the p-value stays.
    """
    if not candidate:
        return None
    pairs = list(zip(candidate, live, strict=True))
    differences = np.array([ours.ndcg_at_10 - theirs.ndcg_at_10 for ours, theirs in pairs])
    low, high = bootstrap_interval(differences)
    lost = [pair for pair in pairs if pair[1].ndcg_at_10 - pair[0].ndcg_at_10 > MIN_DIFFERENCE]
    lost.sort(key=lambda pair: (pair[0].ndcg_at_10 - pair[1].ndcg_at_10, pair[0].query))
    n_won = int((differences > MIN_DIFFERENCE).sum())
    return PairedComparison(
        n_queries=len(pairs),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=permutation_p_value(differences),
        wins=n_won,
        losses=len(lost),
        ties=len(pairs) - n_won - len(lost),
        losing_queries=tuple(
            QueryDifference(ours.query, ours.ndcg_at_10, theirs.ndcg_at_10)
            for ours, theirs in lost[:N_LOSING_QUERIES]
        ),
    )


def permutation_p_value(differences: Values) -> float:
    """Two-sided p-value of the paired randomization test of the mean.

    Under the null hypothesis the two systems are exchangeable in each query, so every sign is as
    likely as the other. The observed signs count as one of the permutations, so it is never 0.

    Args:
        differences: (n_queries,) float64.

    Source: Smucker, Allan and Carterette 2007, "A comparison of statistical significance tests for
    information retrieval evaluation"; the added one is that of Phipson and Smyth 2010,
    "Permutation p-values should never be zero".
    """
    observed = abs(float(differences.sum())) - MIN_DIFFERENCE
    random = np.random.default_rng(SEED)
    n_extreme = 0
    for n_rows in _blocks():
        signs = random.integers(0, 2, size=(n_rows, len(differences)), dtype=np.int8) * 2 - 1
        n_extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (n_extreme + 1) / (N_RESAMPLES + 1)


def bootstrap_interval(differences: Values) -> tuple[float, float]:
    """Percentile interval of the mean difference, at `CONFIDENCE`.

    Args:
        differences: (n_queries,) float64.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3; used for
    paired queries by Sakai 2006, "Evaluating evaluation metrics based on the bootstrap".
    """
    random = np.random.default_rng(SEED)
    n_queries = len(differences)
    means = np.concatenate(
        [
            differences[random.integers(0, n_queries, size=(n_rows, n_queries))].mean(axis=1)
            for n_rows in _blocks()
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _blocks() -> list[int]:
    return [RESAMPLES_AT_ONCE] * (N_RESAMPLES // RESAMPLES_AT_ONCE)
