"""Dumps as sources: each line of a file is a document."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.sources import local_folder
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.registry import open_source
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.config import SourceConfig
from ragassets.core.records import read_envelope
from ragassets.core.sources import Listing, Source
from ragassets.errors import OversizedDocumentError, SourceUnavailableError
from ragassets_tests.faulty_server import Fault
from ragassets_tests.s3_server import BUCKET, S3Server, running_s3

NO_CRAWLS = CrawlMemory(lambda: pytest.fail("nothing is crawled"), "records")
RETRY = {"attempts": 3, "first_wait_seconds": 0, "jitter_seconds": 0}


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    """Where bodies land."""
    return LandingZone(str(tmp_path / "root"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the dumps lie."""
    folder = tmp_path / "dumps"
    folder.mkdir()
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A bucket."""
    with running_s3(monkeypatch) as server:
        yield server


def source(uri: str | Path, zone: LandingZone, **settings: Any) -> Source:
    """A source with the settings of a test."""
    config = {
        "uri": str(uri),
        "records": {"format": "jsonl", "text": "body", **settings.pop("records", {})},
        "fetch": {"retry": RETRY, **settings.pop("fetch", {})},
    }
    bodies = LandedBodies("dumps", lambda: zone, frozenset[str])
    return open_source(SourceConfig.model_validate(config | settings), bodies, NO_CRAWLS)


def jsonl(*records: object) -> bytes:
    """Lines as a dump has them."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def record(number: int, **keys: object) -> dict[str, object]:
    """A record as most tests have it."""
    return {"id": number, "body": f"text {number}", **keys}


def names(listing: Listing) -> list[str]:
    """The identities of what was listed."""
    return sorted(entry.uri.rpartition("#")[2] for entry in listing.objects)


def test_every_line_is_a_document_with_a_uri_of_its_own(folder: Path, zone: LandingZone) -> None:
    """Its bytes are landed; fetching reads no file."""
    dump = folder / "a b.jsonl"
    dump.write_bytes(jsonl(record(1), record(2, id="x/ü y")))
    one = source(folder, zone)
    listing = one.list_objects()
    assert listing.is_complete
    first, second = sorted(listing.objects, key=lambda entry: entry.uri)
    assert first.uri == f"{dump.as_uri()}#1"
    assert second.uri == f"{dump.as_uri()}#x%2F%C3%BC%20y"
    dump.unlink()
    assert read_envelope(one.fetch(first)).body == "text 1"


def test_dumps_may_be_packed_and_one_file_may_be_the_source(
    folder: Path, zone: LandingZone
) -> None:
    """With square brackets in its name, even."""
    dump = folder / "all[1].jsonl.gz"
    dump.write_bytes(gzip.compress(jsonl(record(1))) + gzip.compress(jsonl(record(2))))
    (folder / "other.jsonl").write_bytes(jsonl(record(3)))
    assert names(source(dump, zone).list_objects()) == ["1", "2"]
    assert names(source(dump.as_uri(), zone).list_objects()) == ["1", "2"]
    only = source(folder, zone, include=["*.jsonl"])
    assert names(only.list_objects()) == ["3"]


def test_only_what_changed_in_a_line_changes_its_document(folder: Path, zone: LandingZone) -> None:
    """Neither the order of the lines nor that of the keys, nor a new file date, is a change."""
    dump = folder / "a.jsonl"
    dump.write_bytes(jsonl(record(1), record(2), record(3)))
    before = {entry.uri: entry.etag for entry in source(dump, zone).list_objects().objects}
    dump.write_bytes(jsonl(record(3), {"body": "other", "id": 2}, {"body": "text 1", "id": 1}))
    after = {entry.uri: entry.etag for entry in source(dump, zone).list_objects().objects}
    assert [uri for uri in after if before[uri] != after[uri]] == [f"{dump.as_uri()}#2"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": 2, "body": ', "line 2: is no JSON"),
        (b'{"id": 2, "body": "\xff"}', "line 2: is no JSON"),
        (b"[" * 100_000, "line 2: is no JSON"),
        (b"[1]", "line 2: it is no JSON object"),
        (b'{"body": "no id"}', "line 2: its id at 'id'"),
        (b'{"id": 2, "body": "' + b"x" * 200_000 + b'"}', "line 2: is longer than fetch.max_bytes"),
    ],
)
def test_a_broken_line_is_told_by_file_and_number_and_the_others_are_kept(
    folder: Path, zone: LandingZone, line: bytes, problem: str
) -> None:
    """Whose document it was is not known, so nothing is called gone."""
    (folder / "a.jsonl").write_bytes(jsonl(record(1)) + line + b"\n" + jsonl(record(3)))
    listing = source(folder, zone, fetch={"max_bytes": 150_000}).list_objects()
    assert (names(listing), listing.is_complete) == (["1", "3"], False)
    assert f"a.jsonl, {problem}" in listing.message


def test_many_broken_lines_make_one_message(folder: Path, zone: LandingZone) -> None:
    """Three are named."""
    (folder / "a.jsonl").write_bytes(b"junk\n" * 50 + jsonl(record(1)))
    message = source(folder, zone).list_objects().message
    assert message.count("is no JSON") == 3
    assert message.endswith("and 47 more like these")


def test_an_identity_that_is_there_twice_is_told_and_the_last_line_counts(
    folder: Path, zone: LandingZone
) -> None:
    """Logs are written at the end. The same line twice says nothing new."""
    lines = [record(1), record(2), record(2), record(1, body="newer")]
    (folder / "a.jsonl").write_bytes(jsonl(*lines))
    one = source(folder, zone)
    listing = one.list_objects()
    assert (names(listing), listing.is_complete) == (["1", "2"], True)
    assert "a.jsonl, line 4: id '1' is there again; the last counts" in listing.message
    assert "line 3" not in listing.message
    (first,) = (entry for entry in listing.objects if entry.uri.endswith("#1"))
    assert read_envelope(one.fetch(first)).body == "newer"


def test_a_line_may_say_that_its_document_is_gone(folder: Path, zone: LandingZone) -> None:
    """Whatever else the dump leaves out."""
    dump = folder / "a.jsonl"
    dump.write_bytes(jsonl(record(1), record(2), record(1, deleted=True), record(3, deleted=True)))
    listing = source(dump, zone, records={"deleted": "deleted"}).list_objects()
    assert names(listing) == ["2"]
    assert listing.deleted == {f"{dump.as_uri()}#1", f"{dump.as_uri()}#3"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (gzip.compress(jsonl(*map(record, range(2000))))[:-100], "ends in the middle"),
        (b"not packed", "was not packed with gzip"),
    ],
    ids=["cut short", "not packed"],  # compressed data holds the time
)
def test_a_packed_file_that_is_damaged_makes_the_listing_incomplete(
    folder: Path, zone: LandingZone, data: bytes, problem: str
) -> None:
    """What could be read of it is kept."""
    (folder / "a.jsonl.gz").write_bytes(data)
    (folder / "b.jsonl").write_bytes(jsonl(record(5000)))
    listing = source(folder, zone).list_objects()
    assert listing.is_complete is False
    assert "5000" in names(listing)
    assert problem in listing.message


def test_a_body_that_is_too_large_is_a_dead_letter(folder: Path, zone: LandingZone) -> None:
    """Its line fits, what it becomes does not."""
    (folder / "a.jsonl").write_bytes(jsonl(record(1, body='"' * 500)))
    one = source(folder, zone, fetch={"max_bytes": 1_030})
    (entry,) = one.list_objects().objects
    with pytest.raises(OversizedDocumentError):
        one.fetch(entry)


def test_a_folder_that_is_not_there_cannot_be_listed(folder: Path, zone: LandingZone) -> None:
    """It is no empty one."""
    with pytest.raises(SourceUnavailableError):
        source(folder / "away", zone).list_objects()


def test_a_dump_is_read_in_pieces(
    folder: Path, zone: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte must not have to fit into memory."""
    monkeypatch.setattr(local_folder, "BLOCK_BYTES", 64)
    (folder / "a.jsonl").write_bytes(jsonl(*map(record, range(100))))
    files = local_folder.LocalFolder(str(folder), ["**/*"], [])
    (file,) = files.list_objects().objects
    assert max(map(len, files.stream(file))) == 64
    assert len(source(folder, zone).list_objects().objects) == 100


class TestBucket:
    def test_dumps_in_a_bucket_are_streamed_and_a_broken_read_is_repeated(
        self, s3: S3Server, zone: LandingZone
    ) -> None:
        """From its beginning; what was read before is the same again."""
        s3.put("dumps/a.jsonl", jsonl(*map(record, range(3))))
        cut = Fault("dumps/a.jsonl", spoil=lambda data: data[:-5], n_times=2)
        s3.faults.append(cut)
        listing = source(f"s3://{BUCKET}/dumps", zone).list_objects()
        assert (names(listing), listing.is_complete) == (["0", "1", "2"], True)
        assert listing.objects[0].uri == f"s3://{BUCKET}/dumps/a.jsonl#0"

    def test_a_dump_that_breaks_off_deletes_nothing(self, s3: S3Server, zone: LandingZone) -> None:
        """The other files are read all the same."""
        s3.put("dumps/a.jsonl", jsonl(record(1)))
        s3.put("dumps/b.jsonl", jsonl(record(2)))
        s3.faults.append(Fault("dumps/a.jsonl", status=503))
        listing = source(f"s3://{BUCKET}/dumps", zone).list_objects()
        assert (names(listing), listing.is_complete) == (["2"], False)
        assert f"s3://{BUCKET}/dumps/a.jsonl" in listing.message
