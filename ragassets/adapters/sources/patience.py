"""Trying again what a source did not do the first time."""

import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ragassets.core.retries import wait_seconds
from ragassets.core.settings import RetryConfig
from ragassets.errors import ObjectGoneError, SourceRefusedError, SourceUnavailableError

if TYPE_CHECKING:
    from tenacity import RetryCallState

Result = TypeVar("Result")

HOPELESS = (SourceRefusedError, ObjectGoneError)
"""What another try in the same minute cannot change."""

MAX_FAILED_IN_A_ROW = 8
"""Pieces of work that failed in all their tries until the source counts as down. One for each
thread that fetches: then all of them have seen it."""


class Patience:
    """The tries of one source, shared by its threads.

    A source that is down is not waited for with every object again: after some failures in a row
    each piece of work gets one try, until one succeeds.
    """

    def __init__(self, retry: RetryConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        """Remember the policy.

        Args:
            retry: How often and how long.
            sleep: Waits; tests pass their own.
        """
        self._retry, self._sleep = retry, sleep
        self._n_failed_in_a_row = 0

    def with_retries(self, work: Callable[[], Result]) -> Result:
        """What the work returns in the first try that succeeds.

        Raises:
            SourceUnavailableError: It failed in the last try, or in one that makes others hopeless.
        """
        from tenacity import Retrying, retry_if_exception

        retrying = Retrying(
            retry=retry_if_exception(_is_worth_a_try),
            wait=self._wait,
            stop=lambda state: math.isinf(state.upcoming_sleep),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            result = retrying(work)
        except HOPELESS:
            raise
        except SourceUnavailableError:
            self._n_failed_in_a_row += 1
            raise
        self._n_failed_in_a_row = 0
        return result

    def _wait(self, state: "RetryCallState") -> float:
        """Seconds until the next try; infinite gives up."""
        if self._n_failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            return math.inf
        chance = random.random()  # noqa: S311 - jitter is no secret
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after_seconds", None)
        wait = wait_seconds(
            self._retry, n_failed=state.attempt_number, retry_after=asked, random=chance
        )
        return math.inf if wait is None else wait


def _is_worth_a_try(error: BaseException) -> bool:
    return isinstance(error, SourceUnavailableError) and not isinstance(error, HOPELESS)
