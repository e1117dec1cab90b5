"""The second ranking of a search: which reranker, how many candidates, and their new order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragassets.adapters.workspace import Workspace
from ragassets.core.reranking import Reranker, order_by_score
from ragassets.core.searching import SearchHit
from ragassets.errors import ConfigurationError


@dataclass(frozen=True)
class Reranking:
    """One configured reranker."""

    reranker: Reranker
    candidates: int
    """Hits that it reads: what the first ranking leaves out here, it cannot bring back."""

    def depth(self, limit: int) -> int:
        """How many hits to ask the store for."""
        return max(limit, self.candidates)

    def best(
        self, query: str, hits: Sequence[SearchHit], limit: int
    ) -> list[tuple[SearchHit, float]]:
        """The best hits with their new scores, best first.

        Raises:
            MissingModelError: The model cannot be loaded.
            InvalidVectorError: A score is no number.
        """
        scores = self.reranker.score(query, [_text(hit.payload) for hit in hits])
        return [(hits[i], float(scores[i])) for i in order_by_score(scores)[:limit]]


def find_reranking(
    workspace: Workspace, alias: str | None, wanted: str | None = None, *, is_off: bool = False
) -> Reranking | None:
    """The reranker of a search: the wanted one, else the alias's own, else none.

    Raises:
        UnknownNameError: There is no such reranker.
        MissingModelError: Its model is nowhere to be found.
        ConfigurationError: One is wanted, and none.
    """
    if is_off and wanted is not None:
        raise ConfigurationError(
            key="--rerank",
            value=wanted,
            problem="cannot be combined with --no-rerank",
            fix="Give one of them",
        )
    settings = workspace.config.aliases.get(alias) if alias else None
    name = wanted or (settings.reranker if settings else None)
    if name is None or is_off:
        return None
    candidates = workspace.config.reranker(name).candidates
    return Reranking(workspace.reranker(name), candidates)


def _text(payload: Mapping[str, object]) -> str:
    return str(payload.get("text", ""))
