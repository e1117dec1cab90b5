"""Periods that a person types."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ragassets.core.periods import parse_since
from ragassets.errors import ConfigurationError

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", datetime(2026, 11, 15, 12, 30, tzinfo=UTC)),
        ("36h", datetime(2026, 11, 21, 0, 30, tzinfo=UTC)),
        (" 2w ", datetime(2026, 11, 8, 12, 30, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        (
            "2026-11-01T08:00+02:00",
            datetime(2026, 11, 1, 8, tzinfo=timezone(timedelta(hours=2))),
        ),
    ],
)
def test_periods_and_dates_are_understood(text: str, expected: datetime) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7", "'7' is no period"),
        ("a week", "'a week' is no period"),
        ("7m", "'7m' is no period"),
        ("-7d", "'-7d' is no period"),
        ("2027-01-01", "'2027-01-01' lies in the future"),
    ],
)
def test_what_is_neither_is_refused_with_the_way_out(text: str, says: str) -> None:
    """`7m` could be minutes or months: guessing would build the wrong documents."""
    with pytest.raises(ConfigurationError, match="12h, 7d, 2w") as caught:
        parse_since(text, NOW)
    assert says in str(caught.value)
