"""Each gate once keeping a version out, once letting it pass."""

import pytest
from pydantic import ValidationError

from ragassets.core.evaluation import RetrievalQuality
from ragassets.core.gates import Measurements, SearchLatency, apply_gates, failed_gates
from ragassets.core.paired_comparison import PairedComparison
from ragassets.core.settings import GatesConfig

OFF = GatesConfig(max_ndcg_drop=None, min_recall_vs_exact=None)


def comparison(difference: float, p_value: float) -> PairedComparison:
    return PairedComparison(30, difference, difference, difference, p_value, 0, 30, 0, ())


MEASURED = Measurements(
    quality=RetrievalQuality(30, 0.5, 0.6, 0.7),
    comparison=comparison(-0.1, 0.01),
    recall_vs_exact=0.95,
    latency=SearchLatency(5, 20),
    dead_letter_share=0.25,
)


def problems(measured: Measurements = MEASURED, **gates: float | None) -> list[str]:
    return failed_gates(apply_gates(OFF.model_copy(update=gates), measured))


@pytest.mark.parametrize(
    ("gate", "kept", "broken"),
    [
        ("min_ndcg_at_10", 0.5, 0.51),
        ("min_recall_at_10", 0.6, 0.61),
        ("min_mrr_at_10", 0.7, 0.71),
        ("max_ndcg_drop", 0.1, 0.09),
        ("min_recall_vs_exact", 0.95, 0.96),
        ("max_latency_ms_p95", 20, 19),
        ("max_dead_letter_share", 0.25, 0.24),
    ],
)
def test_a_gate_stops_what_breaks_its_limit_and_names_both(
    gate: str, kept: float, broken: float
) -> None:
    """The limit itself is allowed."""
    assert problems(**{gate: kept}) == []
    (problem,) = problems(**{gate: broken})
    assert problem.startswith(f"{gate} is {broken:g}, found ")


@pytest.mark.parametrize("gate", sorted(set(GatesConfig.model_fields) - {"significance"}))
def test_what_was_not_measured_stops_nothing_and_says_why(gate: str) -> None:
    """Without golden queries a version is judged on completeness and soundness alone."""
    (verdict,) = apply_gates(OFF.model_copy(update={gate: 0.5}), Measurements())
    assert verdict.passed
    assert verdict.value is None
    assert verdict.note


def test_a_drop_that_may_be_chance_stops_nothing() -> None:
    """Five golden queries cannot prove anything."""
    gates = OFF.model_copy(update={"max_ndcg_drop": 0.05})
    (verdict,) = apply_gates(gates, Measurements(comparison=comparison(-0.3, 0.06)))
    assert verdict.passed
    assert "may be chance" in verdict.note


def test_a_version_that_was_served_before_may_be_gone_back_to() -> None:
    """After a promotion of a better version, a rollback must not be refused for that."""
    gates = OFF.model_copy(update={"max_ndcg_drop": 0.05})
    served = Measurements(comparison=comparison(-0.3, 0.001), was_served=True)
    (verdict,) = apply_gates(gates, served)
    assert verdict.passed
    assert "rollback" in verdict.note


def test_an_alias_changes_single_gates_and_may_switch_one_off() -> None:
    """What it does not name stays as it is for all."""
    everywhere = GatesConfig(min_ndcg_at_10=0.4)
    own = GatesConfig.model_validate({"max_ndcg_drop": None, "max_latency_ms_p95": 50})
    merged = everywhere.with_changes(own)
    assert (merged.min_ndcg_at_10, merged.max_ndcg_drop, merged.max_latency_ms_p95) == (
        0.4,
        None,
        50,
    )
    assert everywhere.with_changes(None) is everywhere


@pytest.mark.parametrize(
    "wrong", [{"min_ndcg_at_10": 1.1}, {"max_latency_ms_p95": 0}, {"min_ndcg": 0.4}]
)
def test_a_wrong_gate_is_refused(wrong: dict[str, float]) -> None:
    """A misspelt gate that is ignored guards nothing."""
    with pytest.raises(ValidationError):
        GatesConfig.model_validate(wrong)
