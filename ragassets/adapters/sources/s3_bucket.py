"""Documents in a bucket of S3, or of a server that speaks its protocol.

Through boto3 rather than `obstore`, which the other object stores use: a key like `a/../b` ends a
listing of `obstore`, and only boto3 tells which checksum an object has and whether its ETag is an
MD5.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from ragassets.adapters.sources.integrity import check_md5, check_size
from ragassets.adapters.sources.listing_pages import gather_pages
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.adapters.sources.patience import Patience
from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.core.sources import Listing, ListingPage, SourceObject, md5_of_etag
from ragassets.errors import (
    ChangedDuringReadError,
    ObjectGoneError,
    SourceRefusedError,
    SourceUnavailableError,
)

CONNECT_SECONDS = 10.0

PAGE_SIZE = 1000
"""Keys in one answer; the store gives no more."""

MAX_CONNECTIONS = 16
"""Twice the threads that fetch, so that none waits for a connection."""

SAFE_IN_KEY = "/~"
"""What stays as it is in the path of a URI beside letters, digits, `_`, `.` and `-`."""

REFUSALS = {
    "NoSuchBucket": "Mend the bucket's name in the source's uri",
    "AccessDenied": "Let these credentials list the bucket and get its objects",
    "403": "Let these credentials list the bucket and get its objects",
    "InvalidAccessKeyId": "Mend the credentials in the environment",
    "SignatureDoesNotMatch": "Mend the credentials in the environment",
    "ExpiredToken": "Renew the credentials in the environment",
    "InvalidObjectState": "It is archived: restore it in the store, or exclude it",
    "PermanentRedirect": "Set the region that the bucket is in: `store: {region: …}`",
    "NoCredentialsError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `store: {anonymous:"
    " true}` for a public bucket",
    "ProfileNotFound": "Mend the profile in `store`",
    "InvalidRegionError": "Mend the region in `store`",
}
"""What a person has to mend, by the code of the store or the name of the SDK's error. Source:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList"""

GONE = frozenset({"NoSuchKey", "404"})
CHANGED = frozenset({"PreconditionFailed", "412"})

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
    ) -> None:
        """Describe the bucket; nothing is sent yet.

        Args:
            uri: `s3://bucket/prefix`, or `s3://bucket/key` of one single object.
            include: Glob patterns relative to the prefix; one must match.
            exclude: Patterns of objects to leave out.
            store: Where the store is, if not where the environment says.
            fetching: Time-outs and limits.
        """
        parts = urlsplit(uri)
        self._uri = uri.rstrip("/")
        self._bucket, self._root = parts.netloc, unquote(parts.path).strip("/")
        self._patterns = PathPatterns(include, exclude)
        self._store, self._fetching = store, fetching
        self._patience = Patience(fetching.retry)

    def probe(self) -> str:
        """The bucket, which can be listed.

        Raises:
            SourceUnavailableError: It cannot.
        """
        with self._translated_errors(self._uri):
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
        """The bytes of the state that was listed, checked by the checksum that the store has.

        Raises:
            SourceUnavailableError: It cannot be read now, or arrived damaged.
            ChangedDuringReadError: It was overwritten since it was listed.
            OversizedDocumentError: It is larger than `max_bytes`.
        """
        request = {"Bucket": self._bucket, "Key": self._key(wanted.uri)}
        if wanted.etag:
            request["IfMatch"] = wanted.etag
        with self._translated_errors(wanted.uri):
            # With a checksum the client itself verifies it while reading.
            answer = self._client.get_object(ChecksumMode="ENABLED", **request)
            with answer["Body"] as body:
                check_size(wanted.uri, answer["ContentLength"], self._fetching)
                data: bytes = body.read()
        if not _is_encrypted_by_key(answer):
            check_md5(wanted.uri, data, md5_of_etag(answer["ETag"]))
        return data

    def _page(self, after: str) -> Answer:
        prefix = f"{self._root}/" if self._root else ""
        with self._translated_errors(self._uri):
            return self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after, MaxKeys=PAGE_SIZE
            )

    def _single_object(self) -> list[SourceObject]:
        """The object that the whole address names, if there is one."""
        try:
            with self._translated_errors(self._uri):
                head = self._client.head_object(Bucket=self._bucket, Key=self._root)
        except ObjectGoneError:
            return []
        return [self._described({"Key": self._root, "Size": head["ContentLength"], **head})]

    def _is_wanted(self, entry: Answer) -> bool:
        key = str(entry["Key"])
        relative = key.removeprefix(f"{self._root}/") if self._root else key
        is_folder = key.endswith("/") and entry["Size"] == 0
        return not is_folder and self._patterns.wants(relative)

    def _described(self, entry: Answer) -> SourceObject:
        return SourceObject(
            uri=f"s3://{self._bucket}/{quote(str(entry['Key']), safe=SAFE_IN_KEY)}",
            etag=str(entry["ETag"]),
            size_bytes=entry["Size"],
            modified_at=entry["LastModified"],
        )

    def _key(self, uri: str) -> str:
        return unquote(uri.removeprefix(f"s3://{self._bucket}/"))

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=self._fetching.timeout_seconds,
            max_pool_connections=MAX_CONNECTIONS,
            # Tries are ours (`Patience`): the SDK's own would multiply them.
            retries={"mode": "standard", "total_max_attempts": 1},
            signature_version=UNSIGNED if self._store.anonymous else None,
        )
        with self._translated_errors(self._uri):
            session = cast("Any", boto3.Session(profile_name=self._store.profile))
            return session.client(
                "s3",
                endpoint_url=self._store.endpoint,
                region_name=self._store.region,
                config=config,
            )

    @contextmanager
    def _translated_errors(self, subject: str) -> Generator[None]:
        """Turn the errors of the SDK into ours."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            code = str(cast("Answer", error.response)["Error"].get("Code", "no code"))
            if code in CHANGED:
                raise ChangedDuringReadError(uri=subject) from error
            if code in GONE:
                raise ObjectGoneError(uri=subject) from error
            raise _unavailable(subject, code, f"the store says {code}") from error
        except (BotoCoreError, HTTPError, OSError) as error:
            # `HTTPError`: a body that breaks off reaches us past the SDK. The text of all of them
            # is left out: it may repeat a signed URL.
            name = type(error).__name__
            raise _unavailable(subject, name, f"cannot be read ({name})") from error


def _unavailable(subject: str, code: str, detail: str) -> SourceUnavailableError:
    if fix := REFUSALS.get(code):
        return SourceRefusedError(service=subject, detail=detail, fix=fix)
    return SourceUnavailableError(service=subject, detail=detail)


def _is_encrypted_by_key(answer: Answer) -> bool:
    """Whether the ETag is no MD5, though it looks like one."""
    encryption = str(answer.get("ServerSideEncryption", ""))
    return encryption.startswith("aws:kms") or "SSECustomerAlgorithm" in answer
