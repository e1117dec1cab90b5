"""When a request is tried again: the policy of the design, computed by hand."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from ragassets.core.retries import is_retryable, parse_retry_after, wait_seconds
from ragassets.core.settings import RetryConfig

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def waits(config: RetryConfig, *, random: float = 0.0, asked: float | None = None) -> list[float]:
    """The waits of a request that never succeeds."""
    found: list[float] = []
    while (
        wait := wait_seconds(config, n_failed=len(found) + 1, retry_after=asked, random=random)
    ) is not None:
        found.append(wait)
    return found


def test_the_default_is_six_tries_with_doubling_waits_and_jitter_up_to_two_seconds() -> None:
    """DESIGN section 6, to the second."""
    assert waits(RetryConfig()) == [5, 10, 20, 40, 80]
    assert waits(RetryConfig(), random=0.5) == [6, 11, 21, 41, 81]


def test_a_fixed_delay_is_available() -> None:
    """Some services ask for it."""
    config = RetryConfig(policy="fixed", attempts=4, first_wait_seconds=7, jitter_seconds=0)
    assert waits(config, random=0.9) == [7, 7, 7]


def test_no_own_wait_is_longer_than_the_cap() -> None:
    """Doubling reaches hours soon."""
    config = RetryConfig(attempts=9, max_wait_seconds=30)
    assert waits(config) == [5, 10, 20, 30, 30, 30, 30, 30]


def test_what_the_service_asks_for_goes_before_our_own_waits() -> None:
    """Shorter or longer; beyond the limit a later run is better than a blocked one."""
    assert waits(RetryConfig(), asked=1.5, random=0.5) == [2.5] * 5
    assert waits(RetryConfig(), asked=200) == [200] * 5
    assert waits(RetryConfig(), asked=301) == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Sun, 22 Nov 2026 13:00:30 +0100", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("٣", None),
        ("1e9", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """RFC 9110 allows both, and the world sends anything."""
    assert parse_retry_after(value, now=NOON) == seconds


def test_only_some_answers_are_worth_another_try() -> None:
    """A wrong key stays wrong."""
    statuses = (200, 301, 400, 401, 403, 404, 408, 413, 422, 429, 500, 501, 502, 503, 504)
    assert [status for status in statuses if is_retryable(status)] == [
        408,
        429,
        500,
        502,
        503,
        504,
    ]


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"attempts": 21}, {"jitter_seconds": -1}, {"policy": "x"}, {"n": 1}]
)
def test_a_wrong_policy_is_refused(wrong: dict[str, object]) -> None:
    """Zero attempts would embed nothing."""
    with pytest.raises(ValidationError):
        RetryConfig.model_validate(wrong)
