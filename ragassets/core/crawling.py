"""The state of a crawl: which addresses are known, which wait, and what was found under each.

Nothing is asked here. A crawl can be stopped between any two steps and go on later, in another
process: what it yielded in which step is part of its state.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from ragassets.core.sources import SourceObject

MAX_SITEMAPS = 5_000
"""Files of sitemaps in one crawl. At 50,000 addresses each (sitemaps.org) they name more pages than
`max_pages` admits."""

MAX_SHOWN_PROBLEMS = 3

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Found(StrEnum):
    """What became of an address."""

    WAITING = "waiting"
    LISTED = "listed"
    """A document."""
    ALIAS = "alias"
    """Another address of a page; see `alias_of`."""
    SKIPPED = "skipped"
    """No document of this source, for good reason."""
    GONE = "gone"
    """The site says that it is not there."""
    FAILED = "failed"
    """Nobody knows: the crawl is not complete."""


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """One address in a crawl."""

    uri: str
    found: Found = Found.WAITING
    is_sitemap: bool = False
    depth: int = 0
    """Links away from the beginning; of a sitemap, from robots.txt."""
    step: int = 0
    """In which step it was settled."""
    n_tries: int = 0
    not_before: float = 0.0
    """Seconds since 1970; it is not asked before."""
    lastmod: str = ""
    """What the sitemap says."""
    etag: str = ""
    """Of the source object."""
    size_bytes: int = 0
    modified_at: datetime = EPOCH
    media_type: str = ""
    http_etag: str = ""
    http_modified: str = ""
    """What to ask with whether it changed: `ETag` and `Last-Modified` as they came."""
    alias_of: str = ""
    detail: str = ""

    def as_object(self) -> SourceObject:
        """What a listing shows of it."""
        return SourceObject(self.uri, self.etag, self.size_bytes, self.modified_at)


@dataclasses.dataclass
class Crawl:
    """A crawl under way."""

    crawl_id: str
    max_pages: int
    known: Mapping[str, Visit] = dataclasses.field(default_factory=dict[str, Visit])
    """What earlier crawls found under an address."""
    began_at: float = 0.0
    """Seconds since 1970."""
    visits: dict[str, Visit] = dataclasses.field(default_factory=dict[str, Visit])
    step: int = 1
    """The one under way."""
    next_request_at: float = 0.0
    """Seconds since 1970."""
    problems: list[str] = dataclasses.field(default_factory=list[str])
    """Why it is not complete; each once."""
    n_failed_in_a_row: int = 0
    is_over: bool = False

    def __post_init__(self) -> None:
        """Put what waits in line."""
        self._line: deque[str] = deque()
        self._later: list[str] = []
        """Those that wait for their next try."""
        for visit in self.visits.values():
            if visit.found is Found.WAITING:
                self._enqueue(visit)
        self._n_pages = sum(not visit.is_sitemap for visit in self.visits.values())
        self._n_sitemaps = len(self.visits) - self._n_pages

    def admit(self, visit: Visit) -> None:
        """Put an address in line, unless it is known or there are too many."""
        if visit.uri in self.visits:
            return
        if visit.is_sitemap:
            if self._n_sitemaps >= MAX_SITEMAPS:
                self.note(f"there are more than {MAX_SITEMAPS:,} sitemaps")
                return
            self._n_sitemaps += 1
        else:
            if self._n_pages >= self.max_pages:
                self.note(f"there are more pages than web.max_pages {self.max_pages:,} admits")
                return
            self._n_pages += 1
        self.visits[visit.uri] = visit
        self._line.append(visit.uri)

    def take(self, now: float, n_most: int) -> list[Visit]:
        """The next addresses that may be asked now; they leave the line."""
        self._line.extend(uri for uri in self._later if self.visits[uri].not_before <= now)
        self._later = [uri for uri in self._later if self.visits[uri].not_before > now]
        taken: list[Visit] = []
        while self._line and len(taken) < n_most:
            visit = self.visits[self._line.popleft()]
            if visit.found is Found.WAITING:  # else a redirect led here before
                taken.append(visit)
        return taken

    def put_back(self, visit: Visit) -> None:
        """Let an address wait again."""
        self.visits[visit.uri] = visit
        self._enqueue(visit)

    def settle(self, visit: Visit, found: Found) -> None:
        """Say what became of an address, in the step under way."""
        self.visits[visit.uri] = dataclasses.replace(visit, found=found, step=self.step)

    def waits_until(self) -> float | None:
        """When the first of those in line may be asked; None where none is."""
        while self._line and self.visits[self._line[0]].found is not Found.WAITING:
            self._line.popleft()
        if self._line:
            return 0.0
        later = [self.visits[uri] for uri in self._later]
        return min(
            (visit.not_before for visit in later if visit.found is Found.WAITING), default=None
        )

    def drop_line(self) -> None:
        """Ask for nothing more."""
        self._line.clear()
        self._later.clear()

    def _enqueue(self, visit: Visit) -> None:
        (self._later if visit.not_before else self._line).append(visit.uri)

    def note(self, problem: str) -> None:
        """Remember why the crawl is not complete."""
        if problem not in self.problems:
            self.problems.append(problem)

    def objects(self, after_step: int = 0) -> list[SourceObject]:
        """The documents that were settled behind a step."""
        return [
            visit.as_object()
            for visit in self.visits.values()
            if visit.found is Found.LISTED and visit.step > after_step
        ]

    def problem(self) -> str:
        """What to say of an incomplete crawl; empty where it is complete."""
        shown = "; ".join(self.problems[:MAX_SHOWN_PROBLEMS])
        rest = len(self.problems) - MAX_SHOWN_PROBLEMS
        return f"{shown} (and {rest} more)" if rest > 0 else shown

    def adopt_aliases(self) -> None:
        """List those other addresses whose page is not listed under the address that they name."""
        for uri in adopted_aliases(self.visits):
            self.settle(self.visits[uri], Found.LISTED)

    def gone(self, max_share: float) -> list[str]:
        """Documents of earlier crawls that the site says are gone, or were moved to others.

        None where they are more than a share of all, and more than one: a site that is deployed
        wrongly says of all its pages that they are gone. Those are left to a complete listing and
        its guard.
        """
        before = [uri for uri, visit in self.known.items() if visit.found is Found.LISTED]
        told = [uri for uri in before if self._is_told_gone(uri)]
        is_single = len(told) == 1 and len(before) > 1
        return told if is_single or len(told) <= max_share * len(before) else []

    def _is_told_gone(self, uri: str) -> bool:
        visit = self.visits.get(uri)
        if visit is None:
            return False
        if visit.found is Found.ALIAS:
            target = self.visits.get(visit.alias_of)
            return target is not None and target.found is Found.LISTED
        return visit.found is Found.GONE

    def remembered(self) -> dict[str, Visit]:
        """What the next crawl should know: all of this one, and where it did not come, of before.

        Source: the validators have to outlive crawls that were stopped, or every page would be
        fetched anew after each.
        """
        keeps = {Found.LISTED, Found.ALIAS}
        now = {uri: visit for uri, visit in self.visits.items() if visit.found in keeps}
        settled = {
            uri
            for uri, visit in self.visits.items()
            if visit.found not in {Found.WAITING, Found.FAILED}
        }
        is_complete = self.is_over and not self.problems
        if is_complete:
            return now
        return {uri: visit for uri, visit in self.known.items() if uri not in settled} | now


def adopted_aliases(visits: Mapping[str, Visit]) -> set[str]:
    """Which aliases have to be listed themselves, so that no page is lost.

    An alias names another address, which may be an alias in turn. Where that ends at a document,
    the page is listed there. Where it ends at nothing (gone, left out, never asked), the last alias
    that brought a body stands for the page; in a circle, the first in the alphabet. Where it ends
    at a failure nothing is decided: the crawl is not complete anyway.
    """
    adopted: set[str] = set()
    for uri, visit in visits.items():
        if visit.found is not Found.ALIAS:
            continue
        chain = [uri]
        while (target := visits[chain[-1]].alias_of) not in chain:
            end = visits.get(target)
            if end is None or end.found is not Found.ALIAS:
                break
            chain.append(target)
        with_body = [one for one in chain if visits[one].etag]
        if target in chain:
            circle = [one for one in chain[chain.index(target) :] if visits[one].etag]
            adopted.update([min(circle)] if circle else with_body[-1:])
        elif target not in visits or visits[target].found in {Found.GONE, Found.SKIPPED}:
            adopted.update(with_body[-1:])
    return adopted


def known_of(crawls: Iterable[Crawl]) -> dict[str, Visit]:
    """What several crawls remember; of the same address, what the last of them does."""
    found: dict[str, Visit] = {}
    for crawl in sorted(crawls, key=lambda crawl: crawl.began_at):
        left_out = {
            uri for uri, visit in crawl.visits.items() if visit.found in {Found.GONE, Found.SKIPPED}
        }
        kept = {uri: visit for uri, visit in found.items() if uri not in left_out}
        found = kept | crawl.remembered()
    return found
