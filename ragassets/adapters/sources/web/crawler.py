"""Crawling a site step by step: asking, politely, and saying what became of each address."""

import dataclasses
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.adapters.sources.web.http_reader import REDIRECTS, Answer, Headers, HttpReader
from ragassets.adapters.sources.web.page_answers import (
    GONE,
    NOT_MODIFIED,
    OK,
    PAGES,
    conditions,
    document_type,
    may_be_document,
    media_type_of,
    modified_at,
)
from ragassets.adapters.sources.web.page_links import canonical_in_header, read_links
from ragassets.adapters.sources.web.robots import Robots
from ragassets.adapters.sources.web.sitemaps import MAX_BYTES, MAX_DEPTH, read_sitemap
from ragassets.core.crawling import Crawl, Found, Visit
from ragassets.core.retries import is_retryable, parse_retry_after, wait_seconds
from ragassets.core.source_settings import FetchConfig
from ragassets.core.web_addresses import Site, canonical_url
from ragassets.core.web_settings import WebConfig
from ragassets.errors import MissingRawBytesError, SourceRefusedError, SourceUnavailableError

MAX_FAILED_IN_A_ROW = 8
"""Addresses that failed in all their tries until the site counts as down, and the crawl ends."""

GUESSED = "guessed"
"""The detail of a sitemap that nobody named: it need not be there."""

SERVER_ERRORS = 500

TOO_LARGE = "larger"
"""Begins the ETag of a document that is not fetched because of its size."""


@dataclasses.dataclass(frozen=True)
class SiteRules:
    """What belongs to a source, and how it may be asked."""

    site: Site
    patterns: PathPatterns
    """What `include` lacks is no document; what `exclude` has is not even asked for."""
    robots: Robots
    web: WebConfig
    fetching: FetchConfig
    page_seconds: float

    def canonical(self, url: str, base: str = "") -> str | None:
        """The one spelling of an address."""
        return canonical_url(url, base=base, ignored=self.web.ignore_parameters)

    def is_document(self, url: str) -> bool:
        """Whether the patterns want it."""
        return self.patterns.wants(self.site.relative_path(url))

    def may_ask(self, url: str) -> bool:
        """Whether it is of this site, not left out, and allowed by its robots.txt."""
        return (
            self.site.holds(url)
            and not self.patterns.excludes(self.site.relative_path(url))
            and self.robots.allows(url)
        )

    @property
    def delay_seconds(self) -> float:
        """Between the beginnings of two requests."""
        return max(self.web.delay_seconds, self.robots.delay_seconds)


class _Result(NamedTuple):
    """Of asking for one address."""

    visit: Visit
    answer: Answer | None
    error: SourceUnavailableError | None = None


class Crawler:
    """Moves a crawl forward."""

    def __init__(
        self,
        rules: SiteRules,
        reader: HttpReader,
        bodies: LandedBodies,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Put the parts together.

        Args:
            rules: What may be asked.
            reader: Asks.
            bodies: Where bodies are kept.
            clock: Seconds since 1970.
            sleep: Waits.
        """
        self._rules, self._reader, self._bodies = rules, reader, bodies
        self._clock, self._sleep = clock, sleep

    def begin(self, crawl: Crawl) -> None:
        """Put the first addresses in line: the source's own, and its sitemaps."""
        web = self._rules.web
        if web.sitemaps == "auto":
            named = self._rules.robots.sitemaps
            guessed = () if named else (f"{self._rules.site.origin}/sitemap.xml",)
        else:
            found = [self._rules.canonical(url) for url in web.sitemaps]
            named, guessed = [url for url in found if url], ()
        for url in named:
            crawl.admit(Visit(url, is_sitemap=True))
        for url in guessed:
            if self._rules.robots.allows(url):
                crawl.admit(Visit(url, is_sitemap=True, detail=GUESSED))
        if self._rules.may_ask(self._rules.site.root):
            crawl.admit(Visit(self._rules.site.root))

    def advance(self, crawl: Crawl, until: float) -> None:
        """Ask for addresses until a time comes or the crawl is over: for one in any case."""
        while not crawl.is_over:
            if crawl.n_failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                crawl.note(f"stopped after {MAX_FAILED_IN_A_ROW} failures in a row")
                crawl.drop_line()
            due = crawl.waits_until()
            if due is None:
                self._finish(crawl)
                return
            now = self._clock()
            begin = max(due, crawl.next_request_at)
            if begin > now:
                self._sleep(max(0.0, min(begin, until) - now))
            else:
                self._ask_some(crawl, until)
            if self._clock() >= until:
                return

    def _finish(self, crawl: Crawl) -> None:
        crawl.adopt_aliases()
        if not any(visit.found is Found.LISTED for visit in crawl.visits.values()):
            crawl.note(
                f"no document was found: {self._rules.site.root} {self._fate_of_root(crawl)}"
            )
        crawl.is_over = True

    def _fate_of_root(self, crawl: Crawl) -> str:
        """What became of the source's own address."""
        root = crawl.visits.get(self._rules.site.root)
        if root is not None:
            return root.detail or f"is {root.found}"
        if not self._rules.robots.allows(self._rules.site.root):
            return f"is forbidden to {self._rules.robots.name!r} by robots.txt"
        return "is left out by exclude"

    def _ask_some(self, crawl: Crawl, until: float) -> None:
        """Ask for as many addresses as may be asked at the same time."""
        delay = self._rules.delay_seconds
        n_most = self._rules.web.connections
        if delay:
            n_most = min(n_most, max(1, int((until - self._clock()) / delay)))
        taken = crawl.take(self._clock(), n_most)
        crawl.next_request_at = self._clock() + delay * len(taken)
        with ThreadPoolExecutor(n_most) as pool:
            results = list(pool.map(partial(self._ask, crawl), range(len(taken)), taken))
        for result in results:
            if crawl.visits[result.visit.uri].found is Found.WAITING:
                self._take(crawl, result)

    def _ask(self, crawl: Crawl, place: int, visit: Visit) -> _Result:
        if place:
            self._sleep(place * self._rules.delay_seconds)
        try:
            answer = self._read_sitemap(visit) if visit.is_sitemap else self._read(crawl, visit)
        except SourceUnavailableError as error:
            return _Result(visit, None, error)
        return _Result(visit, answer)

    def _read_sitemap(self, visit: Visit) -> Answer:
        return self._reader.get(
            visit.uri,
            to_follow=lambda _: {},
            wants_body=lambda status, _: status == OK,
            max_bytes=MAX_BYTES,
            total_seconds=self._rules.page_seconds,
        )

    def _read(self, crawl: Crawl, visit: Visit) -> Answer:
        """A page; from the landing zone where it did not change and its links are to be read."""
        if self._is_unchanged_by_sitemap(crawl, visit):
            answer = Answer(visit.uri, NOT_MODIFIED, {})
        else:
            answer = self._get(crawl, visit, is_conditional=True)
        if answer.status != NOT_MODIFIED:
            return answer
        known = crawl.known.get(answer.url)
        if known is None:
            raise SourceUnavailableError(service=answer.url, detail="answers 304 without a reason")
        if known.media_type not in PAGES:
            return answer
        try:
            return dataclasses.replace(answer, body=self._bodies.read(known.etag))
        except MissingRawBytesError:
            return self._get(crawl, visit, is_conditional=False)

    def _is_unchanged_by_sitemap(self, crawl: Crawl, visit: Visit) -> bool:
        known = crawl.known.get(visit.uri)
        return (
            self._rules.web.trust_lastmod
            and known is not None
            and known.etag.startswith("sha256:")
            and bool(visit.lastmod)
            and visit.lastmod == known.lastmod
        )

    def _get(self, crawl: Crawl, visit: Visit, *, is_conditional: bool) -> Answer:
        def to_follow(url: str) -> Headers | None:
            if url != visit.uri and not self._may_go_on(crawl, url):
                return None
            return conditions(crawl.known.get(url)) if is_conditional else {}

        return self._reader.get(
            visit.uri,
            to_follow=to_follow,
            wants_body=may_be_document,
            max_bytes=self._rules.fetching.max_bytes,
            total_seconds=self._rules.page_seconds,
        )

    def _may_go_on(self, crawl: Crawl, url: str) -> bool:
        """Whether to follow a redirect: not out of the site, nor to what was read already."""
        seen = crawl.visits.get(url)
        return self._rules.may_ask(url) and (seen is None or seen.found is Found.WAITING)

    def _take(self, crawl: Crawl, result: _Result) -> None:
        """Say what became of an address."""
        visit, answer, error = result
        if answer is None:
            detail = error.detail if error else ""
            self._failed(crawl, visit, detail, is_passing=not isinstance(error, SourceRefusedError))
            return
        if is_retryable(answer.status):
            self._take_refusal_for_now(crawl, visit, answer)
            return
        crawl.n_failed_in_a_row = 0
        if visit.is_sitemap:
            self._take_sitemap(crawl, visit, answer)
        elif answer.status in (OK, NOT_MODIFIED):
            self._take_page(crawl, visit, answer)
        elif answer.location:
            self._take_redirect(crawl, visit, answer)
        elif answer.status in GONE:
            crawl.settle(dataclasses.replace(visit, detail=_said(answer)), Found.GONE)
        else:
            self._take_refusal(crawl, visit, answer)

    def _take_refusal_for_now(self, crawl: Crawl, visit: Visit, answer: Answer) -> None:
        """429, 503 and their like: the whole site waits as long as it asks for."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        asked = parse_retry_after(answer.headers.get("retry-after"), now=now)
        self._failed(crawl, visit, _said(answer), is_passing=True, retry_after=asked)
        if asked is None:
            return
        if asked > self._rules.fetching.retry.max_retry_after_seconds:
            crawl.note(f"the site asks not to be asked for {asked:,.0f} s: the crawl ended there")
            crawl.drop_line()
        crawl.next_request_at = max(crawl.next_request_at, self._clock() + asked)

    def _take_refusal(self, crawl: Crawl, visit: Visit, answer: Answer) -> None:
        """401, 403 and their like: of a document that was there, nobody knows whether it is."""
        is_needed = visit.uri in crawl.known or visit.uri == self._rules.site.root
        if answer.status >= SERVER_ERRORS or is_needed:
            self._failed(crawl, visit, _said(answer), is_passing=False)
        else:
            self._leave_out(crawl, visit, _said(answer))

    def _failed(
        self,
        crawl: Crawl,
        visit: Visit,
        detail: str,
        *,
        is_passing: bool,
        retry_after: float | None = None,
    ) -> None:
        """Let an address wait for its next try, or give it up."""
        tried = dataclasses.replace(visit, n_tries=visit.n_tries + 1, detail=detail)
        retry = self._rules.fetching.retry
        chance = random.random()  # noqa: S311 - jitter is no secret
        wait = wait_seconds(retry, n_failed=tried.n_tries, retry_after=retry_after, random=chance)
        if is_passing and wait is not None and crawl.n_failed_in_a_row < MAX_FAILED_IN_A_ROW:
            crawl.put_back(dataclasses.replace(tried, not_before=self._clock() + wait))
            return
        crawl.n_failed_in_a_row += is_passing
        crawl.settle(tried, Found.FAILED)
        crawl.note(f"{visit.uri}: {detail}")

    @staticmethod
    def _leave_out(crawl: Crawl, visit: Visit, detail: str) -> None:
        crawl.settle(dataclasses.replace(visit, detail=detail), Found.SKIPPED)

    def _take_sitemap(self, crawl: Crawl, visit: Visit, answer: Answer) -> None:
        if answer.status != OK:
            if visit.detail == GUESSED and answer.status in GONE:
                self._leave_out(crawl, visit, GUESSED)
            else:
                fix = "mend it, or name others under web.sitemaps"
                self._failed(crawl, visit, f"sitemap {_said(answer)}; {fix}", is_passing=False)
            return
        found = read_sitemap(answer.body)
        problem = "has more than 50 MB" if answer.is_too_large else found.problem
        if problem and visit.detail == GUESSED and not found.pages and not found.sitemaps:
            # A site that answers every address with a page.
            self._leave_out(crawl, visit, GUESSED)
            return
        for url, lastmod in found.pages:
            page = self._rules.canonical(url)
            if page and self._rules.may_ask(page) and self._is_worth_asking(page, 0):
                crawl.admit(Visit(page, lastmod=lastmod))
        for url in found.sitemaps if visit.depth < MAX_DEPTH else ():
            if child := self._rules.canonical(url):
                crawl.admit(Visit(child, is_sitemap=True, depth=visit.depth + 1))
        crawl.settle(visit, Found.FAILED if problem else Found.SKIPPED)
        if problem:
            crawl.note(f"{visit.uri}: the sitemap {problem}")

    def _is_worth_asking(self, url: str, depth: int) -> bool:
        """Whether an address can be a document, or have links that are to be followed."""
        return self._rules.is_document(url) or depth < self._rules.web.depth

    def _take_redirect(self, crawl: Crawl, visit: Visit, answer: Answer) -> None:
        """One that was not followed: it leads out of the site, or to what was read already."""
        target = answer.location
        if self._rules.may_ask(target):
            crawl.settle(dataclasses.replace(visit, alias_of=target), Found.ALIAS)
            return
        self._leave_out(
            crawl, visit, f"redirects to {target}, which is not of this source, or not allowed"
        )

    def _take_page(self, crawl: Crawl, visit: Visit, answer: Answer) -> None:
        if answer.url != visit.uri:
            crawl.settle(dataclasses.replace(visit, alias_of=answer.url), Found.ALIAS)
            seen = crawl.visits.get(answer.url)
            if seen is not None and seen.found is not Found.WAITING:
                return  # another redirect led there at the same time
            visit = dataclasses.replace(seen or visit, uri=answer.url, detail="", alias_of="")
        page = self._described(crawl, visit, answer)
        if page is None:
            named = media_type_of(answer.headers) or "bytes of no known kind"
            self._leave_out(crawl, visit, f"is no document: {named}")
            return
        canonical = ""
        if page.media_type in PAGES and answer.body:
            canonical = self._follow_links(crawl, page, answer)
        if canonical:
            crawl.settle(dataclasses.replace(page, alias_of=canonical), Found.ALIAS)
        elif self._rules.is_document(page.uri):
            crawl.settle(page, Found.LISTED)
        else:
            self._leave_out(crawl, page, "the patterns of include leave it out")

    def _described(self, crawl: Crawl, visit: Visit, answer: Answer) -> Visit | None:
        """The page as a listing shows it, its body landed; None for what is no document."""
        known = crawl.known.get(visit.uri)
        now = datetime.fromtimestamp(self._clock(), UTC)
        if answer.status == NOT_MODIFIED and known is not None:
            return dataclasses.replace(
                known, found=visit.found, depth=visit.depth, lastmod=visit.lastmod, alias_of=""
            )
        headers = answer.headers
        described = dataclasses.replace(
            visit,
            http_etag=headers.get("etag", ""),
            http_modified=headers.get("last-modified", ""),
            media_type=media_type_of(headers),
        )
        if answer.is_too_large:
            n_bytes = _length(headers) or self._rules.fetching.max_bytes + 1
            state = described.http_etag or described.http_modified or str(n_bytes)
            return dataclasses.replace(
                described,
                etag=f"{TOO_LARGE}:{state}",
                size_bytes=max(n_bytes, self._rules.fetching.max_bytes + 1),
                modified_at=modified_at(headers, visit.lastmod, otherwise=now),
            )
        media_type = document_type(headers, answer.body, visit.uri)
        if not media_type:
            return None
        etag = self._bodies.land({visit.uri: answer.body})[visit.uri]
        is_same = known is not None and known.etag == etag
        return dataclasses.replace(
            described,
            media_type=media_type,
            etag=etag,
            size_bytes=len(answer.body),
            modified_at=modified_at(
                headers, visit.lastmod, otherwise=known.modified_at if known and is_same else now
            ),
        )

    def _follow_links(self, crawl: Crawl, page: Visit, answer: Answer) -> str:
        """Put a page's links in line; the canonical address that it names, if it is another one."""
        read = read_links(answer.body)
        rules = self._rules
        base = (rules.canonical(read.base, page.uri) if read.base else None) or page.uri
        if page.depth < rules.web.depth:
            for link in read.links:
                url = rules.canonical(link, base)
                if url and rules.may_ask(url) and self._is_worth_asking(url, page.depth + 1):
                    crawl.admit(Visit(url, depth=page.depth + 1))
        named = canonical_in_header(answer.headers.get("link", "")) or read.canonical
        canonical = rules.canonical(named, base) if named else None
        if canonical in (None, page.uri) or not rules.may_ask(canonical):
            return ""
        crawl.admit(Visit(canonical, depth=page.depth))
        return canonical if canonical in crawl.visits else ""


def _said(answer: Answer) -> str:
    if answer.status in REDIRECTS:
        return f"answers {answer.status} and leads in a circle, or nowhere"
    return f"answers {answer.status}"


def _length(headers: Headers) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0
