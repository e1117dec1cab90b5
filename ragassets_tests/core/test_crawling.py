"""The state of a crawl: lines, limits, aliases, and what the next crawl knows."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.crawling import Crawl, Found, Visit, adopted_aliases, known_of

NAMES = "abcdef"


def crawl_of(*visits: Visit, known: tuple[Visit, ...] = (), **options: object) -> Crawl:
    """A crawl that met some addresses."""
    return Crawl(
        "crawl",
        max_pages=100,
        known={visit.uri: visit for visit in known},
        visits={visit.uri: visit for visit in visits},
        **options,
    )


def listed(uri: str) -> Visit:
    """A document."""
    return Visit(uri, Found.LISTED, etag=f"sha256:{uri}", step=1)


def test_an_address_waits_once_and_until_it_may_be_asked() -> None:
    """Those that failed come after those that were never asked."""
    crawl = crawl_of()
    for uri in ("a", "b", "a"):
        crawl.admit(Visit(uri))
    assert [visit.uri for visit in crawl.take(now=0, n_most=9)] == ["a", "b"]
    assert crawl.waits_until() is None
    crawl.put_back(Visit("a", not_before=10.0))
    crawl.admit(Visit("c"))
    assert crawl.waits_until() == 0.0
    assert [visit.uri for visit in crawl.take(now=9, n_most=9)] == ["c"]
    assert crawl.waits_until() == 10.0
    assert [visit.uri for visit in crawl.take(now=10, n_most=9)] == ["a"]


@given(
    visits=st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(
            st.sampled_from([Found.LISTED, Found.ALIAS, Found.GONE, Found.SKIPPED, Found.FAILED]),
            st.sampled_from(NAMES),
            st.booleans(),
        ),
    )
)
def test_every_page_is_listed_once_however_aliases_point(
    visits: dict[str, tuple[Found, str, bool]],
) -> None:
    """From each alias with a body one gets to exactly one document, or to a failure."""
    made = {
        uri: Visit(uri, found, alias_of=target, etag="sha256:x" if has_body else "")
        for uri, (found, target, has_body) in visits.items()
    }
    adopted = adopted_aliases(made)
    assert all(made[uri].found is Found.ALIAS and made[uri].etag for uri in adopted)
    for start, visit in made.items():
        if visit.found is not Found.ALIAS or not visit.etag:
            continue
        documents, uri, seen = [], start, set()
        while uri in made and uri not in seen:
            seen.add(uri)
            if made[uri].found is Found.LISTED or uri in adopted:
                documents.append(uri)
            if made[uri].found is not Found.ALIAS:
                break
            uri = made[uri].alias_of
        has_failed = uri in made and made[uri].found is Found.FAILED
        assert len(documents) == (0 if has_failed else 1)


def test_what_is_told_gone_is_little_or_one() -> None:
    """More of it is a wrong deployment, until a complete listing and its guard say otherwise."""
    known = tuple(listed(uri) for uri in NAMES)
    gone = [Visit(uri, Found.GONE) for uri in "abc"]
    assert crawl_of(gone[0], known=known).gone(0.2) == ["a"]
    assert crawl_of(*gone, known=known).gone(0.2) == []
    assert crawl_of(*gone, known=known).gone(0.5) == ["a", "b", "c"]
    assert crawl_of(gone[0], known=known[:1]).gone(0.2) == []
    moved = Visit("a", Found.ALIAS, alias_of="new")
    assert crawl_of(moved, listed("new"), known=known).gone(0.2) == ["a"]
    assert crawl_of(moved, known=known).gone(0.2) == []


def test_the_next_crawl_knows_what_this_one_found_and_what_it_did_not_reach() -> None:
    """A crawl that was stopped must not cost the validators of the rest."""
    known = tuple(listed(uri) for uri in "abcd")
    fresh = replace(listed("a"), etag="sha256:new")
    visits = (fresh, Visit("b", Found.GONE), Visit("c", Found.FAILED), Visit("d"))
    stopped = crawl_of(*visits, known=known)
    assert {uri: visit.etag for uri, visit in stopped.remembered().items()} == {
        "a": "sha256:new", "c": "sha256:c", "d": "sha256:d",
    }  # fmt: skip
    whole = crawl_of(fresh, known=known, is_over=True)
    assert set(whole.remembered()) == {"a"}
    later = crawl_of(Visit("a", Found.GONE), listed("e"), began_at=9.0, is_over=True)
    assert set(known_of([later, stopped])) == {"c", "d", "e"}
