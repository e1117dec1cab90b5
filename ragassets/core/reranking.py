"""A second look at the best hits by a model that reads query and text together; pure.

Embeddings are made without knowing the query, so that they can be searched for. A cross-encoder
reads both at once: better, and a thousand times slower, hence only for the first candidates.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragassets.errors import InvalidVectorError


class Reranker(Protocol):
    """Says how well texts answer a query; the same pair gives the same score."""

    @property
    def name(self) -> str:
        """The name in the configuration."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the scores."""
        ...

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts,) float32, higher is better; (0,) without texts.

        The scale is the model's own: scores of one query compare with each other.
        """
        ...


def order_by_score(scores: NDArray[np.float32]) -> list[int]:
    """Return positions, best first; equal scores keep their order.

    Args:
        scores: (n,) float32.

    Raises:
        InvalidVectorError: a score is no number: nothing can be ranked by it.
    """
    if not np.isfinite(scores).all():
        raise InvalidVectorError(
            stage="search", subject="reranker", detail="it gave a score that is not finite"
        )
    return np.argsort(-scores, kind="stable").tolist()
