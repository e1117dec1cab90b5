"""The order that a reranker's scores make."""

import numpy as np
import pytest

from ragassets.core.reranking import order_by_score
from ragassets.errors import InvalidVectorError


def test_the_highest_score_comes_first_and_equal_ones_keep_their_order() -> None:
    """Where the reranker sees no difference, the first ranking decides."""
    scores = np.array([0.5, -1.0, 2.0, 0.5, 2.0], dtype=np.float32)
    assert order_by_score(scores) == [2, 4, 0, 3, 1]
    assert order_by_score(np.zeros(0, dtype=np.float32)) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_an_error(bad: float) -> None:
    """Sorting would put it anywhere, in silence."""
    with pytest.raises(InvalidVectorError, match=r"reranker.* not finite"):
        order_by_score(np.array([1.0, bad], dtype=np.float32))
