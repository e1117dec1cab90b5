"""Answers of an alias: by the version that it serves or by its canary, whatever happens meanwhile.

A canary must never break a search: what it cannot answer, the live version does. Nor may a switch:
an alias that moved while it was asked is asked again where it points now.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol

from ragassets.adapters.workspace import Workspace
from ragassets.core.access import Access
from ragassets.core.canaries import Arm, Canary, choose_arm
from ragassets.core.searching import SearchMode
from ragassets.errors import RagAssetsError
from ragassets.queries.questions import Question
from ragassets.queries.reranking import Reranking
from ragassets.queries.search import (
    Hit,
    Target,
    VersionSearch,
    check_query,
    resolve_target,
    session_queries,
)
from ragassets.queries.search_access import decide_access

_Asked = tuple[str, Access]
"""A query's text, and for whom it is asked."""

MAX_SWITCHES = 5
"""Moves of an alias that one search follows; people do not promote five times a second."""


@dataclass(frozen=True)
class Answer:
    """What one search found, all of it in one version."""

    question: Question
    hits: Sequence[Hit]
    index_version: str
    latency_ms: float
    """Embedding of the query, search in the store and reranking; of a batch, its share."""
    is_cold: bool
    """The latency includes loading the model."""
    arm: Arm | None
    """What was drawn; None where the alias has no canary, or a version was named."""
    fallback: str | None = None
    """Why the live version answered for the canary, which failed."""
    search_id: str | None = None
    """Names the search in feedback; None where it was not written down."""


class Recorder(Protocol):
    """Writes searches down without delaying them."""

    def record(self, canary: Canary, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with their ids."""
        ...


def answer(  # noqa: PLR0913 - the settings of a search
    workspace: Workspace,
    target: Target,
    questions: Sequence[Question],
    *,
    mode: SearchMode | None = None,
    limit: int = 5,
    filters: Mapping[str, str] | None = None,
    accesses: Sequence[Access] | None = None,
    reranking: Reranking | None = None,
    recorder: Recorder | None = None,
) -> Iterator[Answer]:
    """Answer questions in order; see `queries.search.search` for the settings and the errors.

    The model of a version is loaded when the first question falls to it.
    """
    for question in questions:
        check_query(question.text)
    allowed = accesses or [decide_access(workspace.config)] * len(questions)
    answers = _Answers(workspace, target, mode, limit, filters or {}, reranking)
    step = session_queries(reranking)
    for start in range(0, len(questions), step):
        rows = slice(start, start + step)
        found = answers.find(questions[rows], allowed[rows])
        if recorder is not None and target.canary is not None:
            found = recorder.record(target.canary, found)
        yield from found


class _Answers:
    """The searches of one call."""

    def __init__(
        self,
        workspace: Workspace,
        target: Target,
        mode: SearchMode | None,
        limit: int,
        filters: Mapping[str, str],
        reranking: Reranking | None,
    ) -> None:
        self._reranking = reranking
        self._workspace, self._target = workspace, target
        self._mode: SearchMode | None = mode
        self._limit, self._filters = limit, filters
        self._live = self._version(target.index_version)
        self._canary: VersionSearch | None = None
        self._canary_problem: str | None = None
        """Why the canary is not asked again in this call."""

    def _version(self, index_version: str) -> VersionSearch:
        return VersionSearch(
            self._workspace,
            index_version,
            mode=self._mode,
            limit=self._limit,
            filters=self._filters,
            reranking=self._reranking,
        )

    def find(self, questions: Sequence[Question], accesses: Sequence[Access]) -> list[Answer]:
        """One answer a question, in order, for whom it is asked: whichever version answers."""
        asked = [
            (check_query(question.text), access)
            for question, access in zip(questions, accesses, strict=True)
        ]
        arms: list[Arm | None] = [self._arm(question) for question in questions]
        drawn = [i for i, arm in enumerate(arms) if arm == "canary"]
        by_canary = self._ask_canary([asked[i] for i in drawn])
        answers = {
            i: Answer(questions[i], *found, "canary")
            for i, found in zip(drawn, by_canary, strict=False)  # nothing where it failed
        }
        rest = [i for i in range(len(questions)) if i not in answers]
        problem, canary = self._canary_problem, self._target.canary
        for i, found in zip(rest, self._ask_live([asked[i] for i in rest]), strict=True):
            # Where the alias moved meanwhile, there is no canary any more.
            arm = arms[i] if self._target.canary is canary else None
            answers[i] = Answer(questions[i], *found, arm, problem if arm == "canary" else None)
        return [answers[i] for i in range(len(questions))]

    def _arm(self, question: Question) -> Arm | None:
        canary = self._target.canary
        if canary is None:
            return None
        return choose_arm(canary, query=question.text, user=question.user)

    def _ask_canary(self, asked: Sequence[_Asked]) -> "Sequence[_Found]":
        """Nothing where the canary fails."""
        canary = self._target.canary
        if canary is None or not asked or self._canary_problem is not None:
            return ()
        try:
            self._canary = self._canary or self._version(canary.index_version)
            return _timed(self._canary, asked)
        except Exception as error:  # noqa: BLE001 - a search that the live version can answer
            reason = str(error) or type(error).__name__
            self._canary_problem = f"canary {canary.index_version!r} failed: {reason}"
            return ()

    def _ask_live(self, asked: Sequence[_Asked]) -> "Sequence[_Found]":
        for _ in range(MAX_SWITCHES if asked else 0):
            try:
                return _timed(self._live, asked)
            except RagAssetsError:
                if not self._follow_alias():
                    raise
        return _timed(self._live, asked) if asked else ()

    def _follow_alias(self) -> bool:
        """Whether the alias moved since it was resolved; then what it serves now is asked."""
        if self._target.alias is None:
            return False
        moved = resolve_target(self._workspace, alias=self._target.alias)
        if moved.index_version == self._live.index_version:
            return False
        self._target, self._live = moved, self._version(moved.index_version)
        self._canary, self._canary_problem = None, None
        return True


class _Found(NamedTuple):
    """The hits of one question, and how they came about."""

    hits: Sequence[Hit]
    index_version: str
    latency_ms: float
    is_cold: bool


def _timed(search: VersionSearch, asked: Sequence[_Asked]) -> Sequence[_Found]:
    is_cold, began = search.is_cold, perf_counter()
    hits = search.find([text for text, _ in asked], [access for _, access in asked])
    latency_ms = (perf_counter() - began) * 1000 / len(asked)
    return [_Found(found, search.index_version, latency_ms, is_cold) for found in hits]
