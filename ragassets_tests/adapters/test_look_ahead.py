"""One item is made while the caller is busy with the one before it."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.adapters.look_ahead import one_ahead


@settings(max_examples=20, deadline=None)
@given(st.lists(st.none() | st.integers(), max_size=6))
def test_all_items_come_in_order_whatever_they_are(items: list[int | None]) -> None:
    """An item that is None must not be taken for the end: the rest would be lost."""
    assert list(one_ahead(items)) == items


def test_the_next_item_is_made_meanwhile_and_no_other() -> None:
    """More would pile up in memory; none would be no gain."""
    made: list[int] = []
    is_made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            is_made[number].set()
            yield number

    ahead = one_ahead(items())

    assert next(ahead) == 0
    assert is_made[1].wait(timeout=10)
    assert not is_made[2].wait(timeout=0.2)
    assert made == [0, 1]
    assert list(ahead) == [1, 2, 3]


def test_what_making_an_item_raises_comes_in_its_place() -> None:
    """The items before it are whole, and nobody may take the rest for empty."""

    def items() -> Iterator[int]:
        yield 1
        message = "no second"
        raise ValueError(message)

    ahead = one_ahead(items())

    assert next(ahead) == 1
    with pytest.raises(ValueError, match="no second"):
        next(ahead)


def test_a_caller_that_stops_early_leaves_no_thread_behind() -> None:
    """A failed write ends the loop in the middle."""
    ahead = one_ahead(iter(range(100)))
    next(ahead)

    ahead.close()

    assert not [t for t in threading.enumerate() if t.name.startswith("look-ahead")]
