"""The delay before what failed is tried again by itself."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.retry_delays import retry_due_at

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))


def delay(attempts: int, waited: timedelta = timedelta(0)) -> timedelta:
    """How long after its last failure."""
    last = FIRST + waited
    return retry_due_at(attempts=attempts, first_failed_at=FIRST, last_failed_at=last) - last


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 5), (2, 20), (3, 80), (4, 320), (5, 360)])
def test_the_delay_grows_by_four_up_to_six_hours(attempts: int, minutes: int) -> None:
    assert delay(attempts) == timedelta(minutes=minutes)


@pytest.mark.parametrize(("waited", "minutes"), [(0, 5), (3, 5), (10, 10), (45, 45), (600, 60)])
def test_an_outage_is_asked_for_as_long_as_it_lasts(waited: int, minutes: int) -> None:
    """It counts as nobody's attempt: the time that it lasts already stands in for them."""
    assert delay(0, timedelta(minutes=waited)) == timedelta(minutes=minutes)


@given(attempts=st.integers(min_value=0, max_value=10**9), waited=TIMES)
def test_it_is_never_at_once_and_never_longer_than_six_hours(
    attempts: int, waited: timedelta
) -> None:
    assert timedelta(minutes=5) <= delay(attempts, waited) <= timedelta(hours=6)


@given(attempts=st.integers(min_value=1, max_value=50), waited=TIMES)
def test_one_more_failure_never_shortens_it(attempts: int, waited: timedelta) -> None:
    assert delay(attempts, waited) <= delay(attempts + 1, waited)


def test_the_last_try_comes_seven_hours_after_the_first_failure() -> None:
    """After it, the failure is parked."""
    waits = [delay(attempts) for attempts in range(1, MAX_TRANSIENT_ATTEMPTS)]
    assert sum(waits, timedelta(0)) == timedelta(hours=7, minutes=5)
