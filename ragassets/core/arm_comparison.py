"""Two arms of a canary compared: what their searches found, how fast, and what users said of it.

The arm is drawn for users, or for queries of nobody in particular, so these units are what is
exchangeable and what is resampled. A user who searches a hundred times is one draw, not a hundred.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

MIN_UNITS = 30
"""Users or queries of each arm from which on a difference is tested. With fewer, percentile
intervals are too narrow by a tenth and more. Source: Hesterberg 2015, "What teachers should know
about the bootstrap", section 4.2, table 2."""

N_RESAMPLES = 5_000
"""The standard error of a p-value of 0.05 is then 0.003."""

RESAMPLES_AT_ONCE = 50
"""Bounds the memory: 50 times 100,000 units are 40 MB."""

SEED = 20_260_101
"""The same searches give the same verdict, today and in the next run."""

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

SUCCESS_AT = (1, 3, 5)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ArmSummary:
    """One arm, described."""

    arm: str
    searches: int
    units: int
    """Users, or queries of nobody in particular."""
    fallbacks: int
    """Searches that the live version answered because the canary failed."""
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    timed: int
    """Searches that these come from: warm ones, or all where none was warm."""
    is_cold: bool
    """They include loading the model."""
    share_without_hits: float | None
    feedback: int
    """Searches that somebody said something of."""
    feedback_rate: float | None
    success_at: Mapping[str, float | None]
    """By k: the share of searches with feedback whose first useful hit is among the first k."""
    mrr: float | None
    """Mean of 1 / rank of the first useful hit, over searches with feedback; 0 where none was."""


@dataclass(frozen=True)
class Difference:
    """One metric, canary minus live."""

    metric: str
    live: float | None
    canary: float | None
    difference: float | None
    low: float | None = None
    """Bounds of the 95 % confidence interval of the difference; None with too little data."""
    high: float | None = None
    p_value: float | None = None
    verdict: str = ""
    """`better`, `worse`, `no difference shown`, or what is too little."""


@dataclass(frozen=True)
class ArmComparison:
    """Both arms, and what differs."""

    arms: tuple[ArmSummary, ArmSummary]
    """Live, canary."""
    differences: tuple[Difference, ...]


def compare_arms(searches: pl.DataFrame, feedback: pl.DataFrame) -> ArmComparison:
    """Compare the searches of one canary.

    Args:
        searches: Rows of `_canary_searches`, each search once.
        feedback: Rows of `_canary_feedback`; of several about one hit the last counts.
    """
    joined = searches.join(_first_useful(feedback), on="search_id", how="left")
    rows = joined.with_columns(
        (pl.col("n_hits") == 0).cast(pl.Float64).alias("without_hits"),
        pl.col("reciprocal_rank").is_not_null().cast(pl.Float64).alias("has_feedback"),
    )
    live, canary = (rows.filter(arm=arm) for arm in ("live", "canary"))
    metrics: list[Difference] = [
        _latency_difference(live, canary),
        _difference("share without hits", live, canary, "without_hits", is_more_better=False),
        _difference("feedback rate", live, canary, "has_feedback", is_more_better=None),
    ]
    told_live, told_canary = (
        part.filter(pl.col("reciprocal_rank").is_not_null()) for part in (live, canary)
    )
    for k in SUCCESS_AT:
        success = (pl.col("reciprocal_rank") >= 1 / k).cast(pl.Float64).alias("success")
        one, two = told_live.with_columns(success), told_canary.with_columns(success)
        metrics.append(_difference(f"success@{k}", one, two, "success", is_more_better=True))
    mrr = _difference("MRR", told_live, told_canary, "reciprocal_rank", is_more_better=True)
    metrics.append(mrr)
    return ArmComparison((_summary("live", live), _summary("canary", canary)), tuple(metrics))


def _first_useful(feedback: pl.DataFrame) -> pl.DataFrame:
    """`search_id` and `reciprocal_rank` of the first useful hit, 0 where none was useful."""
    last = feedback.sort("said_at", "feedback_id").unique(["search_id", "uri"], keep="last")
    useful = pl.when("is_relevant").then(1 / pl.col("rank")).otherwise(0.0)
    return last.group_by("search_id").agg(useful.max().alias("reciprocal_rank"))


def _summary(arm: str, rows: pl.DataFrame) -> ArmSummary:
    timed, is_cold = _timed(rows)
    said = rows.filter(pl.col("reciprocal_rank").is_not_null())["reciprocal_rank"]
    return ArmSummary(
        arm=arm,
        searches=rows.height,
        units=rows["unit"].n_unique(),
        fallbacks=int(rows["is_fallback"].sum()),
        latency_ms_p50=timed["latency_ms"].quantile(0.5, "linear"),
        latency_ms_p95=timed["latency_ms"].quantile(0.95, "linear"),
        timed=timed.height,
        is_cold=is_cold,
        share_without_hits=_mean(rows["without_hits"]),
        feedback=len(said),
        feedback_rate=_mean(rows["has_feedback"]),
        success_at={str(k): _mean((said >= 1 / k).cast(pl.Float64)) for k in SUCCESS_AT},
        mrr=_mean(said),
    )


def _timed(rows: pl.DataFrame) -> tuple[pl.DataFrame, bool]:
    """The searches that tell how fast an arm is; a first search loads the model."""
    warm = rows.filter(~pl.col("is_cold"))
    return (rows, True) if warm.is_empty() and rows.height else (warm, False)


def _latency_difference(live: pl.DataFrame, canary: pl.DataFrame) -> Difference:
    """Of the medians; each unit counts by its own median."""
    (one, is_cold), (two, is_other_cold) = _timed(live), _timed(canary)
    if is_cold != is_other_cold:  # a search that loaded the model compares with its like only
        one, two = live, canary
    medians = [part.group_by("unit").agg(pl.col("latency_ms").median()) for part in (one, two)]
    values = [part["latency_ms"].sort().to_numpy() for part in medians]
    found = _described(
        "latency p50 (ms)",
        *(float(np.median(part)) if len(part) else None for part in values),
    )
    if missing := _too_little(*values):
        return _with(found, verdict=missing)
    stats = cast("Any", import_module("scipy.stats"))

    # Latencies have long tails, so ranks are compared. Source: Mann and Whitney 1947.
    p_value = float(stats.mannwhitneyu(*values).pvalue)
    ones = [np.ones(len(part)) for part in values]
    low, high = _interval(values, ones, by_median=True)
    return _judged(found, low, high, p_value, is_more_better=False)


def _difference(
    metric: str,
    live: pl.DataFrame,
    canary: pl.DataFrame,
    column: str,
    *,
    is_more_better: bool | None,
) -> Difference:
    """Of the means over searches, by resampling units."""
    parts = [
        rows.group_by("unit")
        .agg(pl.col(column).sum().alias("sum"), pl.len().alias("n"))
        .sort("unit")
        for rows in (live, canary)
    ]
    sums = [part["sum"].cast(pl.Float64).to_numpy() for part in parts]
    counts = [part["n"].cast(pl.Float64).to_numpy() for part in parts]
    means = [
        float(s.sum() / n.sum()) if len(n) else None for s, n in zip(sums, counts, strict=True)
    ]
    found = _described(metric, *means)
    if missing := _too_little(*sums):
        return _with(found, verdict=missing)
    low, high = _interval(sums, counts, by_median=False)
    p_value = _permutation_p_value(sums, counts)
    return _judged(found, low, high, p_value, is_more_better=is_more_better)


def _permutation_p_value(sums: Sequence[Values], counts: Sequence[Values]) -> float:
    """Two-sided p-value of exchanging units between the arms, as the draw of the arms did.

    Source: Fisher 1935, "The Design of Experiments"; for metrics whose unit of analysis is not the
    unit of randomization, Deng, Knoblich and Lu 2018, https://arxiv.org/abs/1803.06336
    """
    stats = cast("Any", import_module("scipy.stats"))

    numerators, denominators = np.concatenate(sums), np.concatenate(counts)

    def statistic(live: Values, canary: Values, axis: int) -> Values:
        means = [
            numerators[rows.astype(np.int64)].sum(axis)
            / denominators[rows.astype(np.int64)].sum(axis)
            for rows in (live, canary)
        ]
        return means[1] - means[0]

    positions = np.arange(len(numerators), dtype=np.float64)
    n_live = len(sums[0])
    found = stats.permutation_test(
        (positions[:n_live], positions[n_live:]),
        statistic,
        n_resamples=N_RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def _interval(
    sums: Sequence[Values], counts: Sequence[Values], *, by_median: bool
) -> tuple[float, float]:
    """Percentile bootstrap interval of the difference, units drawn within each arm."""
    stats = cast("Any", import_module("scipy.stats"))

    def of_arm(arm: int, positions: Values, axis: int) -> Values:
        rows = positions.astype(np.int64)
        if by_median:
            return np.median(sums[arm][rows], axis=axis)
        return sums[arm][rows].sum(axis) / counts[arm][rows].sum(axis)

    def statistic(live: Values, canary: Values, axis: int) -> Values:
        return of_arm(1, canary, axis) - of_arm(0, live, axis)

    found = stats.bootstrap(
        tuple(np.arange(len(part), dtype=np.float64) for part in sums),
        statistic,
        n_resamples=N_RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    interval = found.confidence_interval
    return float(interval.low), float(interval.high)


def _too_little(live: Values, canary: Values) -> str:
    """What is missing for a test, in words; nothing where enough is there."""
    short = [
        f"{name} has {len(values)}"
        for name, values in (("live", live), ("canary", canary))
        if len(values) < MIN_UNITS
    ]
    if not short:
        return ""
    return (
        f"too little data: {MIN_UNITS} users or queries of each arm are needed, {', '.join(short)}"
    )


def _described(metric: str, live: float | None, canary: float | None) -> Difference:
    difference = None if live is None or canary is None else canary - live
    return Difference(metric, live, canary, difference)


def _with(found: Difference, *, verdict: str) -> Difference:
    return Difference(found.metric, found.live, found.canary, found.difference, verdict=verdict)


def _judged(
    found: Difference, low: float, high: float, p_value: float, *, is_more_better: bool | None
) -> Difference:
    verdict = "no difference shown"
    if p_value <= SIGNIFICANCE and found.difference:
        is_more = found.difference > 0
        verdict = "better" if is_more == is_more_better else "worse"
        if is_more_better is None:
            verdict = "higher" if is_more else "lower"
    return Difference(
        found.metric, found.live, found.canary, found.difference, low, high, p_value, verdict
    )


def _mean(values: pl.Series) -> float | None:
    mean = values.mean()
    return None if mean is None else float(mean)  # pyright: ignore[reportArgumentType] - of numbers
