"""A paged JSON API as a source, against a server on loopback that misbehaves on demand."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.registry import open_source
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.config import SourceConfig
from ragassets.core.records import read_envelope
from ragassets.core.sources import IncrementalSource, Listing, Source
from ragassets.errors import (
    OversizedDocumentError,
    SourceRefusedError,
    SourceUnavailableError,
)
from ragassets_tests.api_server import ApiServer, running_api
from ragassets_tests.faulty_server import Fault

NO_CRAWLS = CrawlMemory(lambda: pytest.fail("nothing is crawled"), "records")
CURSOR = {"kind": "cursor", "path": "meta.next", "parameter": "cursor"}
RETRY = {"attempts": 4, "first_wait_seconds": 0, "jitter_seconds": 0, "max_retry_after_seconds": 1}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An API with five records on three pages."""
    with running_api() as server:
        for number in range(1, 6):
            server.put(number, f"text {number}", updated=f"2026-11-0{number}T00:00:00Z")
        yield server


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    """Where bodies land."""
    return LandingZone(str(tmp_path / "root"))


def source(server: ApiServer, zone: LandingZone, **settings: Any) -> Source:
    """A source with the settings of a test."""
    config = {
        "uri": server.uri,
        "api": {"items": "data", "pagination": CURSOR, **settings.pop("api", {})},
        "records": {"text": "body", "updated_at": "updated", **settings.pop("records", {})},
        "fetch": {"retry": RETRY, "timeout_seconds": 5, **settings.pop("fetch", {})},
    }
    bodies = LandedBodies("articles", lambda: zone, frozenset[str])
    return open_source(SourceConfig.model_validate(config | settings), bodies, NO_CRAWLS)


def names(listing: Listing) -> list[str]:
    """The identities of what was listed."""
    return sorted(entry.uri.rpartition("#")[2] for entry in listing.objects)


ALL = ["1", "2", "3", "4", "5"]


class TestPaging:
    @pytest.mark.parametrize(
        "pagination",
        [
            CURSOR,
            {"kind": "page"},
            {"kind": "offset", "limit": 2},
            {"kind": "link"},
            {"kind": "url", "path": "links.next"},
        ],
        ids=lambda settings: settings["kind"],
    )
    def test_every_way_of_paging_brings_every_record_once(
        self, api: ApiServer, zone: LandingZone, pagination: dict[str, object]
    ) -> None:
        """Numbered pages end with the first one that is empty."""
        listing = source(api, zone, api={"pagination": pagination}).list_objects()
        assert (names(listing), listing.is_complete, listing.message) == (ALL, True, "")
        asked = 4 if pagination["kind"] in {"page", "offset"} else 3
        assert len(api.requests) == asked

    def test_one_answer_may_hold_everything(self, api: ApiServer, zone: LandingZone) -> None:
        """Without `pagination` nothing more is asked."""
        listing = source(api, zone, api={"pagination": {"kind": "none"}}).list_objects()
        assert (names(listing), len(api.requests)) == (["1", "2"], 1)

    def test_parameters_and_headers_go_with_every_request(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """The key is a header's, whose value no message shows."""
        settings = {"parameters": {"all": True, "n": 2}, "headers": {"X-Key": "s3cret"}}
        source(api, zone, api=settings).list_objects()
        assert all("all=true" in request and "n=2" in request for request in api.requests)
        assert {headers["HTTP_X_KEY"] for headers in api.seen_headers} == {"s3cret"}
        config = SourceConfig.model_validate({"uri": api.uri, "api": settings})
        assert "s3cret" not in repr(config)

    def test_a_record_says_its_body_its_time_and_when_it_is_gone(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """Its bytes are landed with the listing; no second request fetches them."""
        api.put(5, "new text", updated="2026-11-09T00:00:00Z")
        api.put(4, "old text", gone=True)
        one = source(api, zone, records={"deleted": "gone"})
        listing = one.list_objects()
        assert names(listing) == ["1", "2", "3", "5"]
        assert listing.deleted == {f"{api.uri}#4"}
        (entry,) = (entry for entry in listing.objects if entry.uri == f"{api.uri}#5")
        assert entry.modified_at == datetime(2026, 11, 9, tzinfo=UTC)
        api.requests.clear()
        assert read_envelope(one.fetch(entry)).body == "new text"
        assert api.requests == []

    def test_an_unchanged_record_keeps_its_etag_and_a_changed_one_does_not(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """A field that no setting picks is no change."""
        before = {entry.uri: entry.etag for entry in source(api, zone).list_objects().objects}
        api.put(1, "text 1", views=7)
        api.put(2, "other")
        after = {entry.uri: entry.etag for entry in source(api, zone).list_objects().objects}
        changed = [uri for uri, etag in after.items() if before[uri] != etag]
        assert changed == [f"{api.uri}#2"]

    def test_a_probe_costs_one_request(self, api: ApiServer, zone: LandingZone) -> None:
        """`doctor` asks for it."""
        assert source(api, zone).probe() == f"{api.uri} (2 records on the first page)"
        assert len(api.requests) == 1


class TestTrouble:
    def test_throttling_is_waited_for_as_long_as_the_service_says(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """And not a moment less."""
        api.throttled = ["0.2", "0"]
        began = datetime.now(UTC)
        assert source(api, zone).list_objects().is_complete
        assert (datetime.now(UTC) - began).total_seconds() >= 0.2

    def test_a_service_that_wants_to_be_left_alone_for_long_is(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """The next listing tries again; nobody holds a worker for an hour."""
        api.throttled = ["3600"] * 9
        with pytest.raises(SourceUnavailableError, match="answers 429"):
            source(api, zone).list_objects()
        assert len(api.requests) == 1

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("cursor=2", status=503),
            Fault("cursor=2", is_reset=True),
            Fault("cursor=2", rewrite=lambda _: b"<html>Sign in</html>"),
            Fault("cursor=2", rewrite=lambda data: data[:-9]),
            Fault("cursor=2", spoil=lambda data: data[:-9]),
            Fault("cursor=2", rewrite=lambda _: b'{"error": "try later"}'),
            Fault("cursor=2", rewrite=lambda _: b'{"data": null}'),
            Fault("cursor=2", status=401),
        ],
        ids=["503", "reset", "html", "truncated", "cut", "error", "null", "401"],
    )
    def test_a_listing_that_breaks_off_keeps_what_it_read_and_is_not_complete(
        self, api: ApiServer, zone: LandingZone, fault: Fault
    ) -> None:
        """None of these is a page without items."""
        api.faults.append(fault)
        listing = source(api, zone).list_objects()
        assert (names(listing), listing.is_complete) == (["1", "2"], False)
        assert "broke off after 2 records" in listing.message

    def test_a_page_that_fails_for_a_moment_is_asked_for_again(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """Four tries each."""
        api.faults += [
            Fault("cursor=2", status=500, n_times=2),
            Fault("cursor=4", is_reset=True, n_times=1),
        ]
        listing = source(api, zone).list_objects()
        assert (names(listing), listing.is_complete) == (ALL, True)

    @pytest.mark.parametrize(
        ("status", "fix"), [(401, "Mend or renew the credentials"), (404, "Mend the source's uri")]
    )
    def test_a_refusal_is_told_with_the_way_out_and_not_repeated(
        self, api: ApiServer, zone: LandingZone, status: int, fix: str
    ) -> None:
        """An expired token does not come back by waiting; nothing is listed, nothing deleted."""
        api.faults.append(Fault("articles", status=status))
        settings = {"headers": {"Authorization": "Bearer s3cret"}, "parameters": {"k": "hidden"}}
        with pytest.raises(SourceRefusedError, match=fix) as caught:
            source(api, zone, api=settings).list_objects()
        assert len(api.requests) == 1
        assert "s3cret" not in str(caught.value)
        assert "hidden" not in str(caught.value)

    def test_a_cursor_that_comes_back_ends_the_listing(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """It would go round for ever."""
        api.next_of = {"4": "2"}
        listing = source(api, zone).list_objects()
        assert listing.is_complete is False
        assert "page 3 leads back to a page that was read before" in listing.message

    def test_an_api_that_ignores_the_page_number_is_noticed(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """Every page is the first one then."""
        paging = {"kind": "page", "parameter": "p"}
        listing = source(api, zone, api={"pagination": paging}).list_objects()
        assert listing.is_complete is False
        assert "page 2 is page 1 again" in listing.message

    def test_pages_have_an_end(self, api: ApiServer, zone: LandingZone) -> None:
        """What is behind the last one that is allowed is not called gone."""
        listing = source(api, zone, api={"max_pages": 2}).list_objects()
        assert (names(listing), listing.is_complete) == (["1", "2", "3", "4"], False)
        assert "api.max_pages 2" in listing.message

    def test_a_next_link_to_another_host_is_refused(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """It would get the credentials."""
        with running_api() as other:
            api.link_host = other.url
            paging = {"pagination": {"kind": "link"}, "headers": {"X-Key": "s3cret"}}
            listing = source(api, zone, api=paging).list_objects()
            assert listing.is_complete is False
            assert "leads to another host, '127.0.0.1:" in listing.message
            assert other.requests == []

    def test_a_redirect_is_not_followed(self, api: ApiServer, zone: LandingZone) -> None:
        """Neither with the credentials, nor into a network behind this machine."""
        with running_api() as other:
            api.redirect_to = f"{other.url}/secret?token=abc"
            with pytest.raises(SourceRefusedError, match=r"redirects to '.*/secret'"):
                source(api, zone).list_objects()
            assert other.requests == []

    def test_a_page_that_is_too_large_is_not_read(self, api: ApiServer, zone: LandingZone) -> None:
        """It would have to fit into memory."""
        with pytest.raises(SourceRefusedError, match=r"larger than api\.max_page_bytes 50"):
            source(api, zone, api={"max_page_bytes": 50}).list_objects()

    def test_a_record_that_is_too_large_is_a_dead_letter(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """It is listed, so nothing of it is deleted, and it is not landed."""
        api.put(1, "x" * 2_000)
        one = source(api, zone, fetch={"max_bytes": 1_000})
        (entry,) = (e for e in one.list_objects().objects if e.uri.endswith("#1"))
        with pytest.raises(OversizedDocumentError):
            one.fetch(entry)
        assert len(list(zone.content_hashes())) == 4

    def test_broken_records_are_told_and_the_others_are_kept(
        self, api: ApiServer, zone: LandingZone
    ) -> None:
        """Whose documents they were is not known, so nothing is called gone."""
        api.records[1] = {"body": "no id"}
        listing = source(api, zone).list_objects()
        assert (names(listing), listing.is_complete) == (["1", "3", "4", "5"], False)
        assert "page 1, item 2: its id at 'id' is no text" in listing.message

    def test_an_api_that_cannot_be_reached_is_unavailable(self, zone: LandingZone) -> None:
        """Nothing follows from a listing that there is not."""
        away = source(ApiServer("http://127.0.0.1:9"), zone)
        with pytest.raises(SourceUnavailableError, match="ConnectError"):
            away.list_objects()


def test_changes_are_asked_for_with_an_overlap_and_are_never_a_whole_listing(
    api: ApiServer, zone: LandingZone
) -> None:
    """What did not change is not gone."""
    since = {"since": {"parameter": "since", "overlap_seconds": 86_400}}
    one = source(api, zone, api=since)
    assert isinstance(one, IncrementalSource)
    assert one.is_incremental
    listing = one.list_since(datetime(2026, 11, 5, tzinfo=UTC))
    assert (names(listing), listing.is_complete) == (["4", "5"], False)
    assert "since=2026-11-04T00%3A00%3A00Z" in api.requests[0]
