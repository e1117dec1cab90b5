"""Documents in Google Cloud Storage or Azure Blob Storage, through `obstore`.

A key with an empty, `.` or `..` segment cannot be listed by that library: the listing breaks off
there and says so.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urlsplit

from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, from_url

from ragassets.adapters.object_storage import one_line
from ragassets.adapters.sources.integrity import check_length, check_size
from ragassets.adapters.sources.listing_pages import gather_pages
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.core.sources import Listing, ListingPage, SourceObject
from ragassets.errors import (
    ChangedDuringReadError,
    ObjectGoneError,
    SourceRefusedError,
    SourceUnavailableError,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureConfig

PAGE_SIZE = 1000

SAFE_IN_KEY = "/~"

ANONYMOUS = cast("AzureConfig", {"skip_signature": "true"})
"""Of every store alike, whatever the type says."""


class ObjectStoreSource:
    """The objects below a prefix of a bucket or container that the patterns let through."""

    def __init__(
        self,
        uri: str,
        include: Sequence[str],
        exclude: Sequence[str],
        *,
        store: ObjectStoreConfig,
        fetching: FetchConfig,
    ) -> None:
        """Describe the bucket; nothing is sent yet.

        Args:
            uri: `gs://bucket/prefix` or `az://container/prefix`.
            include: Glob patterns relative to the prefix; one must match.
            exclude: Patterns of objects to leave out.
            store: Only `anonymous` is looked at; all else says the environment.
            fetching: Time-outs and limits.
        """
        parts = urlsplit(uri)
        self._uri = uri.rstrip("/")
        self._bucket = f"{parts.scheme}://{parts.netloc}"
        self._root = unquote(parts.path).strip("/")
        self._patterns = PathPatterns(include, exclude)
        self._config, self._fetching = store, fetching

    def probe(self) -> str:
        """The bucket, which can be listed.

        Raises:
            SourceUnavailableError: It cannot.
        """
        with self._translated_errors(self._uri):
            next(iter(self._store.list(self._root or None, chunk_size=1)), None)
        return self._uri

    def list_objects(self) -> Listing:
        """All objects of now; incomplete where the store stops answering.

        Raises:
            SourceUnavailableError: Nothing can be listed.
        """
        return gather_pages(self.pages())

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """See `PagedSource`."""
        is_empty = True
        with self._translated_errors(self._uri):
            listed = self._store.list(
                self._root or None, offset=after or None, chunk_size=PAGE_SIZE
            )
            for page in listed:
                is_empty = False
                wanted = [self._described(meta) for meta in page if self._is_wanted(meta)]
                yield ListingPage(wanted, page[-1]["path"])
        if is_empty and self._root and not after:
            yield ListingPage(self._single_object(), self._root)

    def fetch(self, wanted: SourceObject) -> bytes:
        """The bytes of the state that was listed.

        Raises:
            SourceUnavailableError: It cannot be read now, or arrived damaged.
            ChangedDuringReadError: It was overwritten since it was listed.
            OversizedDocumentError: It is larger than `max_bytes`.
        """
        path = unquote(wanted.uri.removeprefix(f"{self._bucket}/"))
        with self._translated_errors(wanted.uri):
            answer = self._store.get(path)
            if _is_newer(answer.meta, wanted):
                raise ChangedDuringReadError(uri=wanted.uri)
            n_bytes = answer.meta["size"]
            check_size(wanted.uri, n_bytes, self._fetching)
            data = bytes(answer.bytes())
        check_length(wanted.uri, data, n_bytes)
        return data

    def _single_object(self) -> list[SourceObject]:
        """The object that the whole address names, if there is one."""
        try:
            with self._translated_errors(self._uri):
                return [self._described(self._store.head(self._root))]
        except ObjectGoneError:
            return []

    def _is_wanted(self, meta: "ObjectMeta") -> bool:
        return self._patterns.wants(meta["path"].removeprefix(f"{self._root}/"))

    def _described(self, meta: "ObjectMeta") -> SourceObject:
        return SourceObject(
            uri=f"{self._bucket}/{quote(meta['path'], safe=SAFE_IN_KEY)}",
            etag=meta["e_tag"] or meta["last_modified"].isoformat(),
            size_bytes=meta["size"],
            modified_at=meta["last_modified"],
        )

    @cached_property
    def _store(self) -> ObjectStore:
        retry = self._fetching.retry
        with self._translated_errors(self._uri):
            return from_url(
                self._bucket,
                config=ANONYMOUS if self._config.anonymous else None,
                retry_config={
                    # Tries of whole objects are `Patience`'s; a listing has only these.
                    "max_retries": retry.attempts - 1,
                    "retry_timeout": timedelta(seconds=self._fetching.timeout_seconds),
                },
            )

    @contextmanager
    def _translated_errors(self, subject: str) -> Generator[None]:
        """Turn the errors of the library into ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectGoneError(uri=subject) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise SourceRefusedError(
                service=subject,
                detail=one_line(error),
                fix="Let these credentials list the bucket and get its objects",
            ) from error
        except (BaseError, OSError) as error:
            raise SourceUnavailableError(service=subject, detail=one_line(error)) from error


def _is_newer(now: "ObjectMeta", listed: SourceObject) -> bool:
    """Whether an object was overwritten since it was listed.

    By both, because a store may write one ETag in two ways, and a mirror has times of its own.
    """
    etag = (now["e_tag"] or "").strip('"')
    is_other = bool(listed.etag) and etag != listed.etag.strip('"')
    return is_other and now["last_modified"] != listed.modified_at
