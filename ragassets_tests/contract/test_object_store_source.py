"""What holds of every object store as a source: S3 (moto), Azure (azurite), Google (fake-gcs)."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from ragassets.adapters.sources import object_store, s3_bucket
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.registry import open_source
from ragassets.adapters.sources.reliable_source import ReliableSource
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.config import SourceConfig
from ragassets.core.settings import RetryConfig
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import PagedSource, Source, SourceObject
from ragassets.errors import (
    ChangedDuringReadError,
    ObjectGoneError,
    OversizedDocumentError,
    SourceRefusedError,
    SourceUnavailableError,
)
from ragassets_tests.blob_servers import (
    AzureServer,
    GoogleServer,
    fresh_container,
    running_azurite,
    running_fake_gcs,
)
from ragassets_tests.faulty_server import Fault
from ragassets_tests.s3_server import S3Server, running_s3

NO_BODIES = LandedBodies(
    "handbook", lambda: pytest.fail("objects are fetched, not landed"), frozenset[str]
)
NO_CRAWLS = CrawlMemory(lambda: pytest.fail("nothing is crawled"), "handbook")
QUICK = FetchConfig(
    retry=RetryConfig(attempts=4, first_wait_seconds=0.0, jitter_seconds=0.0),
    timeout_seconds=5,
    max_bytes=10_000,
)

Server = S3Server | AzureServer | GoogleServer


@pytest.fixture(scope="module")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One Azurite for all tests."""
    with running_azurite(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture(scope="module")
def gcs_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One fake-gcs-server for all tests."""
    with running_fake_gcs(tmp_path_factory.mktemp("gcs")) as port:
        yield port


@pytest.fixture(params=["s3", "az", "gs"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with an empty bucket."""
    with ExitStack() as stack:
        if request.param == "s3":
            yield stack.enter_context(running_s3(monkeypatch))
        elif request.param == "az":
            port = request.getfixturevalue("azurite_port")
            yield stack.enter_context(fresh_container(AzureServer(), port, monkeypatch))
        else:
            port = request.getfixturevalue("gcs_port")
            yield stack.enter_context(fresh_container(GoogleServer(), port, monkeypatch))


def source(server: Server, path: str = "/docs", **keys: object) -> Source:
    """A source with the settings of a test."""
    endpoint = server.url if isinstance(server, S3Server) else server.endpoint
    uri = path if "://" in path else server.bucket_uri + path
    settings = {"uri": uri, "fetch": QUICK, "store": {"endpoint": endpoint}, **keys}
    return open_source(SourceConfig.model_validate(settings), NO_BODIES, NO_CRAWLS)


def anonymous(server: Server) -> Source:
    """The same without a signature."""
    endpoint = server.url if isinstance(server, S3Server) else server.endpoint
    return source(server, store={"endpoint": endpoint, "anonymous": True})


def listed(source: Source) -> dict[str, SourceObject]:
    """A complete listing by the path below the prefix."""
    listing = source.list_objects()
    assert listing.is_complete, listing.message
    return {entry.uri.split("/docs/", 1)[1]: entry for entry in listing.objects}


class TestListing:
    def test_objects_below_the_prefix_are_listed_with_what_changes_when_they_do(
        self, server: Server
    ) -> None:
        """A neighbour whose name begins alike is not below."""
        server.put("docs/a.md", "hello")
        server.put("docs-old/b.md", "neighbour")
        (entry,) = source(server).list_objects().objects
        assert entry.uri == f"{server.bucket_uri}/docs/a.md"
        assert entry.size_bytes == 5
        assert abs((datetime.now(UTC) - entry.modified_at).total_seconds()) < 60
        server.put("docs/a.md", "other")
        assert listed(source(server))["a.md"].etag != entry.etag

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("with space.md", "with%20space.md"),
            ("ümlaut+plus.md", "%C3%BCmlaut%2Bplus.md"),
            ("100%25.md", "100%2525.md"),
            ("a#b?c.md", "a%23b%3Fc.md"),
            ("ends in space /x.md", "ends%20in%20space%20/x.md"),
            ("x~y=&'().md", "x~y%3D%26%27%28%29.md"),
        ],
    )
    def test_any_key_can_be_listed_and_fetched(self, server: Server, key: str, path: str) -> None:
        """Keys are any text; one odd one must not end the listing."""
        server.put(f"docs/{key}", f"text of {key}")
        server.put("docs/zzz.md", "after it")
        found = listed(source(server))
        assert set(found) == {path, "zzz.md"}
        assert source(server).fetch(found[path]) == f"text of {key}".encode()

    def test_patterns_decide_and_folder_markers_are_left_out(self, server: Server) -> None:
        """Consoles create empty objects that end in a slash."""
        for key in ("docs/a.md", "docs/b.txt", "docs/c/d.md", "docs/.git/config"):
            server.put(key, "text")
        server.put("docs/c/", "")
        assert set(listed(source(server))) == {"a.md", "b.txt", "c/d.md"}
        only = source(server, include=["**/*.md"], exclude=["c/**"])
        assert set(listed(only)) == {"a.md"}

    def test_a_listing_of_many_pages_is_whole_and_goes_on_behind_any_of_them(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store gives 1,000 or 5,000 keys at a time; here 3."""
        for module in (s3_bucket, object_store):
            monkeypatch.setattr(module, "PAGE_SIZE", 3)
        for number in range(7):
            server.put(f"docs/{number}.md", "x")
        paged = source(server)
        assert set(listed(paged)) == {f"{number}.md" for number in range(7)}
        assert isinstance(paged, PagedSource)
        first = next(iter(paged.pages()))
        assert first.last_key == "docs/2.md"
        rest = [entry.uri for page in paged.pages(first.last_key) for entry in page.objects]
        assert rest == [f"{server.bucket_uri}/docs/{number}.md" for number in range(3, 7)]

    def test_one_object_can_be_a_source(self, server: Server) -> None:
        """An address without a pattern may name the one file that matters."""
        server.put("docs/a.md", "hello")
        single = source(server, "/docs/a.md")
        (entry,) = single.list_objects().objects
        assert entry.uri == f"{server.bucket_uri}/docs/a.md"
        assert single.fetch(entry) == b"hello"

    def test_an_empty_prefix_is_a_complete_listing_of_nothing(self, server: Server) -> None:
        """Whether everything may vanish is the guard's question, not the listing's."""
        listing = source(server).list_objects()
        assert (list(listing.objects), listing.is_complete) == ([], True)

    def test_a_page_that_fails_for_a_moment_is_asked_for_again(self, server: Server) -> None:
        """A 503 is how stores say `slow down`."""
        server.put("docs/a.md", "hello")
        server.faults.append(Fault(server.listing, status=503, n_times=3))
        assert set(listed(source(server))) == {"a.md"}

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_store_that_does_not_answer_is_unavailable(self, server: Server, status: int) -> None:
        """Nothing follows from a listing that there is not."""
        server.faults.append(Fault(server.listing, status=status))
        with pytest.raises(SourceUnavailableError) as caught:
            source(server).list_objects()
        assert not isinstance(caught.value, SourceRefusedError)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_store_that_says_no_is_not_asked_again(self, server: Server, status: int) -> None:
        """An expired token: waiting does not help, and nothing is deleted."""
        server.faults.append(Fault(server.listing, status=status))
        with pytest.raises(SourceUnavailableError) as caught:
            source(server).list_objects()
        if status == 403 or not isinstance(server, S3Server):
            assert isinstance(caught.value, SourceRefusedError)
            assert server.count(server.listing) == 1

    def test_a_bucket_that_is_not_there_is_named_with_the_way_out(self, server: Server) -> None:
        """Waiting does not help; a person has to mend the address."""
        if isinstance(server, GoogleServer):  # the emulator says 500 where Google says 404
            server.faults.append(Fault(server.listing, status=404))
        scheme = server.bucket_uri.split(":")[0]
        with pytest.raises(SourceRefusedError, match=r"://nobody/docs.*Mend the bucket's"):
            source(server, f"{scheme}://nobody/docs").list_objects()
        assert server.count(server.listing) == 1

    def test_a_store_that_cannot_be_reached_is_unavailable(self, server: Server) -> None:
        """No secret is in the message."""
        away = source(server, store={"endpoint": "http://127.0.0.1:9", "region": "us-east-1"})
        with pytest.raises(SourceUnavailableError) as caught:
            away.list_objects()
        assert not isinstance(caught.value, SourceRefusedError)
        assert "test-secret" not in str(caught.value)
        assert "Eby8vdM02" not in str(caught.value)


class TestFetching:
    def test_the_listed_state_is_fetched_or_none(self, server: Server) -> None:
        """New bytes under the old ETag would look unchanged; the clock of a store may stand."""
        server.put("docs/a.md", "hello")
        (entry,) = source(server).list_objects().objects
        server.put("docs/a.md", "changed")
        with pytest.raises(ChangedDuringReadError):
            source(server).fetch(entry)

    def test_an_object_that_is_gone_is_not_waited_for(self, server: Server) -> None:
        """The next listing says so."""
        server.put("docs/a.md", "hello")
        (entry,) = source(server).list_objects().objects
        server.delete("docs/a.md")
        server.requests.clear()
        with pytest.raises(ObjectGoneError):
            source(server).fetch(entry)
        assert len(server.requests) == 1

    def test_bytes_that_are_cut_short_are_fetched_again_and_never_taken(
        self, server: Server
    ) -> None:
        """A connection that breaks off in the middle."""
        server.put("docs/a.md", "hello world")
        (entry,) = source(server).list_objects().objects
        path = "/docs/a"
        server.faults.append(Fault(path, spoil=lambda data: data[:-2], n_times=2))
        assert source(server).fetch(entry) == b"hello world"
        server.faults.append(Fault(path, spoil=lambda data: data[:-2]))
        with pytest.raises(SourceUnavailableError):
            source(server).fetch(entry)

    def test_what_is_too_large_is_a_dead_letter_and_not_fetched(self, server: Server) -> None:
        """Eight of them at a time lie in memory."""
        server.put("docs/a.md", b"x" * 10_001)
        (entry,) = source(server).list_objects().objects
        server.requests.clear()
        with pytest.raises(OversizedDocumentError, match=r"10,001 bytes.*max_bytes 10,000"):
            source(server).fetch(entry)
        assert server.requests == []

    def test_a_source_that_is_down_is_not_waited_for_with_every_object(
        self, server: Server
    ) -> None:
        """Ten thousand objects with four tries each would keep a run for hours."""
        for number in range(12):
            server.put(f"docs/{number:02d}.md", "hello")
        one = source(server)
        entries = sorted(listed(one).items())
        server.faults.append(Fault("docs/", status=500))
        server.requests.clear()
        for _, entry in entries:
            with pytest.raises(SourceUnavailableError):
                one.fetch(entry)
        assert len(server.requests) == 8 * 4 + 4 * 1
        server.faults.clear()
        assert one.fetch(entries[0][1]) == b"hello"

    def test_a_mirror_gives_what_the_source_cannot(self, server: Server) -> None:
        """Its bytes count only if they are as long as the listed ones."""
        server.put("docs/a.md", "hello")
        server.put("docs/b.md", "right")
        server.put("copy/a.md", "hello")
        server.put("copy/b.md", "too long")
        base = server.bucket_uri
        mirrored = source(server, mirrors=[f"{base}/nowhere", f"{base}/copy"])
        assert isinstance(mirrored, ReliableSource)
        found = listed(mirrored)
        server.faults.append(Fault("/docs/", status=500))
        assert mirrored.fetch(found["a.md"]) == b"hello"
        with pytest.raises(SourceUnavailableError, match=r"copy/b\.md: arrived damaged"):
            mirrored.fetch(found["b.md"])


def test_the_bucket_is_probed_with_one_request(server: Server) -> None:
    """`doctor` asks for it."""
    server.requests.clear()
    assert source(server).probe() == f"{server.bucket_uri}/docs"
    assert len(server.requests) == 1


class TestAzureAndGoogle:
    @pytest.fixture(params=["az", "gs"])
    def blobs(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[AzureServer | GoogleServer]:
        """A container of either."""
        is_azure = request.param == "az"
        port = request.getfixturevalue("azurite_port" if is_azure else "gcs_port")
        server = AzureServer() if is_azure else GoogleServer()
        with fresh_container(server, port, monkeypatch) as fresh:
            yield fresh

    def test_a_key_that_the_library_cannot_read_ends_the_listing_and_says_so(
        self, blobs: AzureServer | GoogleServer
    ) -> None:
        """Nothing is deleted by such a listing."""
        blobs.put("docs/x//y.md", "text")
        with pytest.raises(SourceUnavailableError, match=r"docs/x/.*Rename or remove that object"):
            source(blobs).list_objects()

    def test_a_store_that_stops_in_the_middle_gives_an_incomplete_listing(
        self, blobs: AzureServer | GoogleServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half a listing must not delete the other half."""
        monkeypatch.setattr(object_store, "PAGE_SIZE", 3)
        for number in range(3):
            blobs.put(f"docs/{number}.md", "x")
        last, more = blobs.page_end
        blobs.faults.append(Fault("=more", status=503))
        blobs.faults.append(Fault(blobs.listing, rewrite=lambda data: data.replace(last, more)))
        listing = source(blobs).list_objects()
        assert (len(listing.objects), listing.is_complete) == (3, False)
        assert "broke off after 3 objects" in listing.message


class TestAzure:
    @pytest.fixture
    def azure(self, azurite_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureServer]:
        """A private container."""
        with fresh_container(AzureServer(), azurite_port, monkeypatch) as server:
            yield server

    @pytest.mark.parametrize(
        ("key", "fix"),
        [
            ("eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4", "Let these credentials list"),
            ("no key at all", "Mend AZURE_STORAGE_ACCOUNT_KEY"),
        ],
    )
    def test_wrong_credentials_are_named_with_the_way_out_and_kept_secret(
        self, azure: AzureServer, monkeypatch: pytest.MonkeyPatch, key: str, fix: str
    ) -> None:
        """The variable is named, its value is not."""
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
        with pytest.raises(SourceRefusedError, match=fix) as caught:
            source(azure).list_objects()
        assert key not in str(caught.value)

    def test_a_public_container_needs_no_credentials_if_the_configuration_says_so(
        self, azure: AzureServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A private one refuses."""
        azure.put("docs/a.md", "hello")
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        with pytest.raises(SourceRefusedError):
            anonymous(azure).list_objects()
        azure.container += "public"
        azure.create_container(is_public=True)
        azure.put("docs/a.md", "hello")
        assert set(listed(anonymous(azure))) == {"a.md"}
