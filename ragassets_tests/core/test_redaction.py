"""Redaction: every address goes, and nothing that only looks like one."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.redaction import redact


@pytest.mark.parametrize(
    "address",
    ["ann@example.com", "a.b+tag@mail.example.co.uk", "jörg@müller.example", "o'neil_9@x-y.org"],
)
def test_an_email_address_is_replaced_and_its_surroundings_stay(address: str) -> None:
    assert redact(f"Write to <{address}>, please.", ["email"]) == (
        "Write to <[EMAIL]>, please.",
        {"email": 1},
    )


@pytest.mark.parametrize(
    "text",
    ["npm install react@18.2.0", "user@localhost", "@decorator", "a @ b.com", "SELECT @x.y", "@@"],
)
def test_an_at_sign_alone_is_no_address(text: str) -> None:
    assert redact(text, ["email"]) == (text, {})


def test_international_telephone_numbers_are_found_without_a_region() -> None:
    text = "Call +49 30 901820 or +1 (415) 555-2671."
    assert redact(text, ["phone"]) == ("Call [PHONE] or [PHONE].", {"phone": 2})


def test_national_telephone_numbers_need_their_region() -> None:
    """Without a country, nine digits are an order number as well."""
    text = "Call (415) 555-2671."
    assert redact(text, ["phone"]) == (text, {})
    assert redact(text, ["phone"], phone_region="US") == ("Call [PHONE].", {"phone": 1})


@pytest.mark.parametrize(
    "text",
    ["ISBN 978-3-16-148410-0", "192.168.10.100", "1 + 2 = 3", "2024-12-05 10:15:00", "+/- 5"],
)
def test_other_numbers_are_no_telephone_numbers(text: str) -> None:
    assert redact(text, ["phone"], phone_region="DE") == (text, {})


def test_a_number_behind_a_long_table_of_figures_is_still_found() -> None:
    """The matcher of the library gives up after 65,535 candidates unless told otherwise."""
    text = "+1 2 " * 70_000 + "+49 30 901820"
    redacted, counts = redact(text, ["phone"])
    assert redacted.endswith("[PHONE]")
    assert counts == {"phone": 1}


def test_only_the_kinds_asked_for_are_replaced() -> None:
    text = "ann@example.com, +49 30 901820"
    assert redact(text, []) == (text, {})
    assert redact(text, ["email"]) == ("[EMAIL], +49 30 901820", {"email": 1})
    assert redact(text, ["phone"]) == ("ann@example.com, [PHONE]", {"phone": 1})


def test_a_long_run_of_letters_takes_linear_time() -> None:
    """Untrusted text must not be able to stall the expression."""
    started = time.process_time()
    redact("a" * 300_000 + "@" + "b." * 100_000, ["email"])
    redact("a.a@" * 100_000, ["email"])
    assert time.process_time() - started < 5


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab1@.+ 490-()", max_size=60))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once, _ = redact(text, ["email", "phone"], phone_region="DE")
    assert redact(once, ["email", "phone"], phone_region="DE") == (once, {})
