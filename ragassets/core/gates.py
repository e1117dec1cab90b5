"""Gates: the limits that a complete and sound version must keep before an alias may serve it.

What is measured is decided elsewhere; here measured numbers meet the limits of the configuration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ragassets.core.evaluation import RetrievalQuality
from ragassets.core.paired_comparison import PairedComparison
from ragassets.core.settings import GatesConfig

NO_GOLDEN_QUERIES = "not measured: no golden queries"
NO_RIVAL = "not measured: nothing else is live"
SERVED_BEFORE = "reported only: the alias served this version before, and a rollback stays possible"


@dataclass(frozen=True)
class SearchLatency:
    """Time of a search in the vector store, the embedding of its query not included."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Measurements:
    """What is known of a version; None where it was not measured."""

    quality: RetrievalQuality | None = None
    comparison: PairedComparison | None = None
    recall_vs_exact: float | None = None
    latency: SearchLatency | None = None
    dead_letter_share: float | None = None
    was_served: bool = False
    """Whether an alias that judges the version has served it before."""


@dataclass(frozen=True)
class GateVerdict:
    """One configured gate, and what it found."""

    gate: str
    """Its key in the configuration."""
    limit: float
    value: float | None
    """None where it could not be measured; then it does not stop anything."""
    passed: bool
    note: str = ""

    def describe(self) -> str:
        """One line for people."""
        found = "not measured" if self.value is None else f"found {self.value:.4g}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.gate} is {self.limit:g}, {found}{note}"


def apply_gates(gates: GatesConfig, measured: Measurements) -> list[GateVerdict]:
    """Hold the numbers against every gate that is switched on, in the order of the configuration.

    A version fails if one verdict has not passed.
    """
    quality, latency = measured.quality, measured.latency
    floors = [
        ("min_ndcg_at_10", gates.min_ndcg_at_10, quality and quality.ndcg_at_10),
        ("min_recall_at_10", gates.min_recall_at_10, quality and quality.recall_at_10),
        ("min_mrr_at_10", gates.min_mrr_at_10, quality and quality.mrr_at_10),
    ]
    ceiling = ("max_latency_ms_p95", gates.max_latency_ms_p95, latency and latency.p95_ms)
    verdicts = [
        *(_at_least(name, limit, value, NO_GOLDEN_QUERIES) for name, limit, value in floors),
        _drop(gates, measured),
        _at_least(
            "min_recall_vs_exact", gates.min_recall_vs_exact, measured.recall_vs_exact, "no points"
        ),
        _at_most(*ceiling, NO_GOLDEN_QUERIES),
        _at_most(
            "max_dead_letter_share",
            gates.max_dead_letter_share,
            measured.dead_letter_share,
            "no documents",
        ),
    ]
    return [verdict for verdict in verdicts if verdict is not None]


def strictest(sections: Sequence[GatesConfig]) -> GatesConfig:
    """One section that lets pass only what all of them let pass; at least one is given."""

    def choose(name: str) -> float | None:
        limits = [limit for section in sections if (limit := getattr(section, name)) is not None]
        if not limits:
            return None
        # A larger p-value lets more losses count.
        return min(limits) if name.startswith("max_") else max(limits)

    return GatesConfig.model_validate({name: choose(name) for name in GatesConfig.model_fields})


def failed_gates(verdicts: Sequence[GateVerdict]) -> list[str]:
    """The gates that stop the version, in words."""
    return [verdict.describe() for verdict in verdicts if not verdict.passed]


def _at_least(
    gate: str, limit: float | None, value: float | None, missing: str
) -> GateVerdict | None:
    if limit is None:
        return None
    if value is None:
        return GateVerdict(gate, limit, None, passed=True, note=missing)
    return GateVerdict(gate, limit, value, passed=value >= limit)


def _at_most(
    gate: str, limit: float | None, value: float | None, missing: str
) -> GateVerdict | None:
    if limit is None:
        return None
    if value is None:
        return GateVerdict(gate, limit, None, passed=True, note=missing)
    return GateVerdict(gate, limit, value, passed=value <= limit)


def _drop(gates: GatesConfig, measured: Measurements) -> GateVerdict | None:
    """The drop below the live version: it has to be large, and no accident."""
    gate, limit, comparison = "max_ndcg_drop", gates.max_ndcg_drop, measured.comparison
    if limit is None:
        return None
    if comparison is None:
        missing = NO_GOLDEN_QUERIES if measured.quality is None else NO_RIVAL
        return GateVerdict(gate, limit, None, passed=True, note=missing)
    drop = max(0.0, -comparison.difference)
    is_large, is_certain = drop > limit, comparison.p_value <= gates.significance
    note = f"p = {comparison.p_value:.2g} over {comparison.n_queries} queries"
    if is_large and not is_certain:
        note += ", so it may be chance"
    if is_large and is_certain and measured.was_served:
        return GateVerdict(gate, limit, drop, passed=True, note=f"{note}; {SERVED_BEFORE}")
    return GateVerdict(gate, limit, drop, passed=not (is_large and is_certain), note=note)
