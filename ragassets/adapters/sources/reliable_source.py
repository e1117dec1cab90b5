"""Any source, with several tries of each object and mirrors to turn to."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ragassets.adapters.sources.integrity import check_length, check_md5, check_size
from ragassets.adapters.sources.patience import Patience
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import (
    Fetched,
    Listing,
    ListingPage,
    PagedSource,
    Source,
    SourceObject,
    fetch_version,
    md5_of_etag,
)
from ragassets.errors import SourceUnavailableError


class ReliableSource:
    """Fetches with retries, then from the mirrors in their order.

    A mirror holds the same objects under the same relative paths. Its bytes count only if they are
    those that the source listed: of the same length, and of the same MD5 where the ETag is one.
    """

    def __init__(
        self,
        source: Source,
        base_uri: str,
        mirrors: Mapping[str, Source],
        *,
        fetching: FetchConfig,
        patience: Patience,
    ) -> None:
        """Wrap a source.

        Args:
            source: What is wrapped.
            base_uri: What the URIs of its objects begin with, without a slash at its end.
            mirrors: The same of every mirror, to the mirror itself.
            fetching: The size limit.
            patience: The tries.
        """
        self._source, self._base_uri, self._mirrors = source, base_uri, mirrors
        self._fetching, self._patience = fetching, patience

    def probe(self) -> str:
        """See `Source`."""
        return self._source.probe()

    def list_objects(self) -> Listing:
        """See `Source`: the source's own listing; no mirror says what is gone."""
        return self._source.list_objects()

    def fetch(self, wanted: SourceObject) -> bytes:
        """See `Source`."""
        return self.fetch_version(wanted).data

    def fetch_version(self, wanted: SourceObject) -> Fetched:
        """See `VersionedSource`. What a listing shows as too large is not asked for."""
        check_size(wanted.uri, wanted.size_bytes, self._fetching)
        try:
            fetched = self._patience.with_retries(lambda: fetch_version(self._source, wanted))
        except SourceUnavailableError as error:
            fetched = Fetched(self._fetch_from_mirrors(wanted, error))
        check_size(wanted.uri, len(fetched.data), self._fetching)
        return fetched

    def _fetch_from_mirrors(self, wanted: SourceObject, error: SourceUnavailableError) -> bytes:
        """The bytes from the first mirror that has them; else the source's own error."""
        relative = wanted.uri.removeprefix(self._base_uri)  # empty: a source of one object
        problems: list[str] = []
        for base, mirror in self._mirrors.items():
            there = replace(wanted, uri=f"{base}{relative}", etag="", version_id="")
            try:
                data = mirror.fetch(there)
                check_length(there.uri, data, wanted.size_bytes)
                check_md5(there.uri, data, md5_of_etag(wanted.etag))
            except SourceUnavailableError as problem:
                problems.append(f"mirror {problem.service}: {problem.detail}")
            else:
                return data
        if not problems:
            raise error
        detail = "; ".join([error.detail, *problems])
        raise SourceUnavailableError(service=error.service, detail=detail, fix=error.fix) from error


class ReliablePagedSource(ReliableSource):
    """The same of a source that lists in pages."""

    def __init__(
        self,
        source: PagedSource,
        base_uri: str,
        mirrors: Mapping[str, Source],
        *,
        fetching: FetchConfig,
        patience: Patience,
    ) -> None:
        """See `ReliableSource`."""
        super().__init__(source, base_uri, mirrors, fetching=fetching, patience=patience)
        self._paged = source

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """See `PagedSource`."""
        return self._paged.pages(after)
