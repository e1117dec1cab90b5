"""One spelling for each address, and which of them belong to a site."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.web_addresses import Site, canonical_url
from ragassets.core.web_settings import TRACKING_PARAMETERS


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("HTTP://Docs.Example.COM:80/a/../b/./c#part", "http://docs.example.com/b/c"),
        ("https://docs.example.com", "https://docs.example.com/"),
        ("https://docs.example.com.:443/", "https://docs.example.com/"),
        ("https://docs.example.com:8443/", "https://docs.example.com:8443/"),
        ("https://docs.example.com/?b=2&a=1", "https://docs.example.com/?a=1&b=2"),
        ("https://docs.example.com/?utm_source=x&p=1&fbclid=y", "https://docs.example.com/?p=1"),
        ("https://docs.example.com/%7Euser/ä b", "https://docs.example.com/~user/%C3%A4%20b"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("../up.html", "https://docs.example.com/up.html"),
        ("//other.example/x", "https://other.example/x"),
        ("http://[::1]:80/", "http://[::1]/"),
    ],
)
def test_an_address_has_one_spelling(written: str, canonical: str) -> None:
    """Two spellings would be two documents."""
    base = "https://docs.example.com/guide/page"
    assert canonical_url(written, base=base, ignored=TRACKING_PARAMETERS) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "mailto:a@b.example", "javascript:alert(1)", "file:///etc/passwd", "ftp://x.example/",
        "gopher://x.example/", "https://user:pass@docs.example.com/", "https://docs.example.com@evil.example/",
        "https://docs.example.com\\@evil.example/", "https://:443/", "https://docs.example.com:99999/",
        "https://docs example.com/", "https://docs.example.com%2eevil.example/", "http://[::1/",
        f"https://docs.example.com/{'a' * 2_100}", "https://docs.example.com\x00.evil.example/",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_none(written: str) -> None:
    """Other schemes, credentials and tricks that two parsers read in two ways."""
    assert canonical_url(written) is None


@given(
    path=st.text(max_size=30),
    query=st.text(max_size=30),
    host=st.sampled_from(["a.b", "ä.b", "[::1]"]),
)
def test_the_spelling_is_a_fixed_point(path: str, query: str, host: str) -> None:
    """Else a page would change its name from crawl to crawl."""
    once = canonical_url(f"https://{host}/{path}?{query}", ignored=TRACKING_PARAMETERS)
    if once is not None:
        assert canonical_url(once, ignored=TRACKING_PARAMETERS) == once
        assert once.isascii()


def test_a_site_is_what_lies_below_its_address() -> None:
    """A neighbour whose path begins alike does not, nor does another scheme, host or port."""
    site = Site("https://docs.example.com/guide")
    for inside in ("/guide", "/guide/", "/guide/a/b.html", "/guide/?p=1"):
        assert site.holds(f"https://docs.example.com{inside}")
    for outside in (
        "https://docs.example.com/guidelines",
        "https://docs.example.com/",
        "http://docs.example.com/guide/a",
        "https://docs.example.com:8443/guide/a",
        "https://docs.example.com.evil.example/guide/a",
    ):
        assert not site.holds(outside)
    assert site.relative_path("https://docs.example.com/guide/") == "index.html"
    assert site.relative_path("https://docs.example.com/guide/a%20b/") == "a b"
    whole = Site("https://docs.example.com/")
    assert whole.holds("https://docs.example.com/any")
