"""Periods of time as people write them: `7d`, `12h`, `2w`, the day itself, or two days."""

import dataclasses
import re
from datetime import UTC, datetime, timedelta

from ragassets.errors import ConfigurationError

_PERIOD = re.compile(r"(?P<number>\d{1,5})(?P<unit>[hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


_DAY = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")

BETWEEN = ".."
"""Stands between the two ends of a window."""


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of time."""

    since: datetime
    """Its first moment."""
    until: datetime | None
    """The first moment after it; None where it has no end."""

    def __str__(self) -> str:
        """Both ends, for a person."""
        end = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"the time since {self.since:%Y-%m-%d %H:%M} UTC{end}"


def parse_window(text: str, now: datetime, *, until: str = "") -> Window:
    """The window that a period, a date, or two of them with `..` between stand for.

    Args:
        text: As for `parse_since`, or `2026-11-01..2026-11-07`: a day as the end is part of the
            window, a moment is not.
        now: With a time zone.
        until: The end, where `text` does not name it; empty for none.

    Raises:
        ConfigurationError: An end cannot be read, both name one, or the window ends before it
            begins.
    """
    first, dots, last = text.partition(BETWEEN)
    both = f"{first.strip()}{BETWEEN}{(last or until).strip()}"
    if last and until:
        raise _wrong(both, "has two ends")
    end = (last if dots else until).strip()
    since = parse_since(first, now).astimezone(UTC)
    if not end:
        return Window(since, None)
    moment = _moment(end, now).astimezone(UTC)
    if _DAY.fullmatch(end):
        moment += timedelta(days=1)
    if moment <= since:
        raise _wrong(both, "ends before it begins")
    return Window(since, moment)


def parse_since(text: str, now: datetime) -> datetime:
    """The moment that a period before now, or a date, begins with.

    Args:
        text: `12h`, `7d`, `2w`, or an ISO date or time; without a time zone it is UTC.
        now: With a time zone.

    Raises:
        ConfigurationError: It is neither, or it lies in the future.
    """
    moment = _moment(text, now)
    if moment > now:
        raise _wrong(text, "lies in the future")
    return moment


def _moment(text: str, now: datetime) -> datetime:
    match = _PERIOD.fullmatch(text.strip())
    if match:
        return now - timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise _wrong(text, "is no period") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _wrong(text: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        key="--since",
        value=text,
        problem=problem,
        fix="Write hours, days or weeks (12h, 7d, 2w), or a date (2026-11-15)",
    )
