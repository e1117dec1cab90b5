"""What a change costs and what it leaves behind, through the real ingestion and the real model.

Every scenario starts from the same ingested project, which is put back in place before each.
"""

import itertools
import os
import shutil

import polars as pl
import pytest
from dagster import AssetKey, DagsterInstance

from ragassets.adapters.sources.local_folder import LocalFolder
from ragassets.core.asset_tables import (
    CHUNKS,
    DEAD_LETTERS,
    EMBEDDINGS,
    INDEXED_CHUNKS,
    PARSED_DOCUMENTS,
    SOURCE_OBJECTS,
    STAGES,
)
from ragassets.core.fingerprints import document_id, shard_index
from ragassets.core.sources import SourceObject
from ragassets.defs.ingest import IngestReport
from ragassets.errors import SourceUnavailableError, UnknownNameError
from ragassets_tests.scenario import CLEAN, MANUAL, MIXED, Project, counts, manual

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

DOCUMENT_ASSETS = (
    "raw_documents",
    "parsed_documents",
    "valid_documents",
    "clean_documents",
    "_document_signatures",
    "unique_documents",
)
ASSETS = (*DOCUMENT_ASSETS, "chunks", "embeddings", "indexed_chunks")

N_DOCUMENTS = len(MIXED)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The mixed corpus, ingested once."""
    project = Project(tmp_path_factory.mktemp("changes") / "project", MIXED)
    report = project.ingest()
    assert report.problems == ()
    assert project.disagreements() == []
    project.save()
    return project


@pytest.fixture
def project(ingested: Project) -> Project:
    """The ingested project, as if nothing had happened since."""
    return ingested.restore()


def n_computed(report: IngestReport, *assets: str) -> dict[str, int]:
    """How many inputs each asset computed, those with none left out."""
    found = {name: counts(report, name)[0] for name in assets or ASSETS}
    return {name: number for name, number in found.items() if number}


def _shard_number(uri: str, n_shards: int) -> int:
    return shard_index(document_id("handbook", uri), n_shards)


def uris_in_tables(project: Project) -> set[str]:
    """URIs that any table but `source_objects` names."""
    tables = [stage.outputs for stage in STAGES] + [DEAD_LETTERS]
    return {uri for spec in tables for uri in project.rows(spec)["uri"]}


def document_of(project: Project, uri: str) -> str:
    """The id of a document by its URI."""
    return project.rows(SOURCE_OBJECTS, pl.col("uri") == uri)["document_id"].item()


class TestNothingChanged:
    def test_nothing_is_computed_and_no_table_gets_a_new_version(self, project: Project) -> None:
        """A schedule that runs every minute must cost next to nothing, on disk too."""
        versions, content = project.versions(), project.content()
        report = project.ingest()
        assert n_computed(report) == {}
        assert project.versions() == versions
        assert content.differences(project.content()) == []

    def test_data_versions_stay_so_that_automation_stays_quiet(self, project: Project) -> None:
        """A new data version would make Dagster run everything downstream."""
        with DagsterInstance.ephemeral() as instance:
            for _ in range(2):
                project.ingest(instance=instance)
            for asset in (*ASSETS, "dead_letters", "document_catalog", "index_versions"):
                events = instance.fetch_materializations(AssetKey(asset), limit=1000).records
                found: dict[str, list[str]] = {}
                for event in events:
                    tags = event.asset_materialization.tags  # type: ignore[union-attr]
                    partition = str(event.partition_key)
                    found.setdefault(partition, []).append(tags["dagster/data_version"])
                assert found, asset
                assert all(len(v) == 2 and len(set(v)) == 1 for v in found.values()), asset


class TestEdits:
    def test_one_paragraph_costs_a_few_chunks(self, project: Project) -> None:
        """The promise of the whole design: cost follows change."""
        before = project.rows(CHUNKS.outputs)
        old = (
            "The elevator is inspected twice a year by an engineer of the city authority. Note 2.0"
        )
        new = "Since spring the lift is examined every quarter by a firm from Rotterdam. Note 2.0"
        project.edit(MANUAL, old, new)
        report = project.ingest()
        computed, reused, _ = counts(report, "embeddings")
        assert 1 <= computed <= 3
        assert computed + reused == project.rows(CHUNKS.outputs).height
        assert n_computed(report, *DOCUMENT_ASSETS)["parsed_documents"] == 1
        assert project.disagreements() == []
        gone = set(before["chunk_id"]) - set(project.rows(CHUNKS.outputs)["chunk_id"])
        assert 1 <= len(gone) <= 3
        assert project.holds_text("a firm from Rotterdam")
        assert not project.holds_text("twice a year by an engineer of the city authority. Note 2.0")
        hit = project.search("Who examines the lift every quarter?", limit=1)[0]
        assert "Rotterdam" in str(hit["text"])

    def test_a_shrunken_file_leaves_no_orphan(self, project: Project) -> None:
        """Old chunks beyond the new end are what other tools keep searchable."""
        project.write(MANUAL, manual().split("## Heating")[0])
        report = project.ingest()
        assert counts(report, "embeddings")[2] > 0
        assert project.disagreements() == []
        assert not project.holds_text("small brass key")

    def test_a_touched_file_is_fetched_and_nothing_else(self, project: Project) -> None:
        """A `git checkout` gives every file a new time."""
        path = project.path(MANUAL)
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))
        report = project.ingest()
        assert n_computed(report) == {"raw_documents": 1}
        assert project.disagreements() == []

    def test_a_rename_embeds_nothing(self, project: Project) -> None:
        """The text is the same, so its vectors are."""
        old, new = project.uri(MANUAL), project.uri("archive/house.md")
        project.path("archive").mkdir()
        project.path(MANUAL).rename(project.path("archive/house.md"))
        report = project.ingest()
        assert counts(report, "embeddings")[0] == 0
        assert report.problems == ()
        assert project.disagreements() == []
        assert old not in uris_in_tables(project)
        tombstone = project.rows(SOURCE_OBJECTS, pl.col("uri") == old)
        assert tombstone["is_deleted"].to_list() == [True]
        assert project.found_uris("radiators are bled in October")[0] == new
        assert old not in project.found_uris("radiators are bled in October", limit=50)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"metadata": {"team": "facility"}}, {"team": "facility", "acl": []}),
            ({"acl": ["group:staff"]}, {"acl": ["group:staff"]}),
        ],
    )
    def test_metadata_and_acl_reach_the_payload_and_embed_nothing(
        self, project: Project, change: dict[str, object], expected: dict[str, object]
    ) -> None:
        """Permissions change every day; they must not cost a model run."""
        project.configure_source(**change)
        report = project.ingest()
        n_points = project.rows(INDEXED_CHUNKS.outputs).height
        assert n_computed(report) == {"indexed_chunks": n_points}
        assert project.disagreements() == []
        hits = project.search("vacation", limit=n_points)
        assert len(hits) == n_points
        assert all(hit["metadata"] == expected for hit in hits)

    def test_another_tenant_reaches_the_payload_and_embeds_nothing(self, project: Project) -> None:
        """A source that changes hands must cost no model run, and no parser's either."""
        project.configure_source(tenant="acme")
        report = project.ingest()
        n_points = project.rows(INDEXED_CHUNKS.outputs).height
        assert n_computed(report) == {"indexed_chunks": n_points}
        assert project.disagreements() == []
        hits = project.search("vacation", limit=n_points)
        assert [hit["tenant"] for hit in hits] == ["acme"] * n_points

    def test_a_copy_of_another_tenant_is_searchable_beside_the_original(
        self, project: Project
    ) -> None:
        """A survivor in one tenant would be no answer in the other."""
        folder = project.folder / "copies"
        folder.mkdir()
        (folder / "vacation.md").write_text(CLEAN["vacation.md"], encoding="utf-8")
        source = {"uri": str(folder), "shards": 1}
        owners: dict[str, set[object]] = {}
        for tenant in (None, "globex"):
            project.configure_source("copies", **source, tenant=tenant)
            project.ingest()
            hits = project.search("paid vacation", limit=50)
            copies = [hit for hit in hits if hit["text"] in CLEAN["vacation.md"]]
            owners[str(tenant)] = {hit.get("tenant") for hit in copies}
            assert project.disagreements() == []
        assert owners == {"None": {None}, "globex": {None, "globex"}}

    def test_rules_of_a_document_type_change_chunks_only(self, project: Project) -> None:
        """Nothing is parsed, validated or cleaned again for another chunk size."""
        project.configure(document_types={"policy": {}})
        project.configure_source(document_type="policy")
        project.ingest()
        project.configure(document_types={"policy": {"max_tokens": 64, "overlap_tokens": 8}})
        before = project.rows(CHUNKS.outputs).height
        report = project.ingest()
        assert n_computed(report, *DOCUMENT_ASSETS) == {}
        assert n_computed(report, "chunks")["chunks"] == len(CLEAN) + 1
        assert project.rows(CHUNKS.outputs).height > before
        assert project.disagreements() == []

    def test_a_new_chunking_parses_nothing(self, project: Project) -> None:
        """It builds beside the old one, which stays as it is."""
        before = project.rows(INDEXED_CHUNKS.outputs)
        project.configure(
            chunkings={
                "recursive-256": {},
                "small": {"max_tokens": 64, "overlap_tokens": 8},
            },
            index_versions={
                "v1": {"chunking": "recursive-256", "embedding_model": "minilm"},
                "v2": {"chunking": "small", "embedding_model": "minilm"},
            },
        )
        report = project.ingest()
        assert n_computed(report, *DOCUMENT_ASSETS) == {}
        assert counts(report, "chunks")[0] == len(CLEAN) + 1
        assert project.disagreements() == []
        old = project.rows(INDEXED_CHUNKS.outputs, pl.col("index_version") == "v1")
        assert sorted(old["output_hash"]) == sorted(before["output_hash"])

    def test_a_new_model_chunks_nothing(self, project: Project) -> None:
        """Half the dimensions of the same model are another model to whatever stores them."""
        model = {"provider": "sentence-transformers", "model": "all-MiniLM-L6-v2"}
        project.configure(
            embedding_models={"minilm": {**model, "dim": 384}, "tiny": {**model, "dim": 128}},
            index_versions={
                "v1": {"chunking": "recursive-256", "embedding_model": "minilm"},
                "v2": {"chunking": "recursive-256", "embedding_model": "tiny"},
            },
        )
        n_chunks = project.rows(CHUNKS.outputs).height
        report = project.ingest()
        assert n_computed(report) == {"embeddings": n_chunks, "indexed_chunks": n_chunks}
        assert project.disagreements() == []
        found = project.found_uris("tomatoes and basil", version="v2", mode="dense")
        assert found[0] == project.uri("teams/garden.md")
        with project.workspace.vector_store() as store:
            assert store.aliases() == {"documents": "v1"}


class TestDeletions:
    def test_a_deleted_file_goes_from_everywhere(self, project: Project) -> None:
        """One single file may always go, whatever share of the source it is."""
        uri = project.uri("kitchen.txt")
        project.path("kitchen.txt").unlink()
        report = project.ingest()
        assert report.problems == ()
        assert uri not in uris_in_tables(project)
        assert project.workspace.catalog.document(uri) is None
        assert uri not in project.found_uris("coffee machine oat milk", limit=50)
        assert project.disagreements() == []

    def test_a_removed_survivor_promotes_its_duplicate(self, project: Project) -> None:
        """The text is still in the source, so it must stay searchable."""
        copy, original = project.uri("copies/vacation-copy.md"), project.uri("vacation.md")
        assert [u for u in project.found_uris("paid vacation", limit=50) if "vacation" in u] == [
            copy
        ]
        project.path("copies/vacation-copy.md").unlink()
        report = project.ingest()
        assert project.found_uris("thirty days of paid vacation")[0] == original
        assert counts(report, "embeddings")[0] == 0
        assert project.disagreements() == []

    @pytest.mark.parametrize("how", ["emptied", "vanished"])
    def test_an_empty_or_vanished_folder_deletes_nothing(self, project: Project, how: str) -> None:
        """It is a lost mount far more often than a decision."""
        content = project.content()
        shutil.rmtree(project.documents)
        if how == "emptied":
            project.documents.mkdir()
        report = project.ingest()
        assert content.differences(project.content()) == []
        assert len(report.problems) == 1
        expected = "--confirm-deletions" if how == "emptied" else "Nothing was deleted"
        assert expected in report.problems[0]
        assert project.found_uris("tomatoes and basil")[0] == project.uri("teams/garden.md")

    def test_a_confirmed_deletion_deletes(self, project: Project) -> None:
        """The way that the refusal names has to work."""
        for name in ("copies", "teams"):
            shutil.rmtree(project.path(name))
        for name in ("vacation.md", "kitchen.txt", "expenses.txt"):
            project.path(name).unlink()
        refused = project.ingest()
        assert "--confirm-deletions" in refused.problems[0]
        assert project.found_uris("tomatoes and basil")[0] == project.uri("teams/garden.md")
        report = project.ingest("handbook", confirmed=["handbook"])
        assert report.problems == ()
        assert counts(report, "raw_documents")[2] == 6
        assert project.disagreements() == []
        assert project.uri("teams/garden.md") not in uris_in_tables(project)

    def test_a_share_above_the_limit_is_refused(self, project: Project) -> None:
        """Three of eleven are more than a fifth; two are not."""
        assert N_DOCUMENTS == 11
        for name in ("kitchen.txt", "expenses.txt", "security.md"):
            project.path(name).unlink()
        report = project.ingest()
        assert "3 of 11" in report.problems[0]
        assert project.uri("kitchen.txt") in uris_in_tables(project)
        project.write("security.md", CLEAN["security.md"])
        report = project.ingest()
        assert report.problems == ()
        assert project.uri("kitchen.txt") not in uris_in_tables(project)
        assert project.uri("security.md") in uris_in_tables(project)
        assert project.disagreements() == []

    def test_an_incomplete_listing_deletes_nothing_and_says_why(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Below a folder without permission, everything looks deleted."""
        scandir = os.scandir

        def guarded(path: str) -> object:
            if str(path) == str(project.path("teams")):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", guarded)
        project.write("new.txt", "The new ping-pong table stands in the hall on the third floor.")
        report = project.ingest()
        assert "teams: Permission denied" in report.problems[0]
        assert project.found_uris("tomatoes and basil")[0] == project.uri("teams/garden.md")
        assert project.found_uris("ping-pong table")[0] == project.uri("new.txt")
        assert project.disagreements() == []


class TestFailures:
    def test_a_transient_error_keeps_the_old_version_and_stops_nobody(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An edited file that cannot be read for a moment must not vanish from search."""
        fetch = LocalFolder.fetch
        broken = project.uri("security.md")

        def failing(self: LocalFolder, wanted: SourceObject) -> bytes:
            if wanted.uri == broken:
                raise SourceUnavailableError(service=broken, detail="timed out")
            return fetch(self, wanted)

        project.edit("security.md", "sixteen", "eighteen")
        project.edit("kitchen.txt", "every Friday afternoon", "on Monday mornings")
        with monkeypatch.context() as patch:
            patch.setattr(LocalFolder, "fetch", failing)
            project.ingest()
        assert project.holds_text("sixteen characters")
        assert project.holds_text("Monday mornings")
        assert broken not in project.rows(DEAD_LETTERS)["uri"].to_list()
        project.ingest()
        assert project.holds_text("eighteen characters")
        assert not project.holds_text("sixteen characters")
        assert project.disagreements() == []

    def test_a_corrupt_edit_is_a_dead_letter_and_mending_brings_it_back(
        self, project: Project
    ) -> None:
        """The index never serves text that its source no longer holds."""
        uri = project.uri("onboarding.html")
        project.write("onboarding.html", b"%PDF-1.7\nno longer a page\n%%EOF\n")
        report = project.ingest()
        assert report.n_new_dead_letters == 1
        letter = project.rows(DEAD_LETTERS, pl.col("uri") == uri).to_dicts()
        assert [(row["stage"], row["reason"]) for row in letter] == [
            ("parsed_documents", "corrupt")
        ]
        assert uri not in project.found_uris("laptop, a badge and a mentor", limit=50)
        assert project.disagreements() == []
        project.write("onboarding.html", MIXED["onboarding.html"])
        report = project.ingest()
        assert counts(report, "embeddings")[0] <= 1
        assert project.rows(DEAD_LETTERS, pl.col("uri") == uri).is_empty()
        assert project.found_uris("laptop, a badge and a mentor")[0] == uri
        assert project.disagreements() == []

    def test_a_poison_document_is_not_parsed_again(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One broken file must not cost a parser run in every run for ever."""

        def refuse(*_: object, **__: object) -> None:
            pytest.fail("something was parsed again")

        monkeypatch.setattr("ragassets.stages.parsed_documents.parse_document", refuse)
        report = project.ingest()
        assert report.counts["parsed_documents"]["n_failed"] == 2
        assert report.counts["parsed_documents"]["n_newly_failed"] == 0
        assert report.n_new_dead_letters == 0
        assert report.n_dead_letters == 2


class TestShards:
    @pytest.mark.parametrize("n_shards", [6, 2])
    def test_another_number_of_shards_embeds_nothing_and_leaves_nothing(
        self, project: Project, n_shards: int
    ) -> None:
        """Documents change their shard; nobody who searches may notice."""
        before = project.content()
        project.configure_source(shards=n_shards)
        report = project.ingest()
        assert report.problems == ()
        assert counts(report, "embeddings")[0] == 0
        assert project.disagreements() == []
        shards = {f"handbook-{number:03d}" for number in range(n_shards)}
        for spec in [*(stage.outputs for stage in STAGES), SOURCE_OBJECTS, DEAD_LETTERS]:
            assert set(project.rows(spec)["source_shard"]) <= shards, spec.name
        after = project.content()
        assert before.vectors == after.vectors
        assert [p[:3] for p in before.points["v1"]] == [p[:3] for p in after.points["v1"]]
        assert n_computed(project.ingest()) == {}

    def test_a_document_that_waits_in_its_new_shard_stays_searchable_from_the_old_one(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A retry that is due must not cost the version that there is."""
        fetch = LocalFolder.fetch
        # Shards follow from absolute paths: a name that lies in the last of the four is looked for.
        names = (f"sauna-{number}.txt" for number in itertools.count())
        name = next(n for n in names if _shard_number(project.uri(n), n_shards=4) == 3)
        uri = project.uri(name)
        project.write(name, "The sauna in the basement is heated on Thursdays from six o'clock on.")
        project.ingest()

        def failing(self: LocalFolder, wanted: SourceObject) -> bytes:
            if wanted.uri == uri:
                raise SourceUnavailableError(service=uri, detail="timed out")
            return fetch(self, wanted)

        passage = project.chunk_texts(name)[0][:60]
        project.configure_source(shards=2)
        with monkeypatch.context() as patch:
            patch.setattr(LocalFolder, "fetch", failing)
            project.ingest()
        assert project.holds_text(passage)
        report = project.ingest()
        assert project.holds_text(passage)
        assert report.problems == ()
        assert counts(report, "embeddings")[0] == 0
        assert project.disagreements() == []

    def test_a_removed_source_is_kept_until_that_is_confirmed(self, project: Project) -> None:
        """A line lost from the configuration must not empty the index."""
        other = project.folder / "other"
        other.mkdir()
        (other / "badge.txt").write_text("A lost badge is reported to the reception desk at once.")
        handbook = project.settings["sources"]["handbook"]
        project.configure(sources={"other": {"uri": "./other", "shards": 2}})
        report = project.ingest()
        assert any("'handbook' is no longer configured" in line for line in report.problems)
        assert project.found_uris("tomatoes and basil")[0] == project.uri("teams/garden.md")
        assert project.found_uris("lost badge reception")[0] == (other / "badge.txt").as_uri()
        assert project.disagreements() == []

        report = project.ingest("handbook", confirmed=["handbook"])
        assert report.problems == ()
        for spec in [*(stage.outputs for stage in STAGES), DEAD_LETTERS]:
            assert set(project.rows(spec)["source"]) <= {"other"}, spec.name
        assert project.rows(SOURCE_OBJECTS, ~pl.col("is_deleted")).height == 1
        assert project.found_uris("tomatoes and basil") == [(other / "badge.txt").as_uri()]
        assert project.disagreements() == []
        with pytest.raises(UnknownNameError):
            project.ingest("handbook", confirmed=["handbook"])

        project.configure(sources={"handbook": handbook, "other": {"uri": "./other", "shards": 2}})
        assert project.ingest().problems == ()
        assert project.found_uris("tomatoes and basil")[0] == project.uri("teams/garden.md")
        assert project.disagreements() == []

    def test_a_number_of_shards_that_changed_twice_is_settled_too(self, project: Project) -> None:
        """Rows of the first number are not forgotten below those of the second."""
        before = project.content()
        for n_shards in (7, 3, 4):
            project.configure_source(shards=n_shards)
            report = project.ingest()
            assert counts(report, "embeddings")[0] == 0
            assert project.disagreements() == []
        # A broken document that moves is tried again, and its attempts say so.
        attempts = ("parsed_documents", "dead_letters")
        assert before.differences(project.content(), but=attempts) == []


def test_the_long_document_of_the_corpus_is_long_enough(ingested: Project) -> None:
    """With two chunks, an edit of one chunk would prove nothing."""
    project = ingested
    chunks = project.rows(EMBEDDINGS.outputs, pl.col("uri") == project.uri(MANUAL))
    assert chunks.height >= 8
    assert project.rows(PARSED_DOCUMENTS.outputs).height == N_DOCUMENTS
