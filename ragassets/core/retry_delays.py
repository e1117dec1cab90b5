"""When what failed for a passing reason is tried again by itself: after a growing delay.

A failure that may pass is tried again by whichever run comes next. Where none comes, automation
asks for one at the moment that is computed here, until the failure is parked
(`core/incremental.py`).
"""

from datetime import datetime, timedelta

FIRST_DELAY = timedelta(minutes=5)
"""Throttling and restarts pass in minutes; within a run, requests were repeated for three already
(the project's design, section 6)."""

GROWTH = 4
"""Tries after 5, 20, 80 and 320 minutes: the fifth failure, which parks, comes seven hours after
the first, so a morning's trouble is over by then, and a poison document costs five tries, not a
hundred."""

MAX_DELAY = timedelta(hours=6)
"""However many attempts a configuration allows, a document is looked at four times a day."""

MAX_OUTAGE_DELAY = timedelta(hours=1)
"""An outage is nobody's attempt, so it is asked for while it lasts; a try costs one request."""


def retry_due_at(*, attempts: int, first_failed_at: datetime, last_failed_at: datetime) -> datetime:
    """When to try again what failed so often.

    Args:
        attempts: Tries of this very input that failed. 0 where only outages kept it from being
            looked at: then the delay is the time that it has been waiting already.
        first_failed_at: When it failed first.
        last_failed_at: When it failed last; not before `first_failed_at`.

    Returns:
        A moment after `last_failed_at`.
    """
    if attempts < 1:
        waited = last_failed_at - first_failed_at
        return last_failed_at + min(max(waited, FIRST_DELAY), MAX_OUTAGE_DELAY)
    # The exponent is bounded, because the power of a broken count would not end.
    delay = FIRST_DELAY * GROWTH ** min(attempts - 1, 10)
    return last_failed_at + min(delay, MAX_DELAY)
