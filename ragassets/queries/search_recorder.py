"""Writes down the searches of a canary, beside the searches and never in their way."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from ragassets.adapters.search_log import SearchLog
from ragassets.core.canaries import Canary, normalize_query, search_unit
from ragassets.core.fingerprints import stable_hash
from ragassets.core.search_log import MAX_LOGGED_HITS, SearchRecord, encode_records, hash_uri
from ragassets.errors import RagAssetsError
from ragassets.queries.answers import Answer

MAX_WAITING = 1_000
"""Objects under way; where storage is slower than searches, records are lost and not searches."""


def _now() -> datetime:
    return datetime.now(UTC)


class SearchRecorder:
    """Gives searches their ids and writes their records in the background."""

    def __init__(self, log: SearchLog, *, now: Callable[[], datetime] = _now) -> None:
        """Write to a log."""
        self._log, self._now = log, now
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search-log")
        self._waiting: list[Future[None]] = []
        self._problems: list[str] = []

    def record(self, canary: Canary, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with the ids under which the canary's searches are written down."""
        moment = self._now()
        name = self._log.new_name(moment)
        named = [
            answer if answer.arm is None else replace(answer, search_id=f"{name}.{number}")
            for number, answer in enumerate(answers)
        ]
        records = [_record(canary, one, moment) for one in named if one.search_id is not None]
        self._collect(wait=False)
        if records and len(self._waiting) < MAX_WAITING:
            self._waiting.append(
                self._writer.submit(self._log.write, name, encode_records(records))
            )
        return named

    def close(self) -> list[str]:
        """Wait for what is under way; what could not be written, in words."""
        self._writer.shutdown()
        self._collect(wait=True)
        return self._problems

    def _collect(self, *, wait: bool) -> None:
        done = [future for future in self._waiting if wait or future.done()]
        self._waiting = [future for future in self._waiting if future not in done]
        for future in done:
            try:
                future.result()
            except RagAssetsError as error:
                self._problems.append(str(error))


def _record(canary: Canary, found: Answer, moment: datetime) -> SearchRecord:
    question = found.question
    return SearchRecord(
        search_id=found.search_id or "",
        searched_at=moment.isoformat(),
        alias=canary.alias,
        canary_id=canary.canary_id,
        arm=found.arm or "",
        index_version=found.index_version,
        unit=search_unit(canary, query=question.text, user=question.user),
        query_hash=stable_hash("query", canary.canary_id, normalize_query(question.text)),
        latency_ms=round(found.latency_ms, 3),
        is_cold=found.is_cold,
        is_fallback=found.fallback is not None,
        n_hits=len(found.hits),
        top_score=found.hits[0].score if found.hits else None,
        hit_uris=tuple(hash_uri(hit.uri) for hit in found.hits[:MAX_LOGGED_HITS]),
    )
