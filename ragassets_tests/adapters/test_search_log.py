"""The log of searches, on a disk and on an object store: nothing is lost, nothing doubled."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ragassets.adapters.search_log import SearchLog
from ragassets.errors import StorageUnavailableError
from ragassets_tests.s3_server import BUCKET, running_s3

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["disk", "s3"])
def log(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[SearchLog]:
    if request.param == "disk":
        yield SearchLog(str(tmp_path / "root"))
        return
    with running_s3(monkeypatch):
        yield SearchLog(f"s3://{BUCKET}/project")


def test_many_write_at_once_and_every_record_is_there(log: SearchLog) -> None:
    """Searches of many processes end in the same second."""

    def write(number: int) -> str:
        name = log.new_name(NOW)
        log.write(name, f"record {number}\n".encode())
        return name

    with ThreadPoolExecutor(8) as writers:
        names = list(writers.map(write, range(40)))
    assert log.names(100) == sorted(names)
    assert log.names(7) == sorted(names)[:7]
    assert log.read(names) == [f"record {number}\n".encode() for number in range(40)]


def test_what_somebody_else_folded_is_no_error(log: SearchLog) -> None:
    name = log.new_name(NOW)
    log.write(name, b"{}\n")
    log.delete([name, name])
    log.delete([log.new_name(NOW)])
    assert log.names(10) == []
    assert log.read([name]) == []


def test_a_log_that_was_never_written_is_empty(log: SearchLog) -> None:
    assert log.names(10) == []


def test_a_disk_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "search_log").write_text("a file where the folder should be")
    log = SearchLog(str(tmp_path))
    with pytest.raises(StorageUnavailableError, match="search log"):
        log.write(log.new_name(NOW), b"{}\n")
