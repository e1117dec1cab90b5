"""The landing zone on a local folder, and where roots may lie."""

import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.object_storage import one_line, open_root
from ragassets.errors import (
    ConfigurationError,
    MissingRawBytesError,
    StorageUnavailableError,
    SystemResourceError,
)
from ragassets_tests.disks import small_disk

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""The sha256 of `abc`. Source: FIPS 180-2, appendix B.1."""


@pytest.fixture
def landing_zone(tmp_path: Path) -> LandingZone:
    """An empty landing zone."""
    return LandingZone(str(tmp_path))


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    with small_disk(tmp_path / "small", 200_000) as folder:
        yield folder


def test_bytes_lie_under_their_sha256(landing_zone: LandingZone, tmp_path: Path) -> None:
    """The layout is public: an operator must find a dead letter's bytes by hand."""
    assert landing_zone.put(b"abc") == ABC
    assert (tmp_path / "landing" / "ba" / ABC).read_bytes() == b"abc"
    assert landing_zone.location(ABC) == str(tmp_path / "landing" / "ba" / ABC)
    assert landing_zone.get(ABC) == b"abc"
    assert landing_zone.exists(ABC)
    assert list(landing_zone.content_hashes()) == [ABC]


@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=200))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No byte is special, and no bytes at all are fine too."""
    landing_zone = LandingZone(str(tmp_path_factory.mktemp("root")))
    assert landing_zone.get(landing_zone.put(data)) == data


def test_the_same_bytes_are_written_once(landing_zone: LandingZone, tmp_path: Path) -> None:
    """Fetching a source again costs no write."""
    landing_zone.put(b"abc")
    before = (tmp_path / "landing" / "ba" / ABC).stat()
    landing_zone.put(b"abc")
    after = (tmp_path / "landing" / "ba" / ABC).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_truncated_object_is_repaired_by_the_next_put(
    landing_zone: LandingZone, tmp_path: Path
) -> None:
    """A power cut can leave a renamed file without its bytes."""
    landing_zone.put(b"abc")
    (tmp_path / "landing" / "ba" / ABC).write_bytes(b"")
    landing_zone.put(b"abc")
    assert landing_zone.get(ABC) == b"abc"


def test_corrupt_and_missing_objects_are_named(landing_zone: LandingZone, tmp_path: Path) -> None:
    """Wrong bytes must never be parsed as if they were the document."""
    landing_zone.put(b"abc")
    (tmp_path / "landing" / "ba" / ABC).write_bytes(b"abX")
    with pytest.raises(MissingRawBytesError, match=f"{ABC} is corrupt"):
        landing_zone.get(ABC)
    assert not landing_zone.holds(ABC)
    landing_zone.delete(ABC)
    landing_zone.delete(ABC)
    assert not landing_zone.exists(ABC)
    with pytest.raises(MissingRawBytesError, match=f"{ABC} is missing. The next run fetches it"):
        landing_zone.get(ABC)
    assert not landing_zone.holds(ABC)
    landing_zone.put(b"abc")
    assert landing_zone.holds(ABC)


def test_readers_never_see_half_an_object(landing_zone: LandingZone) -> None:
    """A reader that races with the writer finds the whole object or none."""
    data = os.urandom(4_000_000)
    content_hash = sha256(data).hexdigest()
    seen: list[bytes] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if landing_zone.exists(content_hash):
                seen.append(landing_zone.get(content_hash))
                return

    reader = threading.Thread(target=read)
    reader.start()
    landing_zone.put(data)
    reader.join(10)
    stop.set()
    assert seen == [data]


def test_a_leftover_of_a_killed_writer_is_no_object(
    landing_zone: LandingZone, tmp_path: Path
) -> None:
    """The local store writes to `<name>#<n>` first; a kill leaves that file behind."""
    landing_zone.put(b"abc")
    (tmp_path / "landing" / "ba" / f"{ABC[:-1]}0#1").write_bytes(b"half")
    (tmp_path / "landing" / "notes.txt").write_text("by a person")
    assert list(landing_zone.content_hashes()) == [ABC]
    assert not landing_zone.exists(ABC[:-1] + "0")


def test_objects_with_a_path_are_replaced(landing_zone: LandingZone, tmp_path: Path) -> None:
    """Dead letters are written as JSON beside the tables."""
    landing_zone.put_object("dlq/ingestion/2026-01-02T03:04:05+00:00/a.json", b"{}")
    landing_zone.put_object("dlq/ingestion/2026-01-02T03:04:05+00:00/a.json", b"[]")
    path = tmp_path / "dlq" / "ingestion" / "2026-01-02T03:04:05+00:00" / "a.json"
    assert path.read_bytes() == b"[]"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", ABC.upper(), ABC[:-1]])
def test_only_a_hash_names_an_object(landing_zone: LandingZone, name: str) -> None:
    """A hash from a damaged table must not become a path."""
    with pytest.raises(ValueError, match="is not a sha256"):
        landing_zone.exists(name)


def test_a_full_disk_is_a_system_error_and_leaves_nothing(full_soon: Path) -> None:
    """The run stops and is resumed later; half an object would be worse."""
    landing_zone = LandingZone(str(full_soon))
    small = landing_zone.put(b"abc")
    with pytest.raises(SystemResourceError, match="No space left"):
        landing_zone.put(os.urandom(500_000))
    assert list(landing_zone.content_hashes()) == [small]


def test_a_local_root_is_created_from_a_path_or_a_uri(tmp_path: Path) -> None:
    """A first run needs no preparation, and a URI's escapes are undone."""
    opened = open_root(str(tmp_path / "a" / "b"))
    assert opened.is_local
    assert Path(opened.uri).is_dir()
    assert open_root((tmp_path / "my root").as_uri()).uri == str(tmp_path / "my root")


@pytest.mark.parametrize(
    "root", ["ftp://host/path", "s3://", "s3://b/my data", "root/100%", "root/a*b", "root/env=a"]
)
def test_an_address_that_cannot_work_is_a_configuration_error(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line instead of a failure in the middle of a run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="root"):
        open_root(root)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    """So is a root below a file."""
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="is not a folder"):
            open_root(str(root))


def test_a_root_that_cannot_be_created_is_unavailable() -> None:
    """`/proc` refuses new folders, for root too."""
    with pytest.raises(StorageUnavailableError, match="/proc/ragassets"):
        open_root("/proc/ragassets")


def test_remote_roots_open_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the code location must not wait for a network."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert open_root("s3://bucket/prefix/").uri == "s3://bucket/prefix"
    assert open_root("az://container/prefix").uri == "az://container/prefix"
    assert not open_root("gs://bucket").is_local


def test_a_message_holds_no_signature() -> None:
    """Object stores put the whole request URL into their errors."""
    error = OSError(
        "GET https://b/k?X-Amz-Signature=abc&sig=def&x=1 failed\n rest\nDebug source:\nx"
    )
    assert one_line(OSError("a\n \x1b[31m↳\x1b[0m b")) == "a: b"
    assert one_line(error) == "GET https://b/k?X-Amz-Signature=***&sig=***&x=1 failed rest"
