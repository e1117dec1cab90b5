"""What a site's robots.txt allows."""

import dataclasses
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin

from ragassets.adapters.sources.web.http_reader import HttpReader
from ragassets.core.retries import THROTTLED
from ragassets.core.web_addresses import canonical_url
from ragassets.errors import SourceUnavailableError

if TYPE_CHECKING:
    from protego import Protego

MAX_BYTES = 500 * 1024
"""What has to be read at least. Source: RFC 9309, section 2.5."""

MAX_DELAY_SECONDS = 300.0
"""Of a Crawl-delay; a longer one is obeyed so far: nothing else would be crawled in a day."""

OK, REFUSED, BROKEN = 200, 400, 500


@dataclasses.dataclass(frozen=True)
class Robots:
    """The rules for one crawler."""

    name: str
    rules: "Protego"
    delay_seconds: float
    """Asked for between two requests; 0 where it is not."""
    sitemaps: tuple[str, ...]
    """Canonical."""

    def allows(self, url: str) -> bool:
        """Whether an address of this site may be asked."""
        return self.rules.can_fetch(url, self.name)


def read_robots(reader: HttpReader, origin: str, name: str, total_seconds: float) -> Robots:
    """The rules of a site; without a robots.txt everything is allowed.

    Source: RFC 9309, section 2.3.1: what cannot be had (4xx) allows everything, what cannot be
    reached (5xx, no answer) allows nothing. 429 counts as the second: it says not now.

    Raises:
        SourceUnavailableError: It cannot be reached, so nothing may be asked.
    """
    from protego import Protego

    url = f"{origin}/robots.txt"
    answer = reader.get(
        url,
        to_follow=lambda _: {},
        wants_body=lambda status, _: status == OK,
        max_bytes=MAX_BYTES,
        total_seconds=total_seconds,
    )
    if answer.status >= BROKEN or answer.status == THROTTLED:
        raise SourceUnavailableError(
            service=url,
            detail=f"answers {answer.status}, so nothing of the site may be asked (RFC 9309)",
            fix="Nothing was deleted. The next crawl asks again",
        )
    if answer.is_too_large:
        raise SourceUnavailableError(
            service=url,
            detail=f"has more than {MAX_BYTES:,} bytes",
            fix="Shorten it, or name another source",
        )
    is_there = OK <= answer.status < OK + 100
    text = answer.body.decode("utf-8", "replace") if is_there else ""
    parsed = cast("Any", Protego).parse(text.removeprefix("\ufeff"))
    named = [canonical_url(urljoin(url, place)) for place in parsed.sitemaps]
    return Robots(
        name,
        parsed,
        min(_seconds_between(parsed, name), MAX_DELAY_SECONDS),
        tuple(dict.fromkeys(place for place in named if place)),
    )


def _seconds_between(parsed: Any, name: str) -> float:
    """The longer of Crawl-delay and Request-rate."""
    rate = parsed.request_rate(name)
    per_request = rate.seconds / rate.requests if rate and rate.requests else 0.0
    return max(float(parsed.crawl_delay(name) or 0.0), per_request)
