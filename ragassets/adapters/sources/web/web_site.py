"""A web site as a source."""

import time
import uuid
from collections.abc import Callable, Iterator

from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.adapters.sources.web.connections import Resolver, resolve
from ragassets.adapters.sources.web.crawl_memory import SLOTS, CrawlMemory
from ragassets.adapters.sources.web.crawler import Crawler, SiteRules
from ragassets.adapters.sources.web.http_reader import Answer, HttpReader
from ragassets.adapters.sources.web.page_answers import GONE, OK
from ragassets.adapters.sources.web.robots import Robots, read_robots
from ragassets.config import SourceConfig
from ragassets.core.crawling import Crawl, known_of
from ragassets.core.fingerprints import content_hash
from ragassets.core.sources import Listing, ListingPage, SourceObject, landed_etag, landed_hash
from ragassets.core.web_addresses import Site, canonical_url
from ragassets.errors import (
    ChangedDuringReadError,
    MissingRawBytesError,
    ObjectGoneError,
    OversizedDocumentError,
    SourceRefusedError,
    SourceUnavailableError,
)

REFUSED = frozenset({401, 403})

STEP_SECONDS = 5.0
"""After this a sensor's crawl is saved, and may be stopped."""

RUN_STEP_SECONDS = 60.0
"""After this a run's crawl is saved. A run that dies begins anew, and knows what was saved."""

WATCH_PAGE_SECONDS = 15.0
"""For one page in a look of a sensor, which has 25 s and may not reach 60."""


class WebSite:
    """The pages of a site that links and sitemaps lead to, within one address and a depth."""

    def __init__(
        self,
        config: SourceConfig,
        bodies: LandedBodies,
        memory: CrawlMemory,
        *,
        resolver: Resolver = resolve,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Describe the site; nothing is sent yet.

        Args:
            config: The source's entry.
            bodies: Where bodies are kept as they are read.
            memory: Where crawls are kept.
            resolver: From names to addresses; tests bring their own.
            clock: Seconds since 1970.
            sleep: Waits.
        """
        root = canonical_url(config.uri)
        if root is None:
            raise SourceRefusedError(
                service=config.uri, detail="is no address of a site", fix="Mend the source's uri"
            )
        self._site, self._config = Site(root), config
        self._bodies, self._memory = bodies, memory
        self._clock, self._sleep, self._resolver = clock, sleep, resolver

    def probe(self) -> str:
        """The site, whose robots.txt and first page were read.

        Raises:
            SourceUnavailableError: It does not answer, or says no.
        """
        with self._reader() as reader:
            robots = self._robots(reader, WATCH_PAGE_SECONDS)
            if not robots.allows(self._site.root):
                raise SourceRefusedError(
                    service=self._site.root,
                    detail=f"its robots.txt forbids it to {robots.name!r}",
                    fix="Let the site allow web.user_agent, or remove the source",
                )
            answer = self._get(reader, self._site.root, WATCH_PAGE_SECONDS, wants_body=False)
        if answer.location and not self._site.holds(answer.location):
            raise SourceRefusedError(
                service=self._site.root,
                detail=f"redirects to {answer.location}, which is not of this source",
                fix="Write that address as the source's uri",
            )
        if answer.status in REFUSED:
            raise SourceRefusedError(
                service=self._site.root,
                detail=f"answers {answer.status}",
                fix="Set web.headers, such as Authorization, from the environment",
            )
        named = len(robots.sitemaps)
        return f"{self._site.root} answers {answer.status}; robots.txt names {named} sitemap(s)"

    def list_objects(self) -> Listing:
        """All pages of now, in one crawl from its beginning.

        Raises:
            SourceUnavailableError: robots.txt cannot be reached, or nothing was found.
        """
        objects: list[SourceObject] = []
        deleted: list[str] = []
        problem = ""
        for page in self._steps("run", self._new_crawl(), self._config.web.page_seconds):
            objects += page.objects
            deleted += page.deleted
            problem = page.problem
        return Listing(objects, is_complete=not problem, message=problem, deleted=deleted)

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """See `PagedSource`; a page is what one step of the crawl found.

        A crawl that cannot be found again begins anew, which costs requests and nothing else.
        """
        crawl_id, _, step = after.rpartition(":")
        crawl = self._memory.load("watch", self._config.web.max_pages) if crawl_id else None
        if crawl is None or crawl.crawl_id != crawl_id or not step.isdecimal():
            crawl, step = self._new_crawl(), "0"
        elif crawl.step > int(step) or crawl.is_over:
            yield self._page(crawl, after_step=int(step))
        if not crawl.is_over:
            seconds = min(self._config.web.page_seconds, WATCH_PAGE_SECONDS)
            yield from self._steps("watch", crawl, seconds)

    def fetch(self, wanted: SourceObject) -> bytes:
        """The bytes that were landed as the page was crawled.

        Where the landing zone lost them they are asked for again, and count if they are the same.

        Raises:
            SourceUnavailableError: They cannot be had now.
            ChangedDuringReadError: The page has changed since it was crawled.
            OversizedDocumentError: It is larger than the source's limit.
        """
        if landed_hash(wanted.etag) is not None:
            try:
                return self._bodies.read(wanted.etag)
            except MissingRawBytesError:
                pass
        data = self._fetch_again(wanted.uri)
        if landed_hash(wanted.etag) and landed_etag(content_hash(data)) != wanted.etag:
            raise ChangedDuringReadError(uri=wanted.uri)
        return data

    def _fetch_again(self, url: str) -> bytes:
        with self._reader() as reader:
            answer = self._get(reader, url, self._config.web.page_seconds, wants_body=True)
        if answer.status in GONE:
            raise ObjectGoneError(uri=url)
        if answer.is_too_large:
            detail = f"has more bytes than fetch.max_bytes {self._config.fetch.max_bytes:,} allows"
            raise OversizedDocumentError(uri=url, detail=detail)
        if answer.status != OK:
            raise SourceUnavailableError(service=url, detail=f"answers {answer.status}")
        return answer.body

    def _reader(self) -> HttpReader:
        return HttpReader(
            self._config.web,
            self._site.origin,
            read_seconds=self._config.fetch.timeout_seconds,
            resolver=self._resolver,
        )

    def _get(
        self, reader: HttpReader, url: str, total_seconds: float, *, wants_body: bool
    ) -> Answer:
        return reader.get(
            url,
            to_follow=lambda there: {} if self._site.holds(there) else None,
            wants_body=lambda status, _: wants_body and status == OK,
            max_bytes=self._config.fetch.max_bytes,
            total_seconds=total_seconds,
        )

    def _new_crawl(self) -> Crawl:
        n_pages = self._config.web.max_pages
        before = [crawl for slot in SLOTS if (crawl := self._memory.load(slot, n_pages))]
        return Crawl(uuid.uuid4().hex, n_pages, known_of(before), began_at=self._clock())

    def _robots(self, reader: HttpReader, page_seconds: float) -> Robots:
        return read_robots(reader, self._site.origin, self._config.web.robots_name, page_seconds)

    def _rules(self, robots: Robots, page_seconds: float) -> SiteRules:
        config = self._config
        patterns = PathPatterns(config.include, config.exclude)
        return SiteRules(self._site, patterns, robots, config.web, config.fetch, page_seconds)

    def _steps(self, slot: str, crawl: Crawl, page_seconds: float) -> Iterator[ListingPage]:
        """Crawl on; each step is saved before anybody learns of it."""
        seconds = STEP_SECONDS if slot == "watch" else RUN_STEP_SECONDS
        with self._reader() as reader:
            rules = self._rules(self._robots(reader, page_seconds), page_seconds)
            crawler = Crawler(rules, reader, self._bodies, clock=self._clock, sleep=self._sleep)
            if not crawl.visits:
                crawler.begin(crawl)
            else:
                crawl.step += 1
            while True:
                crawler.advance(crawl, self._clock() + seconds)
                self._memory.save(slot, crawl)
                yield self._page(crawl, after_step=crawl.step - 1)
                if crawl.is_over:
                    return
                crawl.step += 1

    def _page(self, crawl: Crawl, *, after_step: int) -> ListingPage:
        """What was found behind a step; at the end of a crawl also what is gone and what failed."""
        share = self._config.max_delete_share
        return ListingPage(
            crawl.objects(after_step),
            f"{crawl.crawl_id}:{crawl.step}",
            deleted=crawl.gone(share) if crawl.is_over else (),
            is_last=crawl.is_over,
            problem=crawl.problem() if crawl.is_over else "",
        )
