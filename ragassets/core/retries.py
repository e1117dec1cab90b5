"""Whether and when a request to a service is tried again; nobody waits here.

The policy comes from the configuration (`RetryConfig`), the random number and the time from the
caller, so every wait can be computed by hand.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ragassets.core.settings import RetryConfig

RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed. Source: the project's design, section 6: 429,
500, 502, 503, and time-outs, which proxies put into an answer too (408, 504: RFC 9110, 15.5.9 and
15.6.5)."""

THROTTLED = 429

QUERY_RETRY = RetryConfig(
    attempts=3, first_wait_seconds=1.0, jitter_seconds=0.5, max_retry_after_seconds=5.0
)
"""Of a search: somebody waits for it."""

ONE_TRY = RetryConfig(attempts=1)


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later; 400, 401, 403, 404, 413, 422 … never do."""
    return status in RETRYABLE_STATUSES


def wait_seconds(
    config: RetryConfig, *, n_failed: int, retry_after: float | None, random: float
) -> float | None:
    """How long to wait before the next try; None gives up.

    Args:
        config: The policy.
        n_failed: Tries that failed so far, at least 1.
        retry_after: Seconds that the service asked for, if it did.
        random: In [0, 1): the share of the jitter.
    """
    if n_failed >= config.attempts:
        return None
    if retry_after is not None and retry_after > config.max_retry_after_seconds:
        return None
    growth = 2.0 ** (n_failed - 1) if config.policy == "exponential" else 1.0
    own = min(config.first_wait_seconds * growth, config.max_wait_seconds)
    # The service knows better than we do, in both directions.
    return (own if retry_after is None else retry_after) + random * config.jitter_seconds


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for; None where it says nothing.

    Source: RFC 9110, section 10.2.3: whole seconds, or an HTTP date. Decimals are seen in practice.

    Args:
        value: The header.
        now: With a time zone.
    """
    text = (value or "").strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    # "-0000" says UTC without a zone.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
