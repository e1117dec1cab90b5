"""What the queries say in states that a healthy ingestion never leaves behind."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    INDEX_VERSIONS,
    INDEXED_CHUNKS,
    RAW_DOCUMENTS,
    SOURCE_OBJECTS,
)
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import SHARD
from ragassets.core.tables import TableSpec
from ragassets.errors import ConfigurationError, UnknownDocumentError
from ragassets.queries.documents import candidate_uris, find_document, near_matches
from ragassets.queries.index_versions import list_index_versions
from ragassets.queries.json_values import json_value
from ragassets.queries.questions import parse_batch
from ragassets.queries.remedies import REMEDIES, remedy
from ragassets.queries.search import Target, resolve_target, search
from ragassets.queries.status import read_status
from ragassets.queries.why import explain_document
from ragassets_tests.small_project import SmallProject, small_project


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> SmallProject:
    return small_project(tmp_path_factory.getbasetemp()).copy(tmp_path / "project")


def reconfigured(project: SmallProject, old: str, new: str) -> Workspace:
    file = project.folder / "ragassets.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    return project.workspace()


def change(workspace: Workspace, spec: TableSpec, document: str, /, **columns: pl.Expr) -> None:
    """Change one document's row behind the back of the engine."""
    snapshot = workspace.tables.snapshot(spec)
    rows = workspace.tables.read_at(snapshot)
    shard = rows.filter(pl.col("uri") == document)[SHARD][0]
    changed = rows.filter(pl.col(SHARD) == shard).with_columns(
        pl.when(pl.col("uri") == document).then(value).otherwise(pl.col(name)).alias(name)
        for name, value in columns.items()
    )
    workspace.tables.replace(snapshot, [{SHARD: shard}], changed)


class TestVersions:
    def test_nothing_is_stale_right_after_an_ingestion(self, project: SmallProject) -> None:
        """Guards the hash that `staleness` shares with the stage: if they part, all is stale."""
        versions = {
            entry.index_version: entry for entry in list_index_versions(project.workspace())
        }
        assert versions["v1"].stale == 0
        assert versions["v2"].stale == 4

    def test_a_change_of_metadata_makes_the_payloads_stale(self, project: SmallProject) -> None:
        workspace = reconfigured(project, "year: 2026", "year: 2027")
        assert list_index_versions(workspace)[0].stale == 4

    def test_rows_that_nothing_wants_are_stale_too(self, project: SmallProject) -> None:
        workspace = project.workspace()
        snapshot = workspace.tables.snapshot(INDEXED_CHUNKS.outputs)
        rows = workspace.tables.read_at(snapshot)
        extra = rows.head(1).with_columns(pl.lit("f" * 32).alias("chunk_id"))
        partition = {SHARD: extra[SHARD][0], "index_version": "v1"}
        same = rows.filter(pl.col(SHARD) == extra[SHARD][0])
        workspace.tables.replace(snapshot, [partition], pl.concat([same, extra]))
        version = list_index_versions(workspace)[0]
        assert (version.stale, version.state) == (1, "building")

    def test_an_incomplete_seal_says_why(self, project: SmallProject) -> None:
        workspace = project.workspace()
        snapshot = workspace.tables.snapshot(INDEX_VERSIONS)
        rows = workspace.tables.read_at(snapshot).with_columns(
            pl.lit("incomplete").alias("state"),
            pl.lit(["2 chunks have no embedding"]).alias("problems"),
        )
        workspace.tables.replace(snapshot, [{"index_version": "v1"}], rows)
        version = list_index_versions(workspace)[0]
        assert version.state == "incomplete"
        assert version.problems == ("2 chunks have no embedding",)

    @pytest.mark.parametrize("judged", ["expenses.txt", "moved/expenses.txt"])
    def test_a_zero_that_says_nothing_of_the_version_is_no_measure(
        self, project: SmallProject, judged: str
    ) -> None:
        """Golden queries of a folder that moved judge documents that nobody can find."""
        golden = project.folder / "golden.jsonl"
        line = {"query": "hotel", "relevant": {project.uri(judged): 1, project.uri("a.md"): 0}}
        golden.write_text(json.dumps(line) + "\n", encoding="utf-8")
        aliases = f"aliases: {{documents: {{live: v1, golden_queries: {golden}}}}}"
        workspace = reconfigured(project, "index_versions:", f"{aliases}\nindex_versions:")
        quality = {"n_queries": 1, "ndcg_at_10": 0.0, "recall_at_10": 0.0, "mrr_at_10": 0.0}
        snapshot = workspace.tables.snapshot(INDEX_VERSIONS)
        rows = workspace.tables.read_at(snapshot)
        rows = rows.with_columns(pl.lit(json.dumps(quality)).alias("quality"))
        workspace.tables.replace(snapshot, [{"index_version": "v1"}], rows)
        version = list_index_versions(workspace)[0]
        shown = project.run("status").stdout
        assert version.quality == quality
        if judged == "expenses.txt":
            assert version.quality_note == ""
            assert " 0.000 " in shown
            assert "attention" not in shown
            return
        assert version.quality_note.startswith("not one document that the golden queries judge is")
        assert f"such as {project.uri(judged)};" in version.quality_note
        assert " 0.000 " not in shown
        assert f"attention: v1 is not judged: {version.quality_note}" in shown.splitlines()

    def test_a_version_that_left_the_configuration_stays_visible(
        self, project: SmallProject
    ) -> None:
        """Its collection still takes disk, and an alias may still serve it."""
        aliases = "aliases: {documents: {live: v3}}"
        workspace = reconfigured(
            project, "index_versions:\n  v1: {", f"{aliases}\nindex_versions:\n  v3: {{"
        )
        versions = {entry.index_version: entry for entry in list_index_versions(workspace)}
        assert versions["v1"].state == "unconfigured"
        assert versions["v1"].live
        assert versions["v1"].points == 4
        with pytest.raises(ConfigurationError, match="'v1' is not defined"):
            resolve_target(workspace)


class TestStatus:
    def test_a_changed_document_is_pending(self, project: SmallProject) -> None:
        workspace = project.workspace()
        change(workspace, SOURCE_OBJECTS, project.uri("expenses.txt"), etag=pl.lit("new"))
        status = read_status(workspace).sources["office"]
        assert (status.pending, status.unique_documents) == (1, 4)

    def test_a_passing_failure_is_pending_until_it_is_given_up(self, project: SmallProject) -> None:
        workspace = project.workspace()
        uri = project.uri("expenses.txt")
        for attempts, n_pending in ((1, 1), (MAX_TRANSIENT_ATTEMPTS, 0)):
            fail_transiently(workspace, uri, attempts)
            assert read_status(workspace).sources["office"].pending == n_pending

    def test_a_source_that_left_the_configuration_stays_visible(
        self, project: SmallProject
    ) -> None:
        status = read_status(reconfigured(project, "  office:", "  bureau:"))
        assert status.sources["office"].configured is False
        assert status.sources["office"].documents == 7
        assert status.sources["bureau"].documents == 0


def fail_transiently(workspace: Workspace, uri: str, attempts: int) -> None:
    """What the engine writes when a file cannot be fetched while an old state is there."""
    now = pl.lit(datetime(2026, 1, 1, tzinfo=UTC))
    change(
        workspace,
        RAW_DOCUMENTS.outputs,
        uri,
        failed_input_hash=pl.lit("f" * 32),
        error_category=pl.lit("service"),
        error_reason=pl.lit("source_unavailable"),
        error_type=pl.lit("SourceUnavailableError"),
        error_message=pl.lit("cannot be read"),
        is_transient=pl.lit(value=True),
        attempts=pl.lit(attempts),
        first_failed_at=now,
        last_failed_at=now,
        failed_run_id=pl.lit("r"),
    )


class TestWhy:
    def test_a_duplicate_names_its_survivor(self, project: SmallProject) -> None:
        workspace = project.workspace()
        pair = {
            name: explain_document(workspace, project.path(name))
            for name in ("security.md", "copy of security.md")
        }
        (duplicate,) = [found for found in pair.values() if found.duplicate_of]
        (survivor,) = [found for found in pair.values() if not found.duplicate_of]
        assert duplicate.verdict == (
            f"not searchable under its own name: it is the same text as {survivor.uri}"
            " (similarity 1.00), which is searchable"
        )
        states = {step.stage: step.state for step in duplicate.stages}
        assert states["unique_documents"] == "duplicate"
        assert states["chunks"] == "not reached"

    def test_a_document_that_is_gone_says_since_when(self, project: SmallProject) -> None:
        workspace = project.workspace()
        for name in ("empty.md", "expenses.txt"):
            change(
                workspace,
                SOURCE_OBJECTS,
                project.uri(name),
                is_deleted=pl.lit(value=True),
                changed_at=pl.lit(datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)),
            )
        gone = explain_document(workspace, project.path("empty.md"))
        assert gone.verdict == (
            "not searchable: it is gone from source 'office' since 2026-02-03 04:05:06Z"
        )
        going = explain_document(workspace, project.path("expenses.txt"))
        assert going.verdict.startswith("still searchable, although it is gone")

    def test_an_edit_that_was_not_taken_in_yet_is_told(self, project: SmallProject) -> None:
        workspace = project.workspace()
        change(workspace, SOURCE_OBJECTS, project.uri("expenses.txt"), etag=pl.lit("new"))
        found = explain_document(workspace, project.path("expenses.txt"))
        assert found.verdict == (
            "searchable in v1 (alias documents), in an older state: raw_documents has not taken in"
            " its last change"
        )

    def test_a_version_without_alias_is_told_apart(self, project: SmallProject) -> None:
        (project.folder / ".ragassets" / "qdrant" / "aliases.json").unlink()
        found = explain_document(project.workspace(), project.path("expenses.txt"))
        assert found.searchable is False
        assert found.verdict == (
            "searchable with --index only, no alias serves it: in v1 (no alias)"
        )

    def test_a_file_that_is_newer_than_the_last_listing_is_told(
        self, project: SmallProject
    ) -> None:
        new = project.documents / "brand new.md"
        new.write_text("new", encoding="utf-8")
        try:
            with pytest.raises(UnknownDocumentError) as caught:
                explain_document(project.workspace(), str(new))
        finally:
            new.unlink()
        assert "was not listed since 20" in caught.value.explanation
        assert "run `ragassets ingest office`" in caught.value.explanation
        assert caught.value.near == []

    def test_a_path_outside_of_every_source_names_the_sources(self, project: SmallProject) -> None:
        with pytest.raises(UnknownDocumentError, match="it lies outside of every source: office"):
            explain_document(project.workspace(), "/nowhere/at all.md")


class TestDocuments:
    def test_a_path_with_signs_that_uris_use_is_one_file_name(self) -> None:
        assert candidate_uris("/a/50% of #1?.md")[0] == "file:///a/50%25%20of%20%231%3F.md"
        assert "file:///a/50%25%20of%20%231%3F.md" in candidate_uris("file:///a/50% of #1?.md")
        assert candidate_uris("/a/b/../c.md")[0] == "file:///a/c.md"

    def test_a_source_that_was_written_with_dots_is_found(self, project: SmallProject) -> None:
        """Older tables may hold `..` in URIs, and nobody types those."""
        workspace = project.workspace()
        uri = project.uri("expenses.txt")
        dotted = uri.replace("/documents/", "/project/../documents/")
        change(workspace, SOURCE_OBJECTS, uri, uri=pl.lit(dotted))
        assert find_document(workspace, project.path("expenses.txt")).uri == dotted

    def test_near_matches_prefer_the_same_file_name(self) -> None:
        known = ["file:///a/x/leave.md", "file:///a/y/leaves.md", "file:///a/z/other.txt"]
        assert near_matches("file:///b/Leave.md", known) == ["file:///a/x/leave.md"]
        assert near_matches("file:///b/leavs.md", known)[0] == "file:///a/y/leaves.md"
        assert near_matches("file:///b/zzzzzzzz", known) == []


class TestSearch:
    def test_a_sparse_search_loads_no_model(
        self, project: SmallProject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_arguments: object) -> None:
            pytest.fail("a model was opened")

        monkeypatch.setattr(Workspace, "embedder", refuse)
        (hits,) = search(project.workspace(), Target("v1", None), ["hotel"], mode="sparse")
        assert hits[0].uri == project.uri("expenses.txt")

    def test_text_that_no_encoding_has_is_searched_anyway(self, project: SmallProject) -> None:
        """An undecodable byte in an argument arrives as a lone surrogate."""
        (hits,) = search(project.workspace(), Target("v1", None), ["hotel \udcff"], mode="sparse")
        assert hits

    @pytest.mark.parametrize("line", ["[]", "{}", '{"query": 1}', '{"query": " "}', "{", '"query"'])
    def test_every_kind_of_bad_batch_line_is_named(self, line: str) -> None:
        text = f'{{"query": "a"}}\n{line}\n{{"query": "b"}}\n'
        with pytest.raises(ConfigurationError, match="file:2"):
            parse_batch(text, origin="file")

    def test_an_empty_batch_is_no_query(self) -> None:
        assert parse_batch("\n", origin="file") == []


class TestRemedies:
    def test_every_reason_of_our_errors_has_one(self) -> None:
        """The list of reasons is written out in `errors.py` and `core/validation.py`."""
        from ragassets import errors
        from ragassets.core.validation import RejectionReason

        kinds = (errors.DocumentError, errors.StageError)
        classes = [
            kind
            for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, kinds) and kind is not kinds[0]
        ]
        reasons = {kind.reason for kind in classes if kind is not errors.RejectedDocumentError}
        missing = (reasons | {str(reason) for reason in RejectionReason}) - set(REMEDIES)
        assert missing == set()

    def test_an_unknown_reason_still_gets_advice(self) -> None:
        assert "ragassets ingest" in remedy("brand_new")
        assert remedy(None) == ""


def test_json_values_of_what_queries_hold() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert json_value({"a": (1, moment), "b": {"y", "x"}, "c": None}) == {
        "a": [1, "2026-01-02T00:00:00+00:00"],
        "b": ["x", "y"],
        "c": None,
    }
