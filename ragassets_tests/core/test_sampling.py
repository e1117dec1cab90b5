"""A few documents stand for all, with an error that is true."""

import numpy as np
import pytest

from ragassets.core.sampling import draw_by_size, estimate_total


def test_what_is_proportional_to_size_is_estimated_without_error() -> None:
    """Chunks for each character are nearly constant, which is why size is drawn by."""
    sizes = [10, 400, 3_000, 90]
    sample = draw_by_size(sizes, 5, seed=1)
    total = estimate_total([sizes[i] / 5 for i in sample.positions], sample)
    assert total.value == pytest.approx(700)
    assert total.error == pytest.approx(0)


def test_the_same_seed_draws_the_same() -> None:
    """A plan that is asked twice gives one answer."""
    draws = [draw_by_size(range(1, 100), 20, seed=7).positions.tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 20


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over 400 seeds, 95 % give or take three standard deviations (3.3 %) and some skewness."""
    rng = np.random.default_rng(3)
    sizes = rng.lognormal(8, 1.2, 3_000).astype(int)
    values = sizes / 900 * rng.uniform(0.5, 1.5, len(sizes))
    n_right = 0
    for seed in range(400):
        sample = draw_by_size(sizes.tolist(), 200, seed=seed)
        total = estimate_total(values[sample.positions].tolist(), sample)
        n_right += abs(total.value - values.sum()) <= total.error
        assert total.error < 0.06 * values.sum()
    assert 0.91 <= n_right / 400 <= 0.99


def test_documents_without_text_can_be_drawn_and_one_draw_knows_no_error() -> None:
    """Sizes of zero would make a probability of zero, and the estimate infinite."""
    sample = draw_by_size([0, 0], 1, seed=1)
    assert sample.probabilities.tolist() == [0.5]
    assert estimate_total([2.0], sample).error == float("inf")
