"""Whether one version is really worse than another: the numbers behind a refused promotion."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.evaluation import QueryScore
from ragassets.core.paired_comparison import (
    bootstrap_interval,
    compare_paired,
    permutation_p_value,
)


def scores(*values: float) -> list[QueryScore]:
    return [QueryScore(f"query {i}", value, 0.0, 0.0) for i, value in enumerate(values)]


SHARES = st.lists(st.tuples(*[st.integers(0, 20).map(lambda n: n / 20)] * 2), min_size=1)


def test_wins_losses_ties_and_the_worst_losses_by_hand() -> None:
    """A person starts with the queries that lost most."""
    found = compare_paired(scores(0.5, 0.2, 1, 0.4), scores(0.5, 0.8, 0.5, 0.5))
    assert found is not None
    assert (found.n_queries, found.wins, found.losses, found.ties) == (4, 1, 2, 1)
    assert found.difference == pytest.approx((0 - 0.6 + 0.5 - 0.1) / 4)
    assert [lost.query for lost in found.losing_queries] == ["query 1", "query 3"]
    assert (found.losing_queries[0].ndcg_at_10, found.losing_queries[0].live_ndcg_at_10) == (
        0.2,
        0.8,
    )


def test_a_steady_loss_is_significant_and_noise_is_not() -> None:
    """Thirty queries that all lose a little say more than one that loses much."""
    live = [0.5 + i / 100 for i in range(30)]
    steady = compare_paired(scores(*(value - 0.1 for value in live)), scores(*live))
    one = compare_paired(scores(0, *live[1:]), scores(*live))
    assert steady is not None
    assert one is not None
    assert steady.p_value < 0.001
    assert steady.low == pytest.approx(-0.1)
    assert steady.high == pytest.approx(-0.1)
    assert one.p_value == 1
    assert one.high == 0


def test_equal_scores_are_no_difference() -> None:
    """A version against its own copy."""
    same = compare_paired(scores(0.3, 0.9), scores(0.3, 0.9))
    assert same is not None
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert compare_paired([], []) is None


def test_other_queries_cannot_be_compared() -> None:
    """A shifted pair would compare apples with pears."""
    with pytest.raises(ValueError, match="longer"):
        compare_paired(scores(0.1), scores(0.1, 0.2))


@settings(max_examples=25, deadline=None)
@given(SHARES)
def test_the_comparison_is_symmetric_and_repeatable(pairs: list[tuple[float, float]]) -> None:
    """Which of the two is called the candidate decides the sign, nothing else."""
    ours, theirs = (scores(*values) for values in zip(*pairs, strict=True))
    forth, back = compare_paired(ours, theirs), compare_paired(theirs, ours)
    assert forth is not None
    assert back is not None
    assert forth == compare_paired(ours, theirs)
    assert forth.p_value == back.p_value
    assert (forth.wins, forth.losses, forth.ties) == (back.losses, back.wins, back.ties)
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert forth.low <= forth.difference + 1e-12
    assert forth.difference <= forth.high + 1e-12
    assert 0 < forth.p_value <= 1
    assert forth.wins + forth.losses + forth.ties == len(pairs)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-20, 20).map(lambda n: n / 20), min_size=1, max_size=9))
def test_the_p_value_agrees_with_all_permutations(differences: list[float]) -> None:
    """For few queries every assignment of signs can be looked at."""
    total = abs(sum(differences))
    extreme = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= total - 1e-9
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    # Four standard errors of a share estimated from 10,000 permutations.
    expected = sum(extreme) / len(extreme)
    assert permutation_p_value(np.array(differences)) == pytest.approx(expected, abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """95 % of the time, over samples whose true mean is known; a little less for small ones."""
    random = np.random.default_rng(7)
    intervals = [bootstrap_interval(random.normal(0.1, 0.3, size=40)) for _ in range(60)]
    covered = sum(low <= 0.1 <= high for low, high in intervals)
    assert 52 <= covered <= 60
