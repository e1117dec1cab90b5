"""Records of an API, from the first listing to search: changes, faults, deletions."""

from pathlib import Path

import pytest

from ragassets.core.asset_tables import EMBEDDINGS, PARSED_DOCUMENTS
from ragassets_tests.api_server import ApiServer, running_api
from ragassets_tests.faulty_server import Fault
from ragassets_tests.scenario import Project, counts, fake_embedder

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ARTICLES = {
    1: "<h2>Garden</h2><p>Tomatoes and basil grow behind the canteen.</p>",
    2: "<h2>Parking</h2><p>Visitors park on the roof of building four.</p>",
    3: "<p>The sauna in the basement is heated on Thursdays.</p>",
    4: "<p>First class is for journeys by train of three hours or more.</p>",
    5: "<p>Ping-pong tables stand in the old library.</p>",
}


def put(api: ApiServer, number: int, body: str | None = None, **keys: object) -> None:
    """Publish an article."""
    date = keys.pop("updated", "2026-11-01T00:00:00Z")
    api.put(number, body or ARTICLES[number], updated=date, title=f"Article {number}", **keys)


def configure(project: Project, api: ApiServer) -> None:
    """Make the API the only source."""
    source = {
        "uri": api.uri,
        "shards": 1,
        "metadata": {"team": "facilities"},
        "api": {
            "items": "data",
            "pagination": {"kind": "cursor", "path": "meta.next", "parameter": "cursor"},
        },
        "records": {
            "html": "body",
            "title": "title",
            "updated_at": "updated",
            "metadata": {"topic": "topic", "team": "topic"},
        },
        "fetch": {"retry": {"attempts": 1}},
    }
    project.configure(sources={"articles": source})


def found(project: Project, words: str) -> str:
    """The best hit's URI without its source's."""
    return project.found_uris(words, mode="sparse")[0].rpartition("#")[2]


def test_records_are_searchable_and_follow_the_api_but_never_half_of_it(tmp_path: Path) -> None:
    """One life of a source: published, changed, broken off, gone."""
    project = Project(tmp_path / "project")
    with running_api() as api, fake_embedder():
        for number in ARTICLES:
            put(api, number, topic="house" if number == 3 else "work")
        configure(project, api)
        project.ingest()
        check_metadata(project, api)

        # Other metadata embeds nothing.
        put(api, 1, "<p>Only pumpkins grow behind the canteen now.</p>")
        put(api, 6, "<p>The choir sings on Mondays.</p>")
        put(api, 3, topic="health")
        api.delete(2)
        vectors = set(project.rows(EMBEDDINGS.outputs)["chunk_id"])
        report = project.ingest()
        assert counts(report, "raw_documents") == (3, 2, 1)
        assert len(set(project.rows(EMBEDDINGS.outputs)["chunk_id"]) - vectors) == 2
        assert found(project, "pumpkins") == "1"
        assert found(project, "choir mondays") == "6"
        assert not project.holds_text("Visitors park")
        (hit, *_) = project.search("sauna basement", mode="sparse")
        assert hit["metadata"] == {"topic": "health", "team": "facilities", "acl": []}

        api.delete(5)
        api.faults.append(Fault("cursor=2", rewrite=lambda _: b"<html>Sign in</html>"))
        assert api.uri in project.ingest().problems[0]
        assert found(project, "ping-pong tables") == "5"
        api.faults.clear()
        assert counts(project.ingest(), "raw_documents") == (0, 4, 1)
        assert not project.holds_text("Ping-pong")
        assert project.disagreements() == []


def check_metadata(project: Project, api: ApiServer) -> None:
    """What the configuration says of the source goes before what a record says of itself."""
    (hit, *_) = project.search("sauna basement", mode="sparse")
    assert hit["uri"] == f"{api.uri}#3"
    assert hit["metadata"] == {"topic": "house", "team": "facilities", "acl": []}
    rows = project.rows(PARSED_DOCUMENTS.outputs)
    assert set(rows["title"]) == {f"Article {number}" for number in ARTICLES}
    assert set(rows["parser"]) == {"record+html"}
    only = project.found_uris("roof basement", mode="sparse", filters={"topic": "work"})
    assert f"{api.uri}#2" in only
    assert f"{api.uri}#3" not in only
