"""A version beside the live one: what a name means, recent documents first, never behind."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from dagster import DagsterInstance

from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEXED_CHUNKS
from ragassets.defs.ingest import IngestReport, build
from ragassets.defs.resources import WorkspaceResource
from ragassets.errors import ConfigurationError
from ragassets.stages.alias_history import AliasSwitch
from ragassets.stages.live_index import switch_alias
from ragassets_tests.scenario import CLEAN, Project, counts, fake_embedder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

V1 = {"chunking": "recursive-256", "embedding_model": "minilm"}
V2 = {"chunking": "small", "embedding_model": "other", "backfill": "manual"}
SETTINGS = {
    "chunkings": {"recursive-256": {}, "small": {"max_tokens": 32, "overlap_tokens": 4}},
    "embedding_models": {
        "minilm": {"model": "all-MiniLM-L6-v2", "dim": 384},
        "other": {"model": "all-MiniLM-L6-v2", "dim": 128},
    },
    "index_versions": {"v1": V1, "v2": V2},
}
OLD = ("vacation.md", "expenses.txt", "security.md", "teams/garden.md")
RECENT = ("onboarding.html", "kitchen.txt", "teams/library.txt")
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These tests are not about meaning."""
    with fake_embedder():
        yield


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four documents of last month and three of today, under `v1`; `v2` waits for a person."""
    project = Project(tmp_path_factory.mktemp("versions") / "project", CLEAN)
    last_month = (NOW - timedelta(days=30)).timestamp()
    for name in OLD:
        os.utime(project.path(name), (last_month, last_month))
    project.configure(**SETTINGS)
    with fake_embedder():
        assert project.ingest().problems == ()
    project.save()
    return project


@pytest.fixture
def project(ingested: Project) -> Project:
    """The ingested project, as if nothing had happened since."""
    return ingested.restore()


def build_version(project: Project, name: str, since: datetime | None = None) -> IngestReport:
    """What `ragassets index build` does."""
    with DagsterInstance.ephemeral() as instance:
        return build(
            WorkspaceResource(project.config),
            instance,
            name,
            since=since,
            progress=lambda *_: None,
        )


def indexed(project: Project, version: str = "v2") -> set[str]:
    """Names of the documents in a collection."""
    rows = project.rows(INDEXED_CHUNKS.outputs, pl.col("index_version") == version)
    return {uri.removeprefix(project.uri("")).lstrip("/") for uri in rows["uri"]}


class TestWindows:
    def test_a_manual_version_waits(self, project: Project) -> None:
        """Nobody may pay for a model that was only written down."""
        assert indexed(project) == set()
        assert "other" not in "".join(project.rows(EMBEDDINGS.outputs)["embedding_set"].unique())

    def test_recent_documents_come_first_and_the_rest_stays_planned(self, project: Project) -> None:
        report = build_version(project, "v2", since=NOW - timedelta(days=7))
        assert indexed(project) == set(RECENT)
        chunked = project.rows(CHUNKS.outputs, pl.col("chunking") == "small")
        assert set(chunked["uri"]) == {project.uri(name) for name in RECENT}
        assert counts(report, "parsed_documents") == (0, 0, 0)
        assert report.problems == ()
        assert len(report.planned) == 1
        assert "`ragassets index build v2`" in report.planned[0]
        assert project.disagreements() == []

    def test_a_version_of_recent_documents_cannot_be_served(self, project: Project) -> None:
        """It lacks documents: half of the searches would find nothing."""
        build_version(project, "v2", since=NOW - timedelta(days=7))
        switch = AliasSwitch("documents", "v1", "v2", "promote", "", "a test")
        with pytest.raises(Exception, match="4 documents are not chunked"):
            switch_alias(project.workspace, switch, _context())

    def test_the_rest_follows_and_what_is_there_is_reused(self, project: Project) -> None:
        first = build_version(project, "v2", since=NOW - timedelta(days=7))
        second = build_version(project, "v2")
        assert indexed(project) == set(CLEAN)
        assert counts(second, "embeddings")[1] == counts(first, "embeddings")[0] > 0
        assert second.problems == second.planned == ()
        assert project.disagreements() == []

    def test_a_window_only_grows(self, project: Project) -> None:
        """A second, shorter window must not delete what the first one built."""
        build_version(project, "v2", since=NOW - timedelta(days=60))
        assert indexed(project) == set(CLEAN)
        build_version(project, "v2", since=NOW - timedelta(days=7))
        assert indexed(project) == set(CLEAN)
        build_version(project, "v2")
        build_version(project, "v2", since=NOW - timedelta(days=7))
        assert indexed(project) == set(CLEAN)

    def test_a_shared_chunking_covers_the_widest_window(self, project: Project) -> None:
        """`v1` needs all chunks; a window of `v2` must not take them away."""
        project.configure(index_versions={"v1": V1, "v2": {**V2, "chunking": "recursive-256"}})
        n_chunks = project.rows(CHUNKS.outputs).height
        build_version(project, "v2", since=NOW - timedelta(days=7))
        assert project.rows(CHUNKS.outputs).height == n_chunks
        assert indexed(project) == set(RECENT)
        assert indexed(project, "v1") == set(CLEAN)

    def test_an_automatic_version_gets_the_rest_with_the_next_ingestion(
        self, project: Project
    ) -> None:
        project.configure(index_versions={"v1": V1, "v2": {**V2, "backfill": "auto"}})
        build_version(project, "v2", since=NOW - timedelta(days=7))
        assert indexed(project) == set(RECENT)
        assert project.ingest().problems == ()
        assert indexed(project) == set(CLEAN)


class TestLiveUpdates:
    def test_a_version_under_construction_follows_the_source(self, project: Project) -> None:
        """None is behind at the switch."""
        build_version(project, "v2")
        project.write("new.txt", "The bicycle shed is locked at nine; its code is on the intranet.")
        project.edit("vacation.md", "thirty days", "thirty-five days")
        project.path("kitchen.txt").unlink()
        assert project.ingest().problems == ()
        for version in ("v1", "v2"):
            assert indexed(project, version) == {*CLEAN, "new.txt"} - {"kitchen.txt"}
            assert project.holds_text("thirty-five days", version)
        assert project.disagreements() == []

    def test_new_documents_reach_a_version_of_recent_ones(self, project: Project) -> None:
        """The old ones stay planned; an edited one is recent."""
        build_version(project, "v2", since=NOW - timedelta(days=7))
        project.write("new.txt", "The bicycle shed is locked at nine; its code is on the intranet.")
        project.edit("vacation.md", "thirty days", "thirty-five days")
        report = project.ingest()
        assert indexed(project) == {*RECENT, "new.txt", "vacation.md"}
        assert report.problems == ()
        assert len(report.planned) == 1


class TestNames:
    @pytest.mark.parametrize(
        ("section", "name", "key", "old", "new"),
        [
            ("chunkings", "recursive-256", "max_tokens", 256, 128),
            ("embedding_models", "minilm", "dim", 384, 256),
            ("index_versions", "v1", "distance", "cosine", "dot"),
        ],
    )
    def test_a_name_keeps_its_meaning_once_it_is_built(
        self, project: Project, section: str, name: str, key: str, old: object, new: object
    ) -> None:
        """A version that is served and was judged would turn into another one under the hand."""
        before = project.content()
        changed = {**SETTINGS[section], name: {**SETTINGS[section][name], key: new}}
        project.configure(**{section: changed})
        for compute in (project.ingest, lambda: build_version(project, "v1")):
            with pytest.raises(ConfigurationError) as caught:
                compute()
            assert str(caught.value).startswith(
                f"{section}.{name}.{key}: {new!r} was {old!r} when {name!r} was built. Put"
            )
            assert "a new name" in str(caught.value)
        project.configure(**SETTINGS)
        assert before.differences(project.content()) == []
        assert project.ingest().problems == ()

    def test_what_decides_no_vector_may_change(self, project: Project) -> None:
        models = {
            **SETTINGS["embedding_models"],
            "minilm": {"model": "all-MiniLM-L6-v2", "dim": 384, "batch_tokens": 1024},
        }
        project.configure(embedding_models=models)
        report = project.ingest()
        assert report.problems == ()
        assert counts(report, "embeddings")[0] == 0

    def test_a_name_that_was_never_built_may_change(self, project: Project) -> None:
        """`v2` waits: its settings are still being written."""
        chunkings = {**SETTINGS["chunkings"], "small": {"max_tokens": 48, "overlap_tokens": 4}}
        project.configure(chunkings=chunkings)
        assert project.ingest().problems == ()
        assert build_version(project, "v2").problems == ()


def _context() -> object:
    from ragassets.core.stages import RunContext

    return RunContext("a-run", lambda: NOW)
