"""Documents that are the records of a paged JSON API."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from ragassets.adapters.sources.integrity import check_size
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.patience import Patience
from ragassets.adapters.sources.record_listing import RecordListing
from ragassets.core.fingerprints import content_hash
from ragassets.core.pagination import Answer, first_url, next_url, origin, search
from ragassets.core.record_settings import ApiConfig
from ragassets.core.records import RecordMapping
from ragassets.core.retries import is_retryable, parse_retry_after
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import Listing, SourceObject
from ragassets.errors import SourceRefusedError, SourceUnavailableError

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0

REFUSALS = {
    401: "Mend or renew the credentials in api.headers",
    403: "Let these credentials read the records",
    404: "Mend the source's uri",
}
"""What a person has to mend, by the status of the answer."""


class JsonApi:
    """The records of an API, a page at a time.

    A listing is complete only when the last page was read and every record in it. An answer that
    is no JSON, or has no list where the items should be, is no page without items.
    """

    def __init__(
        self,
        uri: str,
        api: ApiConfig,
        mapping: RecordMapping,
        bodies: LandedBodies,
        *,
        fetching: FetchConfig,
        patience: Patience,
    ) -> None:
        """Describe the API; nothing is sent yet.

        Args:
            uri: `rest+https://host/path`.
            api: How it is asked.
            mapping: Reads the records.
            bodies: Where their bodies go.
            fetching: Time-outs and the size of one body.
            patience: The tries of one page.
        """
        self._uri, self._base = uri, uri.removeprefix("rest+")
        self._api, self._mapping, self._bodies = api, mapping, bodies
        self._fetching, self._patience = fetching, patience

    def probe(self) -> str:
        """How many records the first page has.

        Raises:
            SourceUnavailableError: It cannot be read.
        """
        _, items = next(self._pages({}))
        return f"{self._uri} ({len(items)} records on the first page)"

    def list_objects(self) -> Listing:
        """All records; incomplete where a page or a record could not be read.

        Raises:
            SourceUnavailableError: Not even the first page could.
        """
        return self._listing({}, is_whole=True)

    @property
    def is_incremental(self) -> bool:
        """Whether the API can be asked for what changed."""
        return self._api.since is not None

    def list_since(self, moment: datetime) -> Listing:
        """The records that changed since some moment; all where the API cannot tell.

        Raises:
            SourceUnavailableError: Not even the first page could be read.
        """
        since = self._api.since
        if since is None:
            return self.list_objects()
        start = moment.astimezone(UTC) - timedelta(seconds=since.overlap_seconds)
        return self._listing({since.parameter: f"{start:%Y-%m-%dT%H:%M:%SZ}"}, is_whole=False)

    def fetch(self, wanted: SourceObject) -> bytes:
        """The body that was landed when its page was read.

        Raises:
            OversizedDocumentError: It is larger than `max_bytes`.
            MissingRawBytesError: The landing zone lost it; the next listing brings it again.
        """
        check_size(wanted.uri, wanted.size_bytes, self._fetching)
        return self._bodies.read(wanted.etag)

    def _listing(self, extra: dict[str, str], *, is_whole: bool) -> Listing:
        found = RecordListing(self._mapping, self._bodies, self._fetching)
        now = datetime.now(UTC)
        number = 0
        try:
            for number, items in self._pages(extra):
                for place, item in enumerate(items, start=1):
                    name = f"{self._uri}, page {number}, item {place}"
                    found.add(self._uri, item, place=name, modified_at=now)
        except SourceUnavailableError as error:
            if number == 0:
                raise
            message = f"the listing broke off after {found.n_objects} records: {error}"
            return found.finished(is_complete=False, message=message)
        return found.finished(is_complete=is_whole)

    def _pages(self, extra: dict[str, str]) -> Iterator[tuple[int, list[object]]]:
        """Number, from 1, and items of every page.

        Raises:
            SourceUnavailableError: A page cannot be read, leads elsewhere, or was there before.
        """
        first = first_url(self._base, self._api, extra)
        url, asked, last_hash, n_all = first, set[str](), "", 0
        for number in range(1, self._api.max_pages + 1):
            asked.add(url)
            answer = self._patience.with_retries(partial(self._ask, url))
            items = self._items(answer)
            page_hash = content_hash(json.dumps(items, sort_keys=True).encode())
            if items and page_hash == last_hash:
                detail = f"page {number} is page {number - 1} again: does api.pagination fit?"
                raise self._broken(detail)
            last_hash, n_all = page_hash, n_all + len(items)
            yield number, items
            following = next_url(
                url, first, self._api, answer, n_pages=number, n_items=len(items), n_all=n_all
            )
            if following is None:
                return
            self._check_next(following, number, asked)
            url = following
        detail = f"has more pages than api.max_pages {self._api.max_pages:,} allows"
        raise self._broken(detail)

    def _check_next(self, url: str, number: int, asked: set[str]) -> None:
        if origin(url) != origin(self._base):
            raise SourceRefusedError(
                service=self._uri,
                detail=f"page {number} leads to another host, {urlsplit(url).netloc!r}, which must"
                " not see api.headers",
                fix="Set the uri to the host that has all pages",
            )
        if url in asked:
            detail = f"page {number} leads back to a page that was read before"
            raise self._broken(detail)

    def _items(self, answer: Answer) -> list[object]:
        items = search(self._api.items, answer.content)
        if not isinstance(items, list):
            detail = f"answered without a list at api.items {self._api.items!r}"
            raise self._broken(detail)
        return cast("list[object]", items)

    def _ask(self, url: str) -> Answer:
        """One page.

        Raises:
            SourceUnavailableError: No answer, none that can be read, or a refusal.
        """
        import httpx

        try:
            with self._client.stream("GET", url) as response:
                self._check(response)
                data = self._read(response)
                link = response.headers.get("link", "")
        except httpx.HTTPError as error:
            # Its text is left out: it may quote the query, which may hold a key.
            detail = f"cannot be read ({type(error).__name__})"
            raise self._broken(detail) from error
        try:
            return Answer(json.loads(data), link)
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("content-type", "nothing that says what it is")
            detail = f"answered no JSON ({kind[:80]}, {len(data):,} bytes)"
            raise self._broken(detail) from error

    def _check(self, response: "httpx.Response") -> None:
        status = response.status_code
        if response.is_success:
            return
        if response.is_redirect:
            target = urlsplit(str(response.headers.get("location", "")))
            place = target._replace(query="", fragment="").geturl()[:200]
            detail = f"redirects to {place!r}"
            raise SourceRefusedError(
                service=self._uri, detail=detail, fix="Set the uri to where the records are"
            )
        if not is_retryable(status):
            fix = REFUSALS.get(status, "Mend the settings under `api`")
            raise SourceRefusedError(service=self._uri, detail=f"answers {status}", fix=fix)
        error = self._broken(f"answers {status}")
        asked = response.headers.get("retry-after")
        error.retry_after_seconds = parse_retry_after(asked, now=datetime.now(UTC))
        raise error

    def _read(self, response: "httpx.Response") -> bytes:
        data = bytearray()
        for block in response.iter_bytes():
            data += block
            if len(data) > self._api.max_page_bytes:
                limit = f"{self._api.max_page_bytes:,}"
                raise SourceRefusedError(
                    service=self._uri,
                    detail=f"a page is larger than api.max_page_bytes {limit} allows",
                    fix="Ask for fewer records a page in api.parameters, or raise the limit",
                )
        return bytes(data)

    def _broken(self, detail: str) -> SourceUnavailableError:
        return SourceUnavailableError(
            service=self._uri, detail=detail, fix="Nothing is deleted; the next listing tries again"
        )

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(
            headers={"Accept": "application/json", **self._api.headers},
            timeout=httpx.Timeout(self._fetching.timeout_seconds, connect=CONNECT_SECONDS),
            # A redirect would carry the headers elsewhere, and into networks behind this machine.
            follow_redirects=False,
        )
