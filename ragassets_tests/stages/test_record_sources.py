"""What listings of records do to what is known of a source; nothing is fetched or computed."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.stages.source_objects import discover
from ragassets.stages.source_watch import WatchCursor, look
from ragassets_tests.api_server import ApiServer, running_api
from ragassets_tests.faulty_server import Fault
from ragassets_tests.scenario import Project
from ragassets_tests.stage_runs import NOW


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An API with five records."""
    with running_api() as server:
        for number in range(1, 6):
            server.put(number, f"text {number}", updated="2025-10-01T00:00:00Z")
        yield server


@pytest.fixture
def project(tmp_path: Path, api: ApiServer) -> Project:
    """A project whose source is the API; nothing was read yet."""
    project = Project(tmp_path / "project")
    paging = {"kind": "cursor", "path": "meta.next", "parameter": "cursor"}
    source = {
        "uri": api.uri,
        "shards": 1,
        "api": {"items": "data", "pagination": paging, "since": {"parameter": "since"}},
        "records": {"text": "body", "updated_at": "updated"},
        "fetch": {"retry": {"attempts": 1}},
    }
    project.configure(sources={"articles": source})
    return project


def alive(project: Project) -> list[str]:
    """Identities of what is known to be there."""
    rows = project.rows(SOURCE_OBJECTS, ~pl.col("is_deleted"))
    return sorted(uri.rpartition("#")[2] for uri in rows["uri"])


def test_a_sensor_lists_everything_once_and_then_asks_for_changes(
    project: Project, api: ApiServer
) -> None:
    """Only a whole listing finds what is gone."""
    first, _ = look(project.workspace, "articles", WatchCursor(), now=NOW)
    assert (first.n_new, first.problem, api.count("since=")) == (5, "", 0)
    api.put(1, "other", updated="2025-10-02T00:00:00Z")
    api.delete(5)
    api.requests.clear()
    second, cursor = look(project.workspace, "articles", WatchCursor(), now=NOW)
    assert (second.n_new, second.n_changed, second.n_removed) == (0, 1, 0)
    assert cursor == WatchCursor()
    assert "since=2025-09-30T23%3A55%3A00Z" in api.requests[0]
    api.requests.clear()
    third, _ = look(project.workspace, "articles", WatchCursor(), now=NOW)
    assert (third.n_changed, third.changed_shards) == (0, ())
    assert len(api.requests) == 1
    assert "since=2025-10-01T23%3A55%3A00Z" in api.requests[0]
    (whole,) = discover(project.workspace, ["articles"], now=NOW)
    assert (whole.n_removed, alive(project)) == (1, ["1", "2", "3", "4"])


def test_a_record_from_the_future_hides_no_change(project: Project, api: ApiServer) -> None:
    """Clocks differ, and people mistype years."""
    api.put(1, "text", updated="2199-01-01T00:00:00Z")
    look(project.workspace, "articles", WatchCursor(), now=NOW)
    api.requests.clear()
    look(project.workspace, "articles", WatchCursor(), now=NOW)
    since = (NOW - timedelta(minutes=5)).strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ")
    assert f"since={since}" in api.requests[0]


def test_after_a_listing_that_broke_off_changes_are_asked_for_and_in_an_hour_everything(
    project: Project, api: ApiServer
) -> None:
    """A record that is always broken must not cost a whole listing with every look."""
    api.records.insert(2, {"body": "no id", "updated": "2025-10-01T00:00:00Z"})
    look(project.workspace, "articles", WatchCursor(), now=NOW)
    for minutes, is_whole in [(1, False), (59, False), (60, True), (61, False)]:
        api.requests.clear()
        now = NOW + timedelta(minutes=minutes)
        found, _ = look(project.workspace, "articles", WatchCursor(), now=now)
        assert "its id at 'id'" in found.problem
        assert (api.count("since=") == 0) == is_whole
    assert alive(project) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "fault",
    [Fault("cursor=4", status=503), Fault("articles", status=401), Fault("art", is_reset=True)],
    ids=["half", "401", "reset"],
)
def test_an_api_that_does_not_answer_deletes_nothing_and_is_named(
    project: Project, api: ApiServer, fault: Fault
) -> None:
    """Neither for a command nor for a sensor."""
    discover(project.workspace, ["articles"], now=NOW)
    api.records = api.records[:4]
    api.put(6, "new")
    api.faults.append(fault)
    (found,) = discover(project.workspace, ["articles"], now=NOW)
    looked, _ = look(project.workspace, "articles", WatchCursor(), now=NOW)
    assert api.uri in found.problem
    assert api.uri in looked.problem or fault.status == 503
    assert alive(project)[:5] == ["1", "2", "3", "4", "5"]
    api.faults.clear()
    discover(project.workspace, ["articles"], now=NOW)
    assert alive(project) == ["1", "2", "3", "4", "6"]


def test_an_empty_answer_is_refused_by_the_guard(project: Project, api: ApiServer) -> None:
    """A filter that somebody changed by mistake looks the same."""
    discover(project.workspace, ["articles"], now=NOW)
    api.records = []
    (found,) = discover(project.workspace, ["articles"], now=NOW)
    assert "would remove 5 of 5 documents" in found.problem
    assert len(alive(project)) == 5


def test_a_dump_is_followed_line_by_line(tmp_path: Path) -> None:
    """A broken line keeps what it was about; what a whole dump lacks is gone."""
    project = Project(tmp_path / "project", {})
    texts = {number: f"text {number}" for number in range(1, 6)}

    def write(*extra: str) -> None:
        lines = [json.dumps({"id": number, "body": body}) for number, body in texts.items()]
        project.write("dump.jsonl", "\n".join([*lines, *extra]))

    write()
    project.configure_source(shards=1, records={"format": "jsonl", "text": "body"})
    discover(project.workspace, ["handbook"], now=NOW)
    texts[3] = "other"
    del texts[5]
    write("{broken")
    (found,) = discover(project.workspace, ["handbook"], now=NOW)
    assert (found.n_changed, found.n_removed) == (1, 0)
    assert "dump.jsonl, line 5: is no JSON" in found.problem
    write()
    (found,) = discover(project.workspace, ["handbook"], now=NOW)
    assert (found.n_changed, found.n_removed, found.problem) == (0, 1, "")
    assert alive(project) == ["1", "2", "3", "4"]
