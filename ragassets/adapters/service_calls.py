"""Calls to a vector store's server: what is tried again, how long, and what an error says."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay

from ragassets.errors import ConfigurationError, RagAssetsError

Answer = TypeVar("Answer")

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 10.0

REFUSED_SECONDS = 10.0
"""A server that restarts refuses connections for seconds; one that was never there does for ever,
and whoever mistyped its address should not wait a minute to be told."""

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})

DETAIL_CHARS = 300


class Failure(NamedTuple):
    """What a client error says."""

    status: int | None
    """HTTP status; None where nothing was answered."""
    detail: str
    is_transient: bool
    retry_after_seconds: float = 0.0
    is_refused: bool = False


ReadFailure = Callable[[BaseException], Failure | None]
"""Says what an error of the client means; None for one that is not the client's."""


def call_patiently(
    send: Callable[[], Answer],
    read_failure: ReadFailure,
    translate: Callable[[Failure], RagAssetsError],
    *,
    patience_seconds: float,
) -> Answer:
    """Send a request that may be sent twice; try again what may pass, until the time is up.

    Args:
        send: sends it.
        read_failure: says what an error of the client means.
        translate: makes an error of ours of what could not be mended.
        patience_seconds: for all attempts together.
    """
    retrying = Retrying(
        retry=retry_if_exception(partial(_may_pass, read_failure)),
        stop=partial(_is_over, read_failure, patience_seconds),
        wait=partial(_wait_seconds, read_failure),
        reraise=True,
    )
    try:
        return retrying(send)
    except RagAssetsError:
        raise
    except Exception as error:  # clients raise nothing narrower; what is not theirs stays
        failure = read_failure(error)
        if failure is None:
            raise
        raise translate(failure) from error


def refuse_password(url: str, *, key: str, variable: str) -> None:
    """Refuse an address with a password: addresses are logged.

    Raises:
        ConfigurationError: naming where the password belongs.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ConfigurationError(
            key="vector_store",
            value=f"{parts.scheme}://…@{parts.hostname}",
            problem="holds a name or password",
            fix=f"Put the key into {key}, as ${{{variable}}}",
        )


def _may_pass(read_failure: ReadFailure, error: BaseException) -> bool:
    failure = read_failure(error)
    return failure is not None and failure.is_transient


def _is_over(read_failure: ReadFailure, limit_seconds: float, state: RetryCallState) -> bool:
    """Whether the time for all attempts is up."""
    failure = _failure_of(read_failure, state)
    if failure is not None and failure.is_refused:
        limit_seconds = min(limit_seconds, REFUSED_SECONDS)
    return stop_before_delay(limit_seconds)(state)


def _wait_seconds(read_failure: ReadFailure, state: RetryCallState) -> float:
    """Twice as long each time with half of it by chance, or as long as the server says.

    Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """
    import random

    failure = _failure_of(read_failure, state)
    asked = failure.retry_after_seconds if failure is not None else 0.0
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
    return max(asked, longest * random.uniform(0.5, 1))  # noqa: S311 - spreads load, no secret


def _failure_of(read_failure: ReadFailure, state: RetryCallState) -> Failure | None:
    error = state.outcome.exception() if state.outcome is not None else None
    return read_failure(error) if error is not None else None


def sleep_until(is_done: Callable[[], bool], *, timeout_seconds: float) -> bool:
    """Ask until the answer is yes or the time is up; return the last answer."""
    deadline = time.monotonic() + timeout_seconds
    wait = 0.05
    while not is_done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(wait)
        wait = min(1.0, 1.5 * wait)
    return True
