"""Periods of time as people write them: `7d`, `12h`, `2w`, or the day itself."""

import re
from datetime import UTC, datetime, timedelta

from ragassets.errors import ConfigurationError

_PERIOD = re.compile(r"(?P<number>\d{1,5})(?P<unit>[hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def parse_since(text: str, now: datetime) -> datetime:
    """The moment that a period before now, or a date, begins with.

    Args:
        text: `12h`, `7d`, `2w`, or an ISO date or time; without a time zone it is UTC.
        now: With a time zone.

    Raises:
        ConfigurationError: It is neither, or it lies in the future.
    """
    match = _PERIOD.fullmatch(text.strip())
    if match:
        return now - timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise _wrong(text, "is no period") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now:
        raise _wrong(text, "lies in the future")
    return moment


def _wrong(text: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        key="--since",
        value=text,
        problem=problem,
        fix="Write hours, days or weeks (12h, 7d, 2w), or a date (2026-11-15)",
    )
