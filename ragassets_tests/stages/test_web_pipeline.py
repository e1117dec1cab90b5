"""A web site from its pages to the points of an index, crawl after crawl."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.sources.web import web_site
from ragassets.adapters.sources.web.web_site import WebSite
from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS
from ragassets.core.sources import Listing
from ragassets.queries.search import Target, search
from ragassets.stages.source_objects import discover
from ragassets.stages.source_watch import WatchCursor, look
from ragassets_tests.scenario import CLEAN, Project
from ragassets_tests.stage_runs import NOW, RecordingEmbedder, run_documents, run_version
from ragassets_tests.web_server import WebServer, running_site

TOPICS = ("vacation.md", "expenses.txt", "security.md", "kitchen.txt", "teams/garden.md")
"""Documents about five things, one on each page."""


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash vectors."""
    RecordingEmbedder.embedded = []
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder",
        lambda name, config: RecordingEmbedder(name, config.dim, seed=config.model),
    )


@pytest.fixture
def site() -> Iterator[WebServer]:
    """A page for each topic, named by a sitemap."""
    with running_site() as server:
        for topic in TOPICS:
            server.page(path_of(topic), CLEAN[topic])
        server.sitemap("/sitemap.xml", *map(path_of, TOPICS))
        yield server


def path_of(topic: str) -> str:
    """The path of a topic's page."""
    return f"/docs/{topic.rpartition('/')[2].partition('.')[0]}"


@pytest.fixture
def project(tmp_path: Path, site: WebServer) -> Project:
    """The site as the only source."""
    project = Project(tmp_path / "project")
    web = {"allow_private": ["127.0.0.1"], "delay_seconds": 0}
    project.configure(
        sources={"handbook": {"uri": f"{site.url}/docs", "shards": 1, "web": web}},
        embedding_models={"minilm": {"model": "one", "dim": 8}},
    )
    return project


def found(project: Project, word: str) -> list[str]:
    """Paths of the pages that have a word."""
    hits = next(search(project.workspace, Target("v1", None), [word], mode="sparse"))
    return [hit.uri.rpartition("/docs/")[2] for hit in hits]


def alive(project: Project) -> list[str]:
    """Paths of the documents that the source holds, as far as is recorded."""
    rows = project.rows(SOURCE_OBJECTS, ~pl.col("is_deleted"))
    return sorted(uri.rpartition("/docs/")[2] for uri in rows["uri"])


def update(project: Project) -> None:
    """Crawl, and all that follows."""
    run_documents(project)
    run_version(project)


def test_pages_become_searchable_change_and_vanish(site: WebServer, project: Project) -> None:
    """What is asked of every source; the bytes are asked for once."""
    update(project)
    assert found(project, "receipts") == ["expenses"]
    assert found(project, "strawberries") == ["garden"]
    assert site.count("/docs/kitchen") == 1
    site.page("/docs/expenses", "Travel expenses need an invoice, says the finance team.")
    del site.pages["/docs/garden"]
    embedded = len(RecordingEmbedder.embedded)
    update(project)
    assert found(project, "receipts") == []
    assert found(project, "invoice") == ["expenses"]
    assert found(project, "strawberries") == []
    assert len(RecordingEmbedder.embedded) == embedded + 1
    assert site.statuses[-len(TOPICS) :].count(304) == 3


def test_a_site_that_is_away_or_empty_loses_nothing(site: WebServer, project: Project) -> None:
    """Each of them looks like a site without pages."""
    update(project)
    before = alive(project)
    assert len(before) == 5
    pages = {path: list(found) for path, found in site.pages.items()}
    for status in (404, 503, 403):
        for path in pages:
            site.put(path, status=status)
        (discovery,) = discover(project.workspace, ["handbook"], now=NOW + timedelta(hours=1))
        assert (discovery.n_removed, alive(project)) == (0, before)
        assert "no document was found" in discovery.problem
    site.pages = {**pages}
    site.sitemap("/sitemap.xml", *map(path_of, TOPICS[:2]))
    (discovery,) = discover(project.workspace, ["handbook"], now=NOW + timedelta(hours=1))
    assert "would remove 3 of 5" in discovery.problem
    assert alive(project) == before


def test_looks_of_a_sensor_go_on_with_one_crawl(
    site: WebServer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a process of its own; what is new is recorded at once, what is gone at the end."""
    monkeypatch.setattr(web_site, "STEP_SECONDS", 1e-9)

    def looks(now_after: timedelta) -> list[int]:
        cursor, n_alive = WatchCursor(), []
        while True:
            _, cursor = look(
                project.workspace,
                "handbook",
                WatchCursor.parse(cursor.dump()),
                now=NOW + now_after,
                budget_seconds=0.0,
            )
            n_alive.append(len(alive(project)))
            if not cursor.pass_id:
                return n_alive

    first = looks(timedelta())
    assert first == sorted(first)
    assert (first[0], first[-1]) == (0, 5)
    assert len(first) > 5
    del site.pages["/docs/garden"]
    site.requests.clear()
    again = looks(timedelta(hours=1))
    assert again[-1] == 4
    assert site.count("/docs/kitchen") == 1
    rows = project.rows(SOURCE_LISTINGS)
    assert rows["is_complete"].to_list() == [True]
    assert project.workspace.checkpoints.load("listings/handbook") is None


def test_a_long_crawl_is_not_thrown_away_because_somebody_else_recorded_meanwhile(
    site: WebServer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded while it ran is newer; the rest of it counts."""
    discover(project.workspace, ["handbook"], now=NOW)
    crawl, is_slow = WebSite.list_objects, [True]

    def slow_crawl(opened: WebSite) -> Listing:
        found = crawl(opened)
        if is_slow.pop():
            is_slow.append(False)
            site.page("/docs/security", "Security, as it is now")
            site.page("/docs/new", "A new page")
            site.sitemap("/sitemap.xml", *map(path_of, TOPICS), "/docs/new")
            discover(project.workspace, ["handbook"], now=NOW + timedelta(hours=1, minutes=30))
        return found

    site.page("/docs/expenses", "Expenses, changed before the crawl")
    del site.pages["/docs/garden"]
    monkeypatch.setattr(WebSite, "list_objects", slow_crawl)
    (found,) = discover(project.workspace, ["handbook"], now=NOW + timedelta(hours=1))
    assert found.problem == ""
    assert alive(project) == ["expenses", "kitchen", "new", "security", "vacation"]
    rows = project.rows(SOURCE_OBJECTS, pl.col("uri").str.ends_with("/security"))
    body = project.workspace.landed_bodies("handbook").read(rows["etag"][0])
    assert b"as it is now" in body
