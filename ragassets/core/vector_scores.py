"""How near vectors are, computed the same way whatever an engine made of them."""

import numpy as np
from numpy.typing import NDArray

from ragassets.core.collection_config import Distance


def score_vectors(
    vectors: NDArray[np.float32], query: NDArray[np.float32], distance: Distance
) -> list[float]:
    """Return a score for each vector, higher is better; euclidean distances are negative.

    In float64 and row by row, so that equal vectors have equal scores wherever they stand.

    Args:
        vectors: (n, dim) float32, none of them zero; n may be 0.
        query: (dim,) float32, not zero.
        distance: how to compare.
    """
    rows, other = vectors.astype(np.float64), query.astype(np.float64)
    match distance:
        case "cosine":
            lengths = np.sqrt((rows * rows).sum(axis=1) * (other * other).sum())
            scores = (rows * other).sum(axis=1) / lengths
        case "dot":
            scores = (rows * other).sum(axis=1)
        case "euclid":
            scores = -np.sqrt(((rows - other) ** 2).sum(axis=1))
    return [float(score) for score in scores]
