"""146 real documents in 23 formats through the whole pipeline, not through the parsers alone."""

import re
import shutil
import unicodedata
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from ragassets.core.asset_tables import (
    CHUNKS,
    CLEAN_DOCUMENTS,
    DEAD_LETTERS,
    INDEXED_CHUNKS,
    UNIQUE_DOCUMENTS,
)
from ragassets.defs.ingest import IngestReport
from ragassets_tests.corpora import corpus, documents_manifest
from ragassets_tests.scenario import Project, fake_embedder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

ENTRIES = documents_manifest()

REFUSALS: Mapping[str, frozenset[str]] = {
    "encrypted": frozenset({"encrypted"}),
    # A PDF whose pages are lost opens, and has no text.
    "corrupt": frozenset({"corrupt", "empty"}),
    "unsupported": frozenset({"unsupported_format"}),
    "empty": frozenset({"empty"}),
    "no_text": frozenset({"empty", "needs_ocr", "unsupported_format"}),
    "ocr": frozenset({"needs_ocr", "unsupported_format"}),
}
"""Reasons that a document of each expectation may be refused with."""

INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def normal(text: str) -> str:
    """The corpus's rule: NFKC, no soft hyphens, zero-width or direction marks, one space."""
    return " ".join(INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).split())


@pytest.fixture(scope="module")
def ingestion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, IngestReport]:
    """The whole corpus, ingested with a fake model."""
    project = Project(tmp_path_factory.mktemp("documents") / "project")
    project.configure(workers=None)
    shutil.copytree(corpus("documents"), project.documents, dirs_exist_ok=True)
    project.path("manifest.jsonl").unlink()
    with fake_embedder():
        report = project.ingest()
    return project, report


@pytest.fixture(scope="module")
def project(ingestion: tuple[Project, IngestReport]) -> Project:
    """The project alone."""
    return ingestion[0]


def uri_of(project: Project, entry: Mapping[str, Any]) -> str:
    """A document's URI in the project."""
    return project.uri(str(entry["path"]).removeprefix("documents/"))


def test_the_run_succeeds_and_every_document_is_accounted_for(
    ingestion: tuple[Project, IngestReport],
) -> None:
    """Searchable, a duplicate of something searchable, or a dead letter; nothing in between."""
    project, report = ingestion
    assert report.problems == ()
    assert report.n_discovered == len(ENTRIES) == 146
    assert project.disagreements() == []
    catalog = project.workspace.catalog.documents()
    statuses = {row.uri: row.status for row in catalog}
    assert len(statuses) == len(ENTRIES)
    assert set(statuses.values()) == {"searchable", "duplicate", "dead_letter"}
    letters = set(project.rows(DEAD_LETTERS)["uri"])
    assert letters == {uri for uri, status in statuses.items() if status == "dead_letter"}


@pytest.mark.parametrize("expectation", sorted(REFUSALS))
def test_what_holds_no_text_is_a_dead_letter_with_its_reason(
    project: Project, expectation: str
) -> None:
    """A person who asks why a document is not found must get an answer to act on."""
    letters = project.rows(DEAD_LETTERS)
    reasons: dict[str, str] = dict(letters.select("uri", "reason").iter_rows())
    indexed = set(project.rows(INDEXED_CHUNKS.outputs)["uri"])
    wrong: list[str] = []
    for entry in (entry for entry in ENTRIES if entry["expectation"] == expectation):
        uri = uri_of(project, entry)
        if uri in indexed and expectation in ("no_text", "ocr"):
            continue  # what little text layer there is may be searched
        if reasons.get(uri) not in REFUSALS[expectation] or uri in indexed:
            wrong.append(f"{entry['path']}: {reasons.get(uri)}")
    assert wrong == []


def test_phrases_of_every_readable_document_reach_clean_text_and_chunks(project: Project) -> None:
    """Validation, cleaning and chunking may lose nothing that the parsers found."""
    letters = project.rows(DEAD_LETTERS)
    reasons: dict[str, str] = dict(letters.select("uri", "reason").iter_rows())
    clean: dict[str, str] = dict(
        project.rows(CLEAN_DOCUMENTS.outputs).select("uri", "text").drop_nulls().iter_rows()
    )
    chunks = project.rows(CHUNKS.outputs).sort("document_id", "start_char")
    chunked: dict[str, str] = dict(
        chunks.group_by("uri", maintain_order=True).agg(pl.col("text").str.join(" ")).iter_rows()
    )
    unique = project.rows(UNIQUE_DOCUMENTS.outputs)
    duplicates = set(unique.filter(pl.col("duplicate_of").is_not_null())["uri"])
    lost: list[str] = []
    for entry in (entry for entry in ENTRIES if entry["expectation"] == "text"):
        uri = uri_of(project, entry)
        if reasons.get(uri) == "missing_converter":
            continue
        if uri not in clean or (uri not in chunked and uri not in duplicates):
            lost.append(f"{entry['path']}: {reasons.get(uri, 'no dead letter')}")
            continue
        text = normal(clean[uri])
        lost += [
            f"{entry['path']}: {phrase!r}"
            for phrase in entry["phrases"]
            if normal(phrase) not in text
        ]
        lost += [
            f"{entry['path']}: {phrase!r} is shown"
            for phrase in entry.get("forbidden", ())
            if normal(phrase) in text
        ]
        if uri in chunked:
            searchable = normal(chunked[uri])
            lost += [
                f"{entry['path']}: {phrase!r} is in no chunk"
                for phrase in entry["phrases"]
                if normal(phrase) in text and not _is_covered(normal(phrase), searchable)
            ]
    assert lost == []


def _is_covered(phrase: str, chunks: str) -> bool:
    """Whether every word of a phrase that a cut may have divided is in the chunks."""
    return phrase in chunks or all(word in chunks for word in phrase.split())
