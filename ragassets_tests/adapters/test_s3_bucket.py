"""A bucket of S3 as a source, against a server on loopback that fails on demand."""

import dataclasses
from collections.abc import Iterator

import pytest

from ragassets.adapters.sources import s3_bucket
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.registry import open_source
from ragassets.adapters.sources.reliable_source import ReliableSource
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.config import SourceConfig
from ragassets.core.settings import RetryConfig
from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.core.sources import Source, SourceObject, VersionedSource
from ragassets.errors import (
    SourceRefusedError,
    SourceUnavailableError,
)
from ragassets_tests.s3_server import BUCKET, Fault, S3Server, running_s3

NO_BODIES = LandedBodies(
    "handbook", lambda: pytest.fail("objects are fetched, not landed"), frozenset[str]
)
NO_CRAWLS = CrawlMemory(lambda: pytest.fail("nothing is crawled"), "handbook")
QUICK = FetchConfig(
    retry=RetryConfig(attempts=4, first_wait_seconds=0.0, jitter_seconds=0.0),
    timeout_seconds=5,
    max_bytes=10_000,
)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket."""
    with running_s3(monkeypatch) as server:
        yield server


def source(uri: str = f"s3://{BUCKET}/docs", **keys: object) -> Source:
    """A source with the settings of a test."""
    config = SourceConfig.model_validate({"uri": uri, "fetch": QUICK, **keys})
    return open_source(config, NO_BODIES, NO_CRAWLS)


def listed(source: Source) -> dict[str, SourceObject]:
    """A complete listing by the path below the prefix."""
    listing = source.list_objects()
    assert listing.is_complete, listing.message
    return {entry.uri.removeprefix(f"s3://{BUCKET}/docs/"): entry for entry in listing.objects}


class TestListing:
    @pytest.mark.parametrize("path", ["x//y.md", "./z.md", "a/../b.md"])
    def test_keys_that_are_no_paths_can_be_listed_and_fetched(
        self, s3: S3Server, path: str
    ) -> None:
        """S3 takes them; other stores end the listing there (see the contract's keys)."""
        s3.put(f"docs/{path}", f"text of {path}")
        s3.put("docs/zzz.md", "after it")
        found = listed(source(include=["**", "**/.*/**"]))
        assert set(found) == {path, "zzz.md"}
        assert source().fetch(found[path]) == f"text of {path}".encode()

    def test_a_listing_of_many_pages_is_whole(
        self, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store gives 1,000 keys at a time; here 3."""
        monkeypatch.setattr(s3_bucket, "PAGE_SIZE", 3)
        for number in range(7):
            s3.put(f"docs/{number}.md", "x")
        s3.requests.clear()
        assert set(listed(source())) == {f"{number}.md" for number in range(7)}
        assert s3.count("list-type=2") == 3

    def test_an_empty_prefix_is_a_complete_listing_of_nothing(self, s3: S3Server) -> None:
        """Whether everything may vanish is the guard's question, not the listing's."""
        listing = source().list_objects()
        assert (list(listing.objects), listing.is_complete) == ([], True)
        assert s3.count("list-type=2") == 1

    def test_a_store_that_stops_in_the_middle_gives_an_incomplete_listing(
        self, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half a listing must not delete the other half."""
        monkeypatch.setattr(s3_bucket, "PAGE_SIZE", 3)
        for number in range(4):
            s3.put(f"docs/{number}.md", "x")
        s3.faults.append(Fault("start-after=docs%2F", status=503))
        listing = source().list_objects()
        assert (len(listing.objects), listing.is_complete) == (3, False)
        assert "broke off after 3 objects" in listing.message

    def test_a_bucket_that_is_not_there_is_named_with_the_way_out(self, s3: S3Server) -> None:
        """Waiting does not help; a person has to mend the address."""
        s3.requests.clear()
        with pytest.raises(SourceRefusedError, match=r"NoSuchBucket.*Mend the bucket's name"):
            source("s3://nobody/docs").list_objects()
        assert len(s3.requests) == 1

    def test_a_store_that_cannot_be_reached_is_unavailable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing follows from a listing that there is not."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        away = source(store=ObjectStoreConfig(endpoint="http://127.0.0.1:9", region="us-east-1"))
        with pytest.raises(SourceUnavailableError, match="EndpointConnectionError") as caught:
            away.list_objects()
        assert "test-secret" not in str(caught.value)

    def test_missing_credentials_are_named(
        self, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A public bucket needs none, if the configuration says so."""
        s3.put("docs/a.md", "hello")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(SourceRefusedError, match="AWS_ACCESS_KEY_ID"):
            source().list_objects()
        assert set(listed(source(store=ObjectStoreConfig(anonymous=True)))) == {"a.md"}


class TestFetching:
    @pytest.mark.parametrize("spoil", [lambda data: data[:-2], lambda data: b"X" + data[1:]])
    @pytest.mark.parametrize("checksum", [{}, {"ChecksumAlgorithm": "SHA256"}])
    def test_damaged_bytes_are_fetched_again_and_never_taken(
        self, s3: S3Server, spoil: object, checksum: dict[str, str]
    ) -> None:
        """Cut short or flipped, with the store's own checksum or the ETag alone."""
        s3.put("docs/a.md", "hello world", **checksum)
        (entry,) = source().list_objects().objects
        s3.faults.append(Fault("docs/a.md", spoil=spoil, n_times=2))  # pyright: ignore[reportArgumentType]
        assert source().fetch(entry) == b"hello world"
        s3.faults.append(Fault("docs/a.md", spoil=spoil))  # pyright: ignore[reportArgumentType]
        with pytest.raises(SourceUnavailableError):
            source().fetch(entry)

    def test_an_etag_of_an_encrypted_object_is_not_taken_for_its_md5(self, s3: S3Server) -> None:
        """Under a key of KMS the ETag looks like an MD5 and is none."""
        s3.put("docs/a.md", "hello", ServerSideEncryption="aws:kms", SSEKMSKeyId="key")
        (entry,) = source().list_objects().objects
        assert source().fetch(entry) == b"hello"

    def test_the_version_of_a_versioned_bucket_is_told_and_can_be_fetched(
        self, s3: S3Server
    ) -> None:
        """The id says which bytes a row was made from, and gets them back after an overwrite."""
        s3.put("docs/old.md", "before")
        s3.client().put_bucket_versioning(
            Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"}
        )
        s3.put("docs/a.md", "first")
        one = source()
        found = listed(one)
        assert isinstance(one, VersionedSource)
        fetched = one.fetch_version(found["a.md"])
        assert (fetched.data, len(fetched.version_id) > 8) == (b"first", True)
        # "null" names whatever was there before versions were kept.
        assert one.fetch_version(found["old.md"]).version_id == ""
        s3.put("docs/a.md", "second")
        first = dataclasses.replace(found["a.md"], version_id=fetched.version_id)
        assert one.fetch(first) == b"first"
        gone = dataclasses.replace(found["a.md"], version_id="0" * 32)
        with pytest.raises(SourceUnavailableError):
            one.fetch(gone)

    def test_the_checksum_of_the_store_is_enough_where_the_etag_is_no_md5(
        self, s3: S3Server
    ) -> None:
        """As under a key of KMS, or after an upload in parts."""
        kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key"}
        s3.put("docs/a.md", "hello world", ChecksumAlgorithm="SHA256", **kms)
        (entry,) = source().list_objects().objects
        assert source().fetch(entry) == b"hello world"
        s3.faults.append(Fault("docs/a.md", spoil=lambda data: b"X" + data[1:]))
        with pytest.raises(SourceUnavailableError):
            source().fetch(entry)

    def test_a_mirror_gives_what_the_source_cannot(self, s3: S3Server) -> None:
        """Its bytes count only if they are the listed ones."""
        s3.put("docs/a.md", "hello")
        s3.put("docs/b.md", "right")
        s3.put("copy/a.md", "hello")
        s3.put("copy/b.md", "stale")
        mirrored = source(mirrors=[f"s3://{BUCKET}/nowhere", f"s3://{BUCKET}/copy"])
        assert isinstance(mirrored, ReliableSource)
        found = listed(mirrored)
        s3.faults.append(Fault("/docs/", status=500))
        assert mirrored.fetch(found["a.md"]) == b"hello"
        with pytest.raises(SourceUnavailableError, match=r"copy/b\.md: arrived damaged: its MD5"):
            mirrored.fetch(found["b.md"])


def test_the_bucket_is_probed_with_one_small_request(s3: S3Server) -> None:
    """`doctor` asks for it."""
    s3.requests.clear()
    assert source().probe() == f"s3://{BUCKET}/docs"
    assert s3.count("max-keys=1") == 1
