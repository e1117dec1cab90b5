"""Documents in a bucket of S3, or of a server that speaks its protocol.

Through boto3 rather than `obstore`, which the other object stores use: a key like `a/../b` ends a
listing of `obstore`, and only boto3 tells which checksum an object has and whether its ETag is an
MD5.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ragassets.adapters.sources.aws import ClientOpener, sdk_client, translated_errors
from ragassets.adapters.sources.integrity import check_md5, check_size
from ragassets.adapters.sources.listing_pages import gather_pages
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.adapters.sources.patience import Patience
from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.core.sources import Fetched, Listing, ListingPage, SourceObject, md5_of_etag
from ragassets.errors import ObjectGoneError, SourceUnavailableError

PAGE_SIZE = 1000
"""Keys in one answer; the store gives no more."""

BLOCK_BYTES = 1024**2

LOOK_UP_THREADS = 16
"""A look at one object waits for the network, some 20 ms."""

SAFE_IN_KEY = "/~"
"""What stays as it is in the path of a URI beside letters, digits, `_`, `.` and `-`."""

Answer = Mapping[str, Any]
"""As the SDK types none of its answers without its stubs."""


class S3Bucket:
    """The objects below a prefix of a bucket that the patterns let through.

    An object whose key ends in a slash and that is empty stands for a folder, and is left out.
    """

    def __init__(
        self,
        uri: str,
        include: Sequence[str],
        exclude: Sequence[str],
        *,
        store: ObjectStoreConfig,
        fetching: FetchConfig,
        open_client: ClientOpener | None = None,
    ) -> None:
        """Describe the bucket; nothing is sent yet.

        Args:
            uri: `s3://bucket/prefix`, or `s3://bucket/key` of one single object.
            include: Glob patterns relative to the prefix; one must match.
            exclude: Patterns of objects to leave out.
            store: Where the store is, if not where the environment says.
            fetching: Time-outs and limits.
            open_client: What gives the client, where somebody else configured it.
        """
        parts = urlsplit(uri)
        self._uri = uri.rstrip("/")
        self._bucket, self._root = parts.netloc, unquote(parts.path).strip("/")
        self._patterns = PathPatterns(include, exclude)
        self._store, self._fetching, self._open_client = store, fetching, open_client
        self._patience = Patience(fetching.retry)

    def probe(self) -> str:
        """The bucket, which can be listed.

        Raises:
            SourceUnavailableError: It cannot.
        """
        with translated_errors(self._uri):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._root, MaxKeys=1)
        return self._uri

    def list_objects(self) -> Listing:
        """All objects of now; incomplete where the store stops answering.

        Raises:
            SourceUnavailableError: Nothing can be listed.
        """
        return gather_pages(self.pages())

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """See `PagedSource`; a page is one answer of the store."""
        is_first, is_last = not after, False
        while not is_last:
            answer = self._patience.with_retries(partial(self._page, after))
            entries: Sequence[Answer] = answer.get("Contents", [])
            is_last = not answer["IsTruncated"]
            if is_first and not entries and self._root:
                yield ListingPage(self._patience.with_retries(self._single_object), self._root)
            # By the last key rather than the store's token, which a long pause outlives.
            is_first, after = False, str(entries[-1]["Key"]) if entries else after
            wanted = [self._described(entry) for entry in entries if self._is_wanted(entry)]
            yield ListingPage(wanted, after)

    def fetch(self, wanted: SourceObject) -> bytes:
        """See `fetch_version`."""
        return self.fetch_version(wanted).data

    def fetch_version(self, wanted: SourceObject) -> Fetched:
        """The bytes of the state that was listed, checked by the checksum that the store has.

        Raises:
            SourceUnavailableError: It cannot be read now, or arrived damaged.
            ChangedDuringReadError: It was overwritten since it was listed.
            OversizedDocumentError: It is larger than `max_bytes`.
        """
        request = {"Bucket": self._bucket, "Key": self._key(wanted.uri)}
        if wanted.etag:
            request["IfMatch"] = wanted.etag
        if wanted.version_id:
            request["VersionId"] = wanted.version_id
        with translated_errors(wanted.uri):
            # With a checksum the client itself verifies it while reading.
            answer = self._client.get_object(ChecksumMode="ENABLED", **request)
            # Not the body as context manager: that is the stream below it, which checks nothing.
            with closing(answer["Body"]) as body:
                check_size(wanted.uri, answer["ContentLength"], self._fetching)
                data: bytes = body.read()
        if not _is_encrypted_by_key(answer):
            check_md5(wanted.uri, data, md5_of_etag(answer["ETag"]))
        # "null" is what a bucket calls a version from before it kept any: it may be overwritten.
        version_id = str(answer.get("VersionId", ""))
        return Fetched(data, "" if version_id == "null" else version_id)

    def stream(self, wanted: SourceObject) -> Iterator[bytes]:
        """See `StreamedSource`; the length is checked, and the checksum where there is one."""
        request = {"Bucket": self._bucket, "Key": self._key(wanted.uri), "IfMatch": wanted.etag}
        with translated_errors(wanted.uri):
            answer = self._client.get_object(ChecksumMode="ENABLED", **request)
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(BLOCK_BYTES)

    @property
    def name(self) -> str:
        """Of the bucket."""
        return self._bucket

    def look_up(self, keys: Sequence[str]) -> tuple[list[SourceObject], list[str]]:
        """What the store has now under some keys: wanted objects, and URIs that are gone.

        Raises:
            SourceUnavailableError: The store does not answer, or refuses.
        """
        prefix = f"{self._root}/" if self._root else ""
        inside = [key for key in keys if key.startswith(prefix) or key == self._root]
        with ThreadPoolExecutor(LOOK_UP_THREADS) as pool:
            found = pool.map(self._patient_head, inside)
            entries = dict(zip(inside, found, strict=True))
        wanted = [entry for entry in entries.values() if entry and self._is_wanted(entry)]
        gone = [self._uri_of(key) for key, entry in entries.items() if entry is None]
        return [self._described(entry) for entry in wanted], gone

    def _patient_head(self, key: str) -> Answer | None:
        return self._patience.with_retries(partial(self._head, key))

    def _head(self, key: str) -> Answer | None:
        try:
            with translated_errors(self._uri):
                head = self._client.head_object(Bucket=self._bucket, Key=key)
        except ObjectGoneError:
            return None
        return {"Key": key, "Size": head["ContentLength"], **head}

    def _page(self, after: str) -> Answer:
        prefix = f"{self._root}/" if self._root else ""
        with translated_errors(self._uri):
            answer: Answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after, MaxKeys=PAGE_SIZE
            )
        if "IsTruncated" not in answer:
            # The SDK takes an empty body for an answer without anything in it.
            raise SourceUnavailableError(
                service=self._uri, detail="cannot be read (the answer to a listing broke off)"
            )
        return answer

    def _single_object(self) -> list[SourceObject]:
        """The object that the whole address names, if there is one."""
        entry = self._head(self._root)
        return [self._described(entry)] if entry else []

    def _is_wanted(self, entry: Answer) -> bool:
        key = str(entry["Key"])
        relative = key.removeprefix(f"{self._root}/") if self._root else key
        is_folder = key.endswith("/") and entry["Size"] == 0
        return not is_folder and self._patterns.wants(relative)

    def _described(self, entry: Answer) -> SourceObject:
        return SourceObject(
            uri=self._uri_of(str(entry["Key"])),
            etag=str(entry["ETag"]),
            size_bytes=entry["Size"],
            modified_at=entry["LastModified"],
        )

    def _uri_of(self, key: str) -> str:
        return f"s3://{self._bucket}/{quote(key, safe=SAFE_IN_KEY)}"

    def _key(self, uri: str) -> str:
        return unquote(uri.removeprefix(f"s3://{self._bucket}/"))

    @cached_property
    def _client(self) -> Any:
        with translated_errors(self._uri):
            if self._open_client is not None:
                return self._open_client()
            return sdk_client("s3", self._store, self._fetching)


def _is_encrypted_by_key(answer: Answer) -> bool:
    """Whether the ETag is no MD5, though it looks like one."""
    encryption = str(answer.get("ServerSideEncryption", ""))
    return encryption.startswith("aws:kms") or "SSECustomerAlgorithm" in answer
