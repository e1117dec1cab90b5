"""What waits for a channel, and when it may be sent: nothing is lost, and nothing is a flood.

One message at a time takes all that waits. A try is recorded before it is made: whoever dies in
between has sent it or not, so it is sent again, after the delay that a failure would have had.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from ragassets.core.notification_settings import ChannelConfig, Severity, Topic
from ragassets.core.problems import Notice

FIRST_DELAY = timedelta(minutes=1)
MAX_DELAY = timedelta(minutes=30)
"""After 1, 2, 4, 8, 16 and then every 30 minutes: a channel that was mended is used again soon, and
one that is gone for good costs two requests an hour."""

HOUR = timedelta(hours=1)

MAX_WAITING = 100
"""Notices that are kept for a channel that takes none. Beyond, they are only counted."""


class Channel(BaseModel):
    """The state of one channel."""

    model_config = ConfigDict(frozen=True)

    waiting: tuple[Notice, ...] = ()
    """Oldest first, one a problem."""
    n_left_out: dict[Topic, int] = {}
    """Notices that only their number is kept of."""
    tried_at: tuple[datetime, ...] = ()
    """Tries of the last hour."""
    n_failed: int = 0
    """Tries in a row that did not succeed, one under way included."""
    next_try_at: datetime | None = None


def wants(config: ChannelConfig, notice: Notice) -> bool:
    """Whether a channel is told of this."""
    problem = notice.problem
    return (
        problem.topic in config.on
        and problem.covered_by not in config.on
        and not (config.min_severity == "error" and problem.severity == "warning")
        and (config.resolved or notice.kind != "ended")
    )


def enqueue(channel: Channel, notices: Iterable[Notice]) -> Channel:
    """Put notices behind what waits; what a channel was not told yet of a problem is replaced."""
    waiting = {notice.problem.key: notice for notice in channel.waiting}
    left_out = dict(channel.n_left_out)
    for notice in notices:
        # Behind the others: what is new about it is new.
        earlier = waiting.pop(notice.problem.key, None)
        if earlier is None and len(waiting) >= MAX_WAITING:
            left_out[notice.problem.topic] = left_out.get(notice.problem.topic, 0) + 1
            continue
        waiting[notice.problem.key] = notice
    return channel.model_copy(update={"waiting": tuple(waiting.values()), "n_left_out": left_out})


def is_due(channel: Channel, config: ChannelConfig, now: datetime) -> bool:
    """Whether a message may be tried now."""
    if not channel.waiting and not channel.n_left_out:
        return False
    if channel.next_try_at is not None and now < channel.next_try_at:
        return False
    return len(_recent(channel, now)) < config.max_per_hour


def begin_try(channel: Channel, now: datetime) -> Channel:
    """The state to record before a try: what holds if nobody comes back from it."""
    n_failed = channel.n_failed + 1
    delay = min(FIRST_DELAY * 2 ** min(n_failed - 1, 16), MAX_DELAY)
    return channel.model_copy(
        update={
            "n_failed": n_failed,
            "next_try_at": now + delay,
            "tried_at": (*_recent(channel, now), now),
        }
    )


def after_success(channel: Channel, sent: Channel) -> Channel:
    """Forget what was sent; what came meanwhile stays.

    Args:
        channel: As it is now.
        sent: As it was when the message was made.
    """
    told = set(sent.waiting)
    rest = {
        topic: count - sent.n_left_out.get(topic, 0)
        for topic, count in channel.n_left_out.items()
        if count > sent.n_left_out.get(topic, 0)
    }
    return channel.model_copy(
        update={
            "waiting": tuple(notice for notice in channel.waiting if notice not in told),
            "n_left_out": rest,
            "n_failed": 0,
            "next_try_at": None,
        }
    )


def after_failure(channel: Channel, now: datetime, retry_after_seconds: float | None) -> Channel:
    """Wait as long as the service asks, where that is longer than our own delay."""
    if retry_after_seconds is None or channel.next_try_at is None:
        return channel
    asked = now + min(timedelta(seconds=retry_after_seconds), HOUR)
    return channel.model_copy(update={"next_try_at": max(channel.next_try_at, asked)})


def worst(notices: Iterable[Notice]) -> Severity:
    """The severity of a message: that of the worst problem that it does not call ended."""
    open_ones = {notice.problem.severity for notice in notices if notice.kind != "ended"}
    return "error" if "error" in open_ones else "warning"


def _recent(channel: Channel, now: datetime) -> tuple[datetime, ...]:
    return tuple(moment for moment in channel.tried_at if moment > now - HOUR)
