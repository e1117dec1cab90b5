"""A total over many documents from a few of them: which to draw, and what they say of all.

Documents are drawn with replacement, each with a probability proportional to its length, because
what is estimated (chunks, tokens) nearly is: a document of twice the length gives about twice the
chunks, so every draw says nearly the same, and few are enough.

Source: Hansen and Hurwitz 1943, On the theory of sampling from finite populations, Annals of
Mathematical Statistics 14(4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NORMAL_95 = 1.96
"""Standard errors on either side of an estimate that hold the truth 95 times in 100."""


@dataclass(frozen=True)
class Sample:
    """Positions of the drawn documents, repeats included, and how likely each was."""

    positions: NDArray[np.int64]
    """(n_draws,) int64 positions in the sizes that were drawn from."""
    probabilities: NDArray[np.float64]
    """(n_draws,) float64 of the drawn ones."""


@dataclass(frozen=True)
class Total:
    """An estimated total."""

    value: float
    error: float
    """Half the width of the 95 % confidence interval, in the unit of the value."""


def draw_by_size(sizes: Sequence[int], n_draws: int, *, seed: int) -> Sample:
    """Draw positions with probabilities proportional to the sizes; an empty size counts as 1."""
    weights = np.maximum(np.asarray(sizes, dtype=np.float64), 1.0)
    probabilities = weights / weights.sum()
    drawn = np.random.default_rng(seed).choice(len(weights), size=n_draws, p=probabilities)
    return Sample(drawn, probabilities[drawn])


def estimate_total(values: Sequence[float], sample: Sample) -> Total:
    """The total over all documents, from a value for each draw.

    One draw says nothing of the error, which is infinite then.
    """
    expanded = np.asarray(values, dtype=np.float64) / sample.probabilities
    n_draws = len(expanded)
    spread = float(np.std(expanded, ddof=1)) if n_draws > 1 else float("inf")
    return Total(float(np.mean(expanded)), NORMAL_95 * spread / n_draws**0.5)
