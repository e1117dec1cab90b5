"""What rows and points say of what made them; and that nothing is made anew because of it."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from ragassets.core import stages, versions
from ragassets.core.asset_tables import (
    ALIAS_SWITCHES,
    DEAD_LETTERS,
    EMBEDDINGS,
    INDEX_VERSIONS,
    INDEXED_CHUNKS,
    SOURCE_OBJECTS,
    STAGES,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.indexing import VERSIONS
from ragassets.core.versions import PIPELINE_VERSION, RELEASE, STAGE_VERSIONS, model_version
from ragassets.queries.search import Target, search
from ragassets_tests.scenario import CLEAN, Project, counts, fake_embedder

NEW_COLUMNS = (
    "pipeline_version",
    "source_version",
    "failed_pipeline_version",
    "version_id",
    "embedding_model",
    "embedding_model_version",
)
"""Columns that tables of release 0.1.0 did not always have."""

OTHER_TABLES = (SOURCE_OBJECTS, INDEX_VERSIONS, ALIAS_SWITCHES, DEAD_LETTERS)
"""Assets beside the stages."""

DOCUMENTS = {name: CLEAN[name] for name in ("vacation.md", "expenses.txt", "security.md")}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Three documents and a broken one, ingested once."""
    made = Project(
        tmp_path_factory.mktemp("versions") / "project",
        {**DOCUMENTS, "broken.pdf": b"%PDF-1.7\nno PDF\n%%EOF\n"},
    )
    made.configure_source(shards=1)
    with fake_embedder():
        made.ingest()
        made.save()
        yield made


@pytest.fixture
def project(ingested: Project) -> Project:
    """The same for each test."""
    return ingested.restore()


def points(project: Project) -> dict[str, dict[str, object]]:
    """What every point says of what it was written with, by its text's first words."""
    hits = project.search("the", limit=50)
    return {str(hit["text"])[:12]: dict(hit[VERSIONS]) for hit in hits}  # type: ignore[call-overload]


def install(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Another release is installed."""
    original = stages.RunContext.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **{"pipeline_version": version, **kwargs})

    monkeypatch.setattr(stages.RunContext, "__init__", init)


def test_every_row_and_point_tells_what_made_it(project: Project) -> None:
    """Requirement I2: pipeline, index and model version on every record."""
    etag = {
        str(row["uri"]): str(row["etag"])
        for row in project.rows(STAGES[0].outputs).iter_rows(named=True)
    }
    for stage in STAGES:
        made = project.rows(stage.outputs, pl.col("output_hash").is_not_null())
        assert made.height >= 3, stage.name
        assert set(made["pipeline_version"]) == {PIPELINE_VERSION}, stage.name
        said = dict(made.select("uri", "source_version").iter_rows())
        assert said == {uri: etag[uri] for uri in said}, stage.name
        failed = (
            project.rows(stage.outputs, pl.col("output_hash").is_null())
            if stage.has_inline_failures
            else project.rows(stage.failures)
        )
        assert set(failed["failed_pipeline_version"]) <= {PIPELINE_VERSION}
    for spec in OTHER_TABLES:
        assert set(project.rows(spec)["pipeline_version"]) == {PIPELINE_VERSION}, spec.name
    weights = project.workspace.model_version("minilm")
    for stage in (EMBEDDINGS, INDEXED_CHUNKS):
        named = project.rows(stage.outputs).select(
            "chunking", "embedding_model", "embedding_model_version"
        )
        assert named.unique().rows() == [("recursive-256", "minilm", weights)]
    found = points(project)
    assert len(found) == 3
    for said in found.values():
        assert said.pop("source_version") in etag.values()
        assert said == {
            "index_version": "v1",
            "chunking": "recursive-256",
            "embedding_model_version": weights,
            "pipeline_version": PIPELINE_VERSION,
        }


def test_a_hit_shows_what_its_point_was_written_with(project: Project) -> None:
    """Whoever doubts an answer can tell which software and which bytes it came from."""
    ((hit, *_),) = search(project.workspace, Target("v1", None), ["vacation"], mode="sparse")
    assert hit.as_json()["versions"]["pipeline_version"] == PIPELINE_VERSION  # type: ignore[index]


@pytest.mark.slow
def test_a_release_computes_nothing_and_what_is_new_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch of ragassets must not embed the world again."""
    before, commits = project.content(), project.versions()
    install(monkeypatch, "9.9.9+deadbeef")
    report = project.ingest()
    assert counts(report, "embeddings")[0] == 0
    assert project.versions() == commits
    assert before.differences(project.content()) == []
    project.write("security.md", "# Security\n\nDoors are locked at eight in the evening.")
    project.ingest()
    told = {said["pipeline_version"] for said in points(project).values()}
    assert told == {PIPELINE_VERSION, "9.9.9+deadbeef"}
    assert project.audit() == []
    assert project.disagreements() == []


@pytest.mark.slow
def test_tables_of_an_earlier_release_open_and_nothing_is_computed(project: Project) -> None:
    """The columns come with the first row that is written; older rows hold null there."""
    failures = [stage.failures for stage in STAGES if not stage.has_inline_failures]
    for spec in [*(stage.outputs for stage in STAGES), *failures, *OTHER_TABLES]:
        folder = project.folder / ".ragassets" / "tables" / spec.name
        if folder.exists():
            lacking = [*NEW_COLUMNS, *(["chunking"] if spec.name != "chunks" else [])]
            write_deltalake(
                str(folder),
                project.rows(spec).drop(lacking, strict=False),
                mode="overwrite",
                schema_mode="overwrite",
                partition_by=list(spec.partition_by),
            )
    commits = project.versions()
    report = project.ingest()
    assert [counts(report, stage.name)[0] for stage in STAGES] == [0] * len(STAGES)
    assert project.versions() == commits
    assert project.rows(INDEXED_CHUNKS.outputs)["pipeline_version"].null_count() == 3
    project.write("security.md", "# Security\n\nDoors are locked at eight in the evening.")
    project.ingest()
    for stage in STAGES:
        if stage is UNIQUE_DOCUMENTS:  # still no duplicate, so its row is the old one
            continue
        made = project.rows(stage.outputs, pl.col("output_hash").is_not_null())
        said = dict(made.select("uri", "pipeline_version").iter_rows())
        assert said.pop(project.uri("security.md")) == PIPELINE_VERSION, stage.name
    assert project.audit() == []


def test_the_release_is_the_package_s_own() -> None:
    """Two numbers that are kept by hand go apart."""
    setup = Path(versions.__file__).parents[2] / "setup.py"
    assert f'version="{RELEASE}"' in setup.read_text(encoding="utf-8")
    assert PIPELINE_VERSION.startswith(f"{RELEASE}+")
    assert len(PIPELINE_VERSION) == len(RELEASE) + 9
    assert STAGE_VERSIONS["chunks"]


@pytest.mark.parametrize(
    ("model", "revision", "expected"),
    [
        ("all-MiniLM-L6-v2", None, "all-MiniLM-L6-v2@0123456789ab"),
        ("BAAI/bge-small-en", "5c38ec7c", "BAAI/bge-small-en@5c38ec7c"),
        ("/srv/models/ours/", None, "ours@0123456789ab"),
    ],
)
def test_weights_are_named_by_revision_or_files(
    model: str, revision: str | None, expected: str
) -> None:
    """A path of this machine is nobody's business in a search hit."""
    assert model_version(model, revision, "0123456789abcdef") == expected
