"""Documents in Google Cloud Storage or Azure Blob Storage, through `obstore`.

A key with an empty, `.` or `..` segment cannot be listed by that library: the listing breaks off
there and says so.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urlsplit

from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import ObjectStore, from_url

from ragassets.adapters.object_storage import one_line
from ragassets.adapters.sources.integrity import check_length, check_size
from ragassets.adapters.sources.listing_pages import gather_pages
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.core.sources import Fetched, Listing, ListingPage, SourceObject
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

BLOCK_BYTES = 1024**2

SAFE_IN_KEY = "/~"

ENDPOINT_SETTING = MappingProxyType({"gs": "base_url", "az": "endpoint"})

REFUSED_STATUSES: Mapping[str, str] = MappingProxyType(
    {
        "401": "Mend the credentials in the environment",
        "403": "Let these credentials list the bucket or container and get its objects",
        "404": "Mend the bucket's or container's name in the source's uri",
    }
)
REFUSED_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "Invalid Access Key": "Mend AZURE_STORAGE_ACCOUNT_KEY in the environment",
        "token request": "Set the store's credentials in the environment (`AZURE_…`, `GOOGLE_…`),"
        " or `store: {anonymous: true}` if it is public",
        "Account must be specified": "Set AZURE_STORAGE_ACCOUNT_NAME in the environment",
    }
)
"""What a person has to mend, by the status of the answer and by what the library says."""

LONGEST_FETCH = timedelta(hours=1)
"""Of one object in a row: 512 MiB at 150 kB a second. The library's own limit is 30 s."""

_STATUS = re.compile(r"status code: (\d{3})\b")
_ODD_KEY = "Rename or remove that object: until then nothing of this source is deleted"


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
            store: Another endpoint, and whether requests are signed; all else says the environment.
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
                # A store may begin at the offset, or before it: Azurite knows none.
                behind = [meta for meta in page if meta["path"] > after]
                wanted = [self._described(meta) for meta in behind if self._is_wanted(meta)]
                if behind:
                    yield ListingPage(wanted, page[-1]["path"])
        if is_empty and self._root and not after:
            yield ListingPage(self._single_object(), self._root)

    def fetch(self, wanted: SourceObject) -> bytes:
        """See `fetch_version`."""
        return self.fetch_version(wanted).data

    def fetch_version(self, wanted: SourceObject) -> Fetched:
        """The bytes of the state that was listed; an earlier version cannot be asked for.

        Raises:
            SourceUnavailableError: It cannot be read now, or arrived damaged.
            ChangedDuringReadError: It was overwritten since it was listed.
            OversizedDocumentError: It is larger than `max_bytes`.
        """
        path = unquote(wanted.uri.removeprefix(f"{self._bucket}/"))
        with self._translated_errors(wanted.uri):
            answer = self._store_of_one_try.get(path)
            if _is_newer(answer.meta, wanted):
                raise ChangedDuringReadError(uri=wanted.uri)
            n_bytes = answer.meta["size"]
            check_size(wanted.uri, n_bytes, self._fetching)
            data = bytes(answer.bytes())
        check_length(wanted.uri, data, n_bytes)
        return Fetched(data, answer.meta["version"] or "")

    def stream(self, wanted: SourceObject) -> Iterator[bytes]:
        """See `StreamedSource`; the length is checked."""
        path = unquote(wanted.uri.removeprefix(f"{self._bucket}/"))
        with self._translated_errors(wanted.uri):
            answer = self._store_of_one_try.get(path)
            if _is_newer(answer.meta, wanted):
                raise ChangedDuringReadError(uri=wanted.uri)
            n_bytes = 0
            for block in answer.stream(min_chunk_size=BLOCK_BYTES):
                n_bytes += len(block)
                yield bytes(block)
        if n_bytes != answer.meta["size"]:
            raise SourceUnavailableError(service=wanted.uri, detail="arrived cut short")

    def _single_object(self) -> list[SourceObject]:
        """The object that the whole address names, if there is one."""
        try:
            with self._translated_errors(self._uri):
                return [self._described(self._store.head(self._root))]
        except ObjectGoneError:
            return []

    def _is_wanted(self, meta: "ObjectMeta") -> bool:
        path = meta["path"].removeprefix(f"{self._root}/")
        # The library takes the slash off `folder/`, which stands for a folder and is empty.
        is_folder = meta["size"] == 0 and "." not in path.rpartition("/")[2]
        return not is_folder and self._patterns.wants(path)

    def _described(self, meta: "ObjectMeta") -> SourceObject:
        return SourceObject(
            uri=f"{self._bucket}/{quote(meta['path'], safe=SAFE_IN_KEY)}",
            etag=meta["e_tag"] or meta["last_modified"].isoformat(),
            size_bytes=meta["size"],
            modified_at=meta["last_modified"],
        )

    @cached_property
    def _store(self) -> ObjectStore:
        return self._opened(n_retries=self._fetching.retry.attempts - 1)

    @cached_property
    def _store_of_one_try(self) -> ObjectStore:
        """For whole objects: their tries are `Patience`'s, which would multiply."""
        return self._opened(n_retries=0)

    def _opened(self, *, n_retries: int) -> ObjectStore:
        timeout = timedelta(seconds=self._fetching.timeout_seconds)
        endpoint, scheme = self._config.endpoint, urlsplit(self._bucket).scheme
        settings = {"skip_signature": "true"} if self._config.anonymous else {}
        if endpoint:
            settings[ENDPOINT_SETTING[scheme]] = endpoint
        with self._translated_errors(self._uri):
            return from_url(
                self._bucket,
                # Of every store alike, whatever the types say.
                config=cast("AzureConfig", settings),
                # Any option here makes the library forget those of the environment.
                client_options={
                    "allow_http": bool(endpoint) and endpoint.startswith("http://"),
                    "read_timeout": timeout,
                    "timeout": LONGEST_FETCH,
                },
                retry_config={"max_retries": n_retries, "retry_timeout": timeout},
            )

    @contextmanager
    def _translated_errors(self, subject: str) -> Generator[None]:
        """Turn the errors of the library into ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectGoneError(uri=subject) from error
        except InvalidPathError as error:
            raise SourceUnavailableError(
                service=subject, detail=one_line(error), fix=_ODD_KEY
            ) from error
        except (BaseError, OSError) as error:
            raise _unavailable(subject, one_line(error)) from error


def _unavailable(subject: str, detail: str) -> SourceUnavailableError:
    fix = next((fix for piece, fix in REFUSED_SETTINGS.items() if piece in detail), None)
    status = _STATUS.search(detail)
    if fix := fix or (REFUSED_STATUSES.get(status[1]) if status else None):
        return SourceRefusedError(service=subject, detail=detail, fix=fix)
    return SourceUnavailableError(service=subject, detail=detail)


def _is_newer(now: "ObjectMeta", listed: SourceObject) -> bool:
    """Whether an object was overwritten since it was listed; a mirror has ETags of its own.

    Not by time: stores tell whole seconds.
    """
    return bool(listed.etag) and _bare(now["e_tag"]) != _bare(listed.etag)


def _bare(etag: str | None) -> str:
    """An ETag without quotes and weakness: a store may write one in two ways."""
    return (etag or "").removeprefix("W/").strip('"')
