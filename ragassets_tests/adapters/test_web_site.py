"""A web site as a source, against a site on loopback that misbehaves on demand."""

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragassets.adapters.checkpoints import ObjectCheckpoints
from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.web import web_site
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.adapters.sources.web.web_site import WebSite
from ragassets.config import SourceConfig
from ragassets.core.settings import RetryConfig
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import Listing
from ragassets.errors import (
    ChangedDuringReadError,
    PrivateAddressError,
    SourceRefusedError,
    SourceUnavailableError,
)
from ragassets_tests.web_server import WebServer, running_site

QUICK = FetchConfig(
    retry=RetryConfig(attempts=3, first_wait_seconds=0.01, jitter_seconds=0.0),
    timeout_seconds=2,
    max_bytes=100_000,
)


@pytest.fixture
def site() -> Iterator[WebServer]:
    """A site of three pages that link to each other, without robots.txt and sitemap."""
    with running_site() as server:
        server.page("/", "home", "/a.html", "/b.html")
        server.page("/a.html", "page a", "/")
        server.page("/b.html", "page b", "/c.html")
        server.page("/c.html", "page c", "/d.html")
        server.page("/d.html", "page d")
        yield server


class Opened:
    """A source over and over: every call opens it anew, as every run does."""

    def __init__(self, site: WebServer, root: Path) -> None:
        """Keep what was crawled below a root."""
        self.url, self.root = site.url, root

    def source(self, path: str = "/", *, max_delete_share: float = 0.2, **web: object) -> WebSite:
        """The source with the settings of a test."""
        settings = {"allow_private": ["127.0.0.1"], "delay_seconds": 0, **web}
        patterns = {key: settings.pop(key) for key in ("include", "exclude") if key in settings}
        fetch = settings.pop("fetch", QUICK)
        config = SourceConfig.model_validate(
            {
                "uri": self.url + path,
                "web": settings,
                "fetch": fetch,
                "max_delete_share": max_delete_share,
                **patterns,
            }
        )
        zone = LandingZone(str(self.root))
        bodies = LandedBodies("site", lambda: zone, frozenset)
        return WebSite(
            config, bodies, CrawlMemory(lambda: ObjectCheckpoints(str(self.root)), "site")
        )

    def crawl(self, path: str = "/", **options: object) -> dict[str, str]:
        """A complete crawl: ETags by path."""
        listing = self.source(path, **options).list_objects()
        assert listing.is_complete, listing.message
        return self.paths(listing)

    def paths(self, listing: Listing) -> dict[str, str]:
        """ETags by path."""
        return {entry.uri.removeprefix(self.url): entry.etag for entry in listing.objects}


@pytest.fixture
def opened(site: WebServer, tmp_path: Path) -> Opened:
    """The site as a source."""
    return Opened(site, tmp_path / "root")


class TestFindingPages:
    def test_links_are_followed_to_the_depth_and_no_further(self, opened: Opened) -> None:
        """The source's own address is depth 0."""
        assert set(opened.crawl(depth=0)) == {"/"}
        assert set(opened.crawl(depth=1)) == {"/", "/a.html", "/b.html"}
        assert set(opened.crawl(depth=2)) == {"/", "/a.html", "/b.html", "/c.html"}
        assert set(opened.crawl(depth=9)) == {"/", "/a.html", "/b.html", "/c.html", "/d.html"}

    def test_sitemaps_of_robots_txt_indexes_and_gzip_are_read(
        self, site: WebServer, opened: Opened
    ) -> None:
        """Each way that a site can name its pages itself."""
        site.put("/robots.txt", "Sitemap: /index.xml\nUser-agent: *\nDisallow:\n")
        site.sitemap("/one.xml", "/a.html")
        site.sitemap("/two.xml", "/d.html", "/gone.html")
        site.put("/two.xml.gz", gzip.compress(site.pages.pop("/two.xml")[0].body))
        site.put(
            "/index.xml",
            f"<sitemapindex><sitemap><loc>{site.url}/one.xml</loc></sitemap>"
            f"<sitemap><loc>{site.url}/two.xml.gz</loc></sitemap></sitemapindex>",
        )
        assert set(opened.crawl(depth=0)) == {"/", "/a.html", "/d.html"}

    def test_a_sitemap_that_nobody_names_is_looked_for(
        self, site: WebServer, opened: Opened
    ) -> None:
        """At its usual place; an empty list looks for none."""
        site.sitemap("/sitemap.xml", "/d.html", "https://elsewhere.example/x")
        site.pages["/sitemap.xml"][0].body += b""
        assert set(opened.crawl(depth=0)) == {"/", "/d.html"}
        assert set(opened.crawl(depth=0, sitemaps=[])) == {"/"}

    def test_nothing_outside_of_the_address_is_asked(self, site: WebServer, opened: Opened) -> None:
        """Neighbours whose path begins alike, other hosts, other schemes."""
        site.page(
            "/guide/", "guide", "/guide/x.html", "/guidelines.html", "/", "https://example.com/",
            "mailto:a@b.example", "javascript:void(0)", "http://[::1", "../guide/../secret.html",
        )  # fmt: skip
        site.page("/guide/x.html", "x")
        assert set(opened.crawl("/guide/", depth=5)) == {"/guide/", "/guide/x.html"}
        assert set(site.requests) == {
            "/robots.txt", "/sitemap.xml", "/guide/", "/guide/x.html",
        }  # fmt: skip

    def test_patterns_choose_documents_and_what_is_not_asked(
        self, site: WebServer, opened: Opened
    ) -> None:
        """A page that is no document may lead to one; what is excluded is left alone."""
        site.page("/", "home", "/list.html", "/private/x.pdf", "/logo.svg", "/app.js")
        site.page("/list.html", "list", "/one.pdf")
        site.put("/one.pdf", b"%PDF-1.4 one", content_type="application/pdf")
        site.put("/logo.svg", "<svg/>", content_type="image/svg+xml")
        site.put("/app.js", "1", content_type="text/javascript")
        found = opened.crawl(include=["**/*.pdf"], exclude=["private/**"], depth=2)
        assert set(found) == {"/one.pdf"}
        assert site.count("/private/x.pdf") == 0
        assert set(opened.crawl(depth=2, exclude=["private/**"])) == {"/", "/list.html", "/one.pdf"}

    def test_more_pages_than_allowed_make_an_incomplete_crawl(self, opened: Opened) -> None:
        """What was left out must not be taken for deleted."""
        listing = opened.source(depth=9, max_pages=3).list_objects()
        assert (len(listing.objects), listing.is_complete) == (3, False)
        assert "web.max_pages 3" in listing.message


class TestOnePageIsOneDocument:
    def test_spellings_of_an_address_are_one_page(self, site: WebServer, opened: Opened) -> None:
        """Fragments, tracking parameters, order of parameters, percent-encoding."""
        site.page("/", "home", "/p?b=2&a=1#x", "/p?a=1&b=2&utm_source=news", "/./p?a=1&b=%32")
        site.page("/p?a=1&b=2", "page p")
        assert set(opened.crawl()) == {"/", "/p?a=1&b=2"}
        assert site.count("/p?a=1&b=2") == 1

    def test_a_redirect_leads_to_one_document(self, site: WebServer, opened: Opened) -> None:
        """Under the address where the page is, once."""
        site.page("/", "home", "/old", "/older", "/new.html")
        site.redirect("/old", "/new.html")
        site.redirect("/older", "/old", status=308)
        site.page("/new.html", "new")
        assert set(opened.crawl()) == {"/", "/new.html"}
        assert site.count("/new.html") == 1

    @pytest.mark.parametrize("how", ["element", "header"])
    def test_a_canonical_address_is_obeyed(self, site: WebServer, opened: Opened, how: str) -> None:
        """A print version is not a second document, whichever is found first."""
        head, headers = "", {}
        if how == "element":
            head = '<link rel="canonical" href="/page.html#top">'
        else:
            headers = {"Link": f'<{site.url}/page.html>; rel="canonical"'}
        site.page("/", "home", "/print.html", "/page.html")
        site.page("/print.html", "the page", head=head, headers=headers)
        site.page("/page.html", "the page", head=head, headers=headers)
        assert set(opened.crawl()) == {"/", "/page.html"}

    def test_a_canonical_address_that_leads_nowhere_loses_no_page(
        self, site: WebServer, opened: Opened
    ) -> None:
        """To a page that is gone, to another site, in a circle: the page stays, once."""
        site.page("/", "home", "/a", "/b", "/x", "/y")
        site.page("/a", "a", head='<link rel="canonical" href="/missing">')
        site.page("/b", "b", head='<link rel="canonical" href="http://10.0.0.1/b">')
        site.page("/x", "x", head='<link rel="canonical" href="/y">')
        site.page("/y", "x", head='<link rel="canonical" href="/x">')
        assert set(opened.crawl()) == {"/", "/a", "/b", "/x"}

    def test_redirects_that_never_end_cost_no_other_page(
        self, site: WebServer, opened: Opened
    ) -> None:
        """In a circle, to itself, to ever new addresses, out of the site."""
        site.page("/", "home", "/r1", "/self", "/out", "/n0", "/fine")
        site.redirect("/r1", "/r2")
        site.redirect("/r2", "/r1")
        site.redirect("/self", "/self")
        site.redirect("/out", "http://169.254.169.254/latest/meta-data/")
        for number in range(30):
            site.redirect(f"/n{number}", f"/n{number + 1}")
        site.page("/fine", "fine")
        assert set(opened.crawl()) == {"/", "/fine"}
        assert site.count("/n20") == 0


class TestChanges:
    def test_the_etag_changes_exactly_when_the_bytes_do(
        self, site: WebServer, opened: Opened
    ) -> None:
        """With validators by a conditional request, without by the hash of the body."""
        site.page("/a.html", "page a", has_validators=False)
        first = opened.crawl(depth=1)
        n_before = len(site.statuses)
        assert opened.crawl(depth=1) == first
        assert sorted(site.statuses[n_before:]) == [200, 304, 304, 404, 404]
        site.page("/a.html", "page a, changed", has_validators=False)
        site.page("/b.html", "page b, changed")
        after = opened.crawl(depth=1)
        assert {path for path in first if first[path] != after[path]} == {"/a.html", "/b.html"}

    def test_a_validator_that_changes_alone_changes_nothing(
        self, site: WebServer, opened: Opened
    ) -> None:
        """Every deployment gives every page a new ETag."""
        first = opened.crawl()
        for pages in site.pages.values():
            pages[0].headers = {
                "ETag": '"deployed"',
                "Last-Modified": "Mon, 01 Jan 2024 10:00:00 GMT",
            }
        assert opened.crawl() == first
        listing = opened.source().list_objects()
        assert {f"{entry.modified_at:%Y-%m-%d %H:%M}" for entry in listing.objects} == {
            "2024-01-01 10:00"
        }

    def test_links_of_an_unchanged_page_are_still_followed(
        self, site: WebServer, opened: Opened
    ) -> None:
        """A 304 brings no body; the landed one is read."""
        first = opened.crawl(depth=3)
        site.requests.clear()
        site.statuses.clear()
        assert opened.crawl(depth=3) == first
        assert site.statuses.count(304) == 5

    def test_bodies_are_landed_and_fetched_from_there(
        self, site: WebServer, opened: Opened
    ) -> None:
        """One request a page; a lost body is asked for again, and only the same one counts."""
        source = opened.source(depth=1)
        (entry,) = [one for one in source.list_objects().objects if one.uri.endswith("/a.html")]
        site.requests.clear()
        assert b"page a" in source.fetch(entry)
        assert site.requests == []
        LandingZone(str(opened.root)).delete(entry.etag.removeprefix("sha256:"))
        assert b"page a" in source.fetch(entry)
        assert site.requests == ["/a.html"]
        site.page("/a.html", "another")
        with pytest.raises(ChangedDuringReadError):
            source.fetch(entry)

    def test_pages_are_not_asked_whose_lastmod_is_the_same_if_that_is_trusted(
        self, site: WebServer, opened: Opened
    ) -> None:
        """Ten thousand requests less; only where somebody says that the sitemap tells the truth."""
        site.sitemap("/sitemap.xml", "/a.html", "/b.html", lastmod="2026-01-01")
        first = opened.crawl(depth=0, trust_lastmod=True)
        site.requests.clear()
        assert opened.crawl(depth=0, trust_lastmod=True) == first
        assert set(site.requests) == {"/robots.txt", "/sitemap.xml", "/"}
        site.sitemap("/sitemap.xml", "/a.html", "/b.html", lastmod="2026-01-02")
        site.page("/a.html", "changed")
        assert opened.crawl(depth=0, trust_lastmod=True)["/a.html"] != first["/a.html"]


class TestWhatIsMissing:
    def test_a_page_that_is_gone_is_told_even_by_an_incomplete_crawl(
        self, site: WebServer, opened: Opened
    ) -> None:
        """404 is an answer; 503 is none."""
        opened.crawl(depth=9)
        del site.pages["/a.html"]
        site.break_for("/b.html", status=503)
        listing = opened.source(depth=9).list_objects()
        assert not listing.is_complete
        assert "/b.html: answers 503" in listing.message
        assert list(listing.deleted) == [f"{site.url}/a.html"]

    def test_a_site_that_loses_many_pages_at_once_is_not_believed_one_by_one(
        self, site: WebServer, opened: Opened
    ) -> None:
        """A wrong deployment says 404 for everything; that is left to the guard."""
        opened.crawl(depth=9)
        for path in ("/a.html", "/b.html"):
            del site.pages[path]
        listing = opened.source(depth=9).list_objects()
        assert list(listing.deleted) == []
        assert set(opened.paths(listing)) == {"/"}

    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 500},
            {"is_reset": True},
            {"body": b"<html>" + b"x" * 500, "n_cut": 100},
            {"body": b"\x1f\x8b\x08broken", "headers": {"Content-Encoding": "gzip"}},
            {"status": 403},
        ],
        ids=["500", "reset", "truncated", "damaged gzip", "403"],
    )
    def test_a_page_that_fails_makes_the_crawl_incomplete(
        self, site: WebServer, opened: Opened, fault: dict[str, object]
    ) -> None:
        """And only that page is missing."""
        before = opened.crawl(depth=9)
        site.break_for("/a.html", **fault)
        listing = opened.source(depth=9).list_objects()
        assert not listing.is_complete
        assert f"{site.url}/a.html: " in listing.message
        assert set(opened.paths(listing)) == set(before) - {"/a.html"}
        assert list(listing.deleted) == []
        site.mend("/a.html")
        assert opened.crawl(depth=9) == before

    def test_a_fault_that_passes_is_tried_again(self, site: WebServer, opened: Opened) -> None:
        """Three tries in all."""
        site.break_for("/a.html", 2, status=503)
        site.break_for("/b.html", 1, is_reset=True)
        assert set(opened.crawl(depth=1)) == {"/", "/a.html", "/b.html"}
        assert site.count("/a.html") == 3

    def test_half_a_sitemap_makes_the_crawl_incomplete(
        self, site: WebServer, opened: Opened
    ) -> None:
        """Truncated, on an error, or named and not there."""
        site.put("/robots.txt", "Sitemap: /map.xml")
        site.sitemap("/map.xml", "/a.html", "/d.html")
        whole = site.pages["/map.xml"][0].body
        site.put("/map.xml", whole[: whole.index(b"/d.html")])
        listing = opened.source(depth=0).list_objects()
        assert not listing.is_complete
        assert "map.xml: the sitemap is no whole XML" in listing.message
        assert set(opened.paths(listing)) == {"/", "/a.html"}
        for status in (404, 500):
            site.put("/map.xml", status=status)
            listing = opened.source(depth=0).list_objects()
            assert not listing.is_complete
            assert "web.sitemaps" in listing.message or "answers 500" in listing.message

    def test_a_site_without_a_document_is_never_a_complete_listing(
        self, site: WebServer, opened: Opened
    ) -> None:
        """Whatever it answers instead of its pages."""
        for status, piece in ((404, "answers 404"), (401, "answers 401")):
            site.put("/", status=status)
            listing = opened.source().list_objects()
            assert (list(listing.objects), listing.is_complete) == ([], False)
            assert piece in listing.message
        site.redirect("/", "https://www.example.com/")
        assert "redirects to https://www.example.com/" in opened.source().list_objects().message

    def test_a_site_that_is_down_is_not_asked_for_every_page(
        self, site: WebServer, opened: Opened
    ) -> None:
        """After eight failures in a row the crawl ends."""
        paths = [f"/{number}.html" for number in range(50)]
        site.page("/", "home", *paths)
        for path in paths:
            site.put(path, status=503)
        listing = opened.source(depth=1).list_objects()
        assert not listing.is_complete
        assert "and 6 more" in listing.message
        assert len(site.requests) < 160


class TestManners:
    def test_robots_txt_is_obeyed(self, site: WebServer, opened: Opened) -> None:
        """For the configured name, else for everybody."""
        site.put(
            "/robots.txt",
            "User-agent: *\nDisallow: /a.html\n\nUser-agent: acme\nDisallow: /b*\n",
        )
        assert set(opened.crawl(depth=1)) == {"/", "/b.html"}
        assert set(opened.crawl(depth=1, user_agent="acme/2.0 (docs team)")) == {"/", "/a.html"}
        assert site.headers[-1]["user-agent"] == "acme/2.0 (docs team)"

    def test_without_robots_txt_everything_is_allowed(
        self, site: WebServer, opened: Opened
    ) -> None:
        """RFC 9309: 4xx allows, also 403."""
        site.put("/robots.txt", status=403)
        assert set(opened.crawl(depth=0)) == {"/"}

    @pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"is_reset": True}])
    def test_an_unreachable_robots_txt_forbids_everything(
        self, site: WebServer, opened: Opened, fault: dict[str, object]
    ) -> None:
        """RFC 9309: 5xx and no answer; nothing is listed, so nothing is deleted."""
        site.break_for("/robots.txt", **fault)
        with pytest.raises(SourceUnavailableError, match=r"robots\.txt"):
            opened.source().list_objects()
        assert set(site.requests) == {"/robots.txt"}

    def test_a_site_that_forbids_everything_says_so(self, site: WebServer, opened: Opened) -> None:
        """And deletes nothing."""
        site.put("/robots.txt", "User-agent: *\nDisallow: /")
        listing = opened.source().list_objects()
        assert not listing.is_complete
        assert "forbidden to 'ragassets' by robots.txt" in listing.message
        with pytest.raises(SourceRefusedError, match=r"robots\.txt forbids"):
            opened.source().probe()

    def test_requests_keep_their_distance(self, site: WebServer, opened: Opened) -> None:
        """The longer of the configured delay and Crawl-delay, also with several connections."""
        site.put("/robots.txt", "User-agent: *\nCrawl-delay: 0.15")
        opened.crawl(depth=1, connections=4, delay_seconds=0.05)
        times = site.times[1:]
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert len(gaps) == 3
        assert min(gaps) > 0.12

    def test_the_whole_site_waits_as_long_as_it_asks_for(
        self, site: WebServer, opened: Opened
    ) -> None:
        """429 with Retry-After is about all pages."""
        site.break_for("/a.html", 1, status=429, headers={"Retry-After": "0.5"})
        assert set(opened.crawl(depth=1)) == {"/", "/a.html", "/b.html"}
        first = site.requests.index("/a.html")
        assert site.times[first + 1] - site.times[first] > 0.45

    def test_a_site_that_asks_for_an_hour_is_left_alone(
        self, site: WebServer, opened: Opened
    ) -> None:
        """No run waits that long; what was found until then counts."""
        site.put("/a.html", status=503, headers={"Retry-After": "3600"})
        listing = opened.source(depth=9).list_objects()
        assert set(opened.paths(listing)) == {"/"}
        assert "not to be asked for 3,600 s" in listing.message
        assert site.count("/b.html") == 0

    def test_headers_go_to_the_site_alone(self, site: WebServer, opened: Opened) -> None:
        """A sitemap elsewhere must not learn the token."""
        with running_site() as other:
            other.put("/map.xml", f"<urlset><url><loc>{site.url}/d.html</loc></url></urlset>")
            site.put("/robots.txt", f"Sitemap: {other.url}/map.xml")
            found = opened.crawl(depth=0, headers={"Authorization": "Bearer s3cret"})
            assert set(found) == {"/", "/d.html"}
            assert {sent.get("authorization") for sent in site.headers} == {"Bearer s3cret"}
            assert "authorization" not in other.headers[0]


class TestLimits:
    def test_a_page_that_never_ends_is_given_up(self, site: WebServer, opened: Opened) -> None:
        """A byte now and then is within every time-out; the page as a whole is not."""
        site.break_for("/a.html", body=b"x" * 200, byte_every_seconds=0.05)
        quick = QUICK.model_copy(update={"retry": RetryConfig(attempts=1)})
        listing = opened.source(depth=1, page_seconds=0.5, fetch=quick).list_objects()
        assert not listing.is_complete
        assert "/a.html: did not answer in time" in listing.message
        assert set(opened.paths(listing)) == {"/", "/b.html"}

    def test_what_is_too_large_is_listed_as_such_and_not_kept(
        self, site: WebServer, opened: Opened
    ) -> None:
        """By its announced length, by what came, and by what a small gzip unpacks to."""
        site.page("/", "home", "/long", "/bomb")
        site.put("/long", b"x" * 200_000, content_type="text/plain")
        site.put("/bomb", b"\0" * 20_000_000, content_type="text/plain", is_gzipped=True)
        listing = opened.source(depth=1).list_objects()
        assert listing.is_complete
        sizes = {entry.uri.removeprefix(site.url): entry.size_bytes for entry in listing.objects}
        assert sizes["/long"] == 200_000
        assert sizes["/bomb"] == 100_001
        assert len(list(LandingZone(str(opened.root)).content_hashes())) == 1

    def test_gzip_is_unpacked(self, site: WebServer, opened: Opened) -> None:
        """The landed bytes are the page's."""
        site.page("/a.html", "page a in gzip", is_gzipped=True)
        source = opened.source(depth=1)
        (entry,) = [one for one in source.list_objects().objects if one.uri.endswith("/a.html")]
        assert b"page a in gzip" in source.fetch(entry)


class TestPrivateAddresses:
    def test_a_private_site_is_refused_unless_it_is_allowed(self, opened: Opened) -> None:
        """The message names the way out."""
        with pytest.raises(PrivateAddressError, match=r"not public.*web\.allow_private") as caught:
            opened.source(allow_private=[]).list_objects()
        assert "'127.0.0.1'" in str(caught.value)
        assert opened.source(allow_private=["127.0.0.0/8"]).probe().startswith(opened.url)

    def test_a_sitemap_at_a_private_address_is_not_asked(
        self, site: WebServer, opened: Opened
    ) -> None:
        """Also behind a redirect of robots.txt's own sitemap."""
        with running_site("127.0.0.2") as other:
            other.put("/map.xml", "<urlset/>")
            port = other.url.rpartition(":")[2]
            site.put(
                "/robots.txt",
                f"Sitemap: {site.url}/go\nSitemap: http://2130706434:{port}/map.xml\n"
                f"Sitemap: http://[::ffff:7f00:2]:{port}/map.xml",
            )
            site.redirect("/go", f"http://0x7f.0.0.2:{port}/map.xml")
            listing = opened.source(depth=0).list_objects()
            assert not listing.is_complete
            assert listing.message.count("not public") == 3
            assert other.requests == []
            assert set(opened.paths(listing)) == {"/"}


class TestGoingOn:
    def test_a_crawl_goes_on_in_another_process_from_any_step(
        self, site: WebServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed after any step, with the cursor of any earlier one: nothing is lost."""
        monkeypatch.setattr(web_site, "STEP_SECONDS", 1e-9)
        whole = opened.crawl(depth=9)
        for n_steps in range(1, 8):
            after, found = "", {}
            for n_pages, page in enumerate(opened.source(depth=9).pages(), start=1):
                if n_pages <= n_steps:
                    found |= {one.uri.removeprefix(site.url): one.etag for one in page.objects}
                    after = page.last_key
                elif n_pages == n_steps + 2:
                    break  # two more steps were done and saved, and nobody learned of them
            site.requests.clear()
            problem = "nothing came"
            for page in opened.source(depth=9).pages(after):
                found |= {one.uri.removeprefix(site.url): one.etag for one in page.objects}
                problem = page.problem
            assert (found, problem) == (whole, "")
            assert len(site.requests) < 8

    def test_a_crawl_that_was_lost_begins_anew(self, opened: Opened) -> None:
        """Its cursor leads nowhere any more."""
        pages = list(opened.source(depth=9).pages("0123:7"))
        assert len([one for page in pages for one in page.objects]) == 5

    def test_the_end_of_a_crawl_is_told_again(self, site: WebServer, opened: Opened) -> None:
        """A look may end right behind the last step; what it said must not be lost."""
        site.break_for("/d.html", status=500)
        last = list(opened.source(depth=9).pages())[-1]
        (again,) = opened.source(depth=9).pages(last.last_key)
        assert again.problem == last.problem != ""


def test_doctor_asks_the_site(site: WebServer, opened: Opened) -> None:
    """robots.txt and the first page."""
    site.put("/robots.txt", "Sitemap: /map.xml")
    assert opened.source().probe() == f"{site.url}/ answers 200; robots.txt names 1 sitemap(s)"
    site.put("/", status=401)
    with pytest.raises(SourceRefusedError, match=r"answers 401.*web\.headers"):
        opened.source().probe()
