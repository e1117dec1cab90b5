"""A source that lists in pages, in memory."""

from collections.abc import Iterator
from datetime import UTC, datetime

from ragassets.core.sources import Listing, ListingPage, SourceObject
from ragassets.errors import SourceUnavailableError

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Bucket:
    """A paged source in memory: `objects` by key, so many keys on a page."""

    def __init__(self, n_per_page: int = 2) -> None:
        """Begin empty."""
        self.objects: dict[str, str] = {}
        self.n_per_page = n_per_page
        self.breaks_after: str | None = None
        """The store stops answering behind this key."""

    def put(self, *keys: str, text: str = "text") -> None:
        """Write objects."""
        self.objects |= dict.fromkeys(keys, text)

    def probe(self) -> str:
        """See `Source`."""
        return "memory"

    def list_objects(self) -> Listing:
        """See `Source`."""
        pages = [entry for page in self.pages() for entry in page.objects]
        return Listing(pages, is_complete=True)

    def fetch(self, wanted: SourceObject) -> bytes:
        """See `Source`."""
        return self.objects[wanted.uri.removeprefix("s3://bucket/")].encode()

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """See `PagedSource`."""
        while True:
            if self.breaks_after is not None and after >= self.breaks_after:
                raise SourceUnavailableError(service="s3://bucket", detail="is away")
            keys = sorted(key for key in self.objects if key > after)[: self.n_per_page]
            if not keys:
                return
            after = keys[-1]
            yield ListingPage([self._described(key) for key in keys], after)

    def _described(self, key: str) -> SourceObject:
        text = self.objects[key]
        return SourceObject(f"s3://bucket/{key}", f"etag of {text}", len(text), NOW)
