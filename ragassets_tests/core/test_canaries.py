"""Who gets the canary: always the same, never more than the share, and others for another one."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.canaries import (
    Canary,
    choose_arm,
    format_share,
    normalize_query,
    parse_share,
    search_unit,
)
from ragassets.errors import ConfigurationError

SHARES = st.floats(min_value=0.0001, max_value=1.0)
NAMES = st.text(max_size=30)


def canary(share: float, *, canary_id: str = "one", alias: str = "documents") -> Canary:
    return Canary(canary_id, alias, "v2", "v1", share)


@given(user=NAMES, query=NAMES, first=SHARES, second=SHARES)
def test_a_larger_share_only_takes_from_the_live_version(
    user: str, query: str, first: float, second: float
) -> None:
    """Nobody who saw the canary is sent back by an increase."""
    small, large = sorted((first, second))
    if choose_arm(canary(small), query=query, user=user) == "canary":
        assert choose_arm(canary(large), query=query, user=user) == "canary"


@given(user=NAMES, queries=st.lists(NAMES, min_size=1, max_size=5), share=SHARES)
def test_all_searches_of_a_user_have_one_arm(user: str, queries: list[str], share: float) -> None:
    arms = {choose_arm(canary(share), query=query, user=user) for query in queries}
    assert len(arms) == 1


@given(query=NAMES, user=st.none() | NAMES)
def test_a_share_of_everything_leaves_nothing(query: str, user: str | None) -> None:
    assert choose_arm(canary(1.0), query=query, user=user) == "canary"


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("canary_id", ["one", "two", "three"])
def test_the_share_is_kept(share: float, canary_id: str) -> None:
    """Over 20,000 users, within four standard deviations of a fair draw."""
    n_users = 20_000
    tried = canary(share, canary_id=canary_id)
    n_canary = sum(
        choose_arm(tried, query="q", user=f"user-{number}") == "canary" for number in range(n_users)
    )
    assert abs(n_canary - n_users * share) < 4 * math.sqrt(n_users * share * (1 - share))


def test_two_canaries_try_different_users() -> None:
    """Or the same few would get every experiment, and every bad one."""
    users = [f"user-{number}" for number in range(10_000)]

    def taken(**names: str) -> set[str]:
        return {
            user
            for user in users
            if choose_arm(canary(0.2, **names), query="q", user=user) == "canary"
        }

    for other in (taken(canary_id="two"), taken(alias="support")):
        # 20 % of 20 % of 10,000 by chance, within four standard deviations.
        assert abs(len(taken() & other) - 400) < 4 * math.sqrt(400 * 0.96)


def test_a_user_and_a_query_of_the_same_name_are_two_units() -> None:
    tried = canary(0.5)
    assert search_unit(tried, query="anna") != search_unit(tried, query="x", user="anna")


@pytest.mark.parametrize("query", ["Résumé  templates", " résumé templates\n", "RÉSUMÉ TEMPLATES"])
def test_a_query_is_the_same_however_it_is_typed(query: str) -> None:
    assert normalize_query(query) == "résumé templates"


def test_every_process_chooses_the_same_arm() -> None:
    """Written out, because other versions of this software must not move users either."""
    users = ["anna", "ben", "chris", "dora", "emil", "fritz", "gina", "hugo"]
    code = (
        "from ragassets.core.canaries import Canary, choose_arm\n"
        "c = Canary('one', 'documents', 'v2', 'v1', 0.4)\n"
        f"print(*(choose_arm(c, query='q', user=u) for u in {users}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ["live", "canary", "live", "canary", "canary", "live", "canary", "live"]
    assert told.stdout.split() == expected
    assert [choose_arm(canary(0.4), query="q", user=user) for user in users] == expected


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.1", 0.1), (" 2.5 %", 0.025), ("100%", 1.0), ("1", 1.0)]
)
def test_shares_as_people_write_them(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)
    assert parse_share(format_share(share)) == pytest.approx(share)


@pytest.mark.parametrize("text", ["10", "0", "0%", "-5%", "101%", "ten", "", "nan", "1e-3"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"10% or 0\.1"):
        parse_share(text)
