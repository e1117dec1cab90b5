"""Tenants and access lists: what a search may find."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.access import EVERYTHING, Access, AnyOf, access_payload, duplicate_scope
from ragassets.core.searching import SearchRequest, matches

names = st.sampled_from(["a", "b", "c", "*"])
tenants = st.none() | st.sampled_from(["acme", "globex"])


@given(
    tenants,
    st.lists(names, max_size=3),
    tenants,
    st.none() | st.frozensets(st.sampled_from("abc")),
)
def test_a_payload_matches_exactly_those_who_may_see_it(
    owner: str | None, acl: list[str], tenant: str | None, principals: frozenset[str] | None
) -> None:
    """Against the rule in words: the tenant is the same, the list is empty, open or intersects."""
    is_own = tenant is None or tenant == owner
    is_reader = principals is None or not acl or "*" in acl or bool(principals & set(acl))
    payload = access_payload(tenant=owner, acl=acl)
    conditions = Access(tenant, principals).conditions
    assert matches(payload, conditions) == (is_own and is_reader)


def test_what_was_never_labelled_is_seen_by_trusted_callers_only() -> None:
    """Points of an earlier release have no readers: they stay hidden until they are rewritten."""
    assert matches({}, EVERYTHING.conditions)
    assert not matches({}, Access(principals=frozenset({"user:bob"})).conditions)
    assert not matches({}, Access(tenant="acme").conditions)


def test_nobody_in_particular_sees_what_everybody_sees() -> None:
    """An application whose user has no groups passes an empty list: not a master key."""
    nobody = Access(principals=frozenset())
    assert nobody.conditions == [AnyOf("readers", ("*",))]
    assert matches(access_payload(tenant=None, acl=[]), nobody.conditions)
    assert not matches(access_payload(tenant=None, acl=["group:hr"]), nobody.conditions)


def test_a_request_carries_filters_and_access_together() -> None:
    """An engine asks one list; what it forgets of it would be a leak."""
    request = SearchRequest(
        "sparse", 5, text="x", filters={"source": "hr"}, access=Access(tenant="acme")
    )
    payload = {"source": "hr", "tenant": "acme"}
    assert len(request.conditions) == 2
    assert matches(payload, request.conditions)
    assert not matches({**payload, "source": "it"}, request.conditions)
    assert not matches({**payload, "tenant": "globex"}, request.conditions)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ((None, ["b", "a"]), (None, ["a", "b"]), True),
        (("acme", []), ("acme", []), True),
        (("acme", []), ("globex", []), False),
        (("acme", []), (None, []), False),
        (("acme", ["a"]), ("acme", ["b"]), False),
    ],
)
def test_copies_are_compared_within_one_tenant_and_one_list(
    one: tuple[str | None, list[str]], other: tuple[str | None, list[str]], *, is_same: bool
) -> None:
    """A survivor that the reader of a copy may not see would hide the copy from them."""
    scopes = [duplicate_scope(tenant=tenant, acl=acl) for tenant, acl in (one, other)]
    assert (scopes[0] == scopes[1]) is is_same
