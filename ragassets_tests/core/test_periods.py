"""Periods that a person types."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ragassets.core.periods import Window, parse_since, parse_window
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


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        ("7d", "", Window(datetime(2026, 11, 15, 12, 30, tzinfo=UTC), None)),
        (
            "2026-11-01..2026-11-07",
            "",
            Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)),
        ),
        (
            "2026-11-01",
            "2026-11-22",
            Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)),
        ),
        (
            "2d .. 1d",
            "",
            Window(
                datetime(2026, 11, 20, 12, 30, tzinfo=UTC),
                datetime(2026, 11, 21, 12, 30, tzinfo=UTC),
            ),
        ),
        (
            "2026-11-01T10:00+02:00",
            "2026-11-01T09:00",
            Window(datetime(2026, 11, 1, 8, tzinfo=UTC), datetime(2026, 11, 1, 9, tzinfo=UTC)),
        ),
        ("2026-11-01..", "", Window(datetime(2026, 11, 1, tzinfo=UTC), None)),
    ],
)
def test_a_window_has_one_end_or_two_and_a_last_day_counts_whole(
    text: str, until: str, expected: Window
) -> None:
    """Who writes the 1st to the 7th means seven days."""
    assert parse_window(text, NOW, until=until) == expected


@pytest.mark.parametrize(
    ("text", "until", "says"),
    [
        ("2026-11-07..2026-11-01", "", "ends before it begins"),
        ("1d..2d", "", "ends before it begins"),
        ("2026-11-01..2026-11-03", "2026-11-04", "has two ends"),
        ("..2026-11-03", "", "is no period"),
        ("2026-11-01", "soon", "is no period"),
        ("2027-01-01..2027-02-01", "", "lies in the future"),
    ],
)
def test_a_window_that_cannot_be_meant_is_refused(text: str, until: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_window(text, NOW, until=until)
