"""The command from outside: shapes of JSON, exit codes, error lines, start-up cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from ragassets.config import load_config
from ragassets_tests.small_project import DOCUMENTS, SmallProject, run, small_project

HIT_KEYS = {
    "score", "text", "uri", "source", "document_id", "chunk_id", "page", "metadata", "tenant",
    "rerank_score", "versions",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    return small_project(tmp_path_factory.getbasetemp())


def one_line(text: str) -> str:
    """The text of an error: exactly one line, and no stack trace."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


class TestHelp:
    @pytest.mark.parametrize(
        "command",
        [
            [], ["init"], ["ingest"], ["search"], ["show"], ["status"], ["why"], ["audit"],
            ["doctor"], ["index"], ["index", "list"], ["index", "promote"], ["dead-letters"],
            ["dead-letters", "list"],
        ],
    )  # fmt: skip
    def test_a_flag_is_shown_without_a_value(self, command: list[str]) -> None:
        """`--json <bool>` reads as if one had to write `--json true`, which is refused."""
        text = run(*command, "--help").stdout
        assert "--help" in text
        assert "bool" not in text
        assert "[[" not in text

    def test_defaults_are_no_markup(self) -> None:
        """Square brackets are rich's own: unescaped they vanish, and the default with them."""
        text = " ".join(run("search", "--help").stdout.replace("│", " ").split())
        assert "[default: documents]" in text
        assert "[default: hybrid where there are sparse vectors]" in text


class TestIngest:
    def test_it_reports_in_the_public_shape(self, project: SmallProject) -> None:
        assert project.ingestion.exit_code == 0, project.ingestion.stderr
        report = json.loads(project.ingestion.stdout)
        documents = {"discovered": 7, "dead_lettered": 2, "reused": 0, "removed": 0}
        assert report["documents"].items() >= documents.items()
        assert report["embeddings"]["computed"] == 4
        assert report["indexed_chunks"]["upserted"] == 4
        assert report["problems"] == []
        assert {"runs", "documents", "chunks", "embeddings", "indexed_chunks", "seconds"} <= set(
            report
        )

    @pytest.mark.slow
    def test_dead_letters_are_told_apart_into_new_and_all(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        """Both were called dead letters, and nobody could tell which was which."""
        mine = project.copy(tmp_path / "project")
        lines = mine.run("ingest").stdout.splitlines()
        (documents,) = [line for line in lines if line.startswith("documents ")]
        assert documents.split(maxsplit=1)[1] == (
            "7 discovered, 7 reused, new dead letters 0 (2 in all)"
        )

    def test_progress_is_plain_where_nobody_looks(self, project: SmallProject) -> None:
        """A log must not fill with control characters, and stdout belongs to the result."""
        assert "embeddings: 4 of 4" in project.ingestion.stderr.splitlines()
        assert "\x1b" not in project.ingestion.stderr

    def test_an_unknown_source_is_wrong_use(self, project: SmallProject) -> None:
        result = project.run("ingest", "offices")
        assert result.exit_code == 2
        assert "'offices' is not defined. Known: office" in one_line(result.stderr)

    def test_deletions_are_confirmed_source_by_source(self, project: SmallProject) -> None:
        """A blanket yes would also delete from the source whose disk is just not mounted."""
        result = project.run("ingest", "--confirm-deletions")
        assert result.exit_code == 2
        assert "name the sources" in one_line(result.stderr)

    @pytest.mark.slow
    def test_an_emptied_source_deletes_nothing_until_it_is_confirmed(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        """An unmounted disk looks like an empty folder."""
        mine = project.copy(tmp_path / "project")
        file = mine.folder / "ragassets.yaml"
        empty = tmp_path / "empty"
        empty.mkdir()
        text = file.read_text(encoding="utf-8").replace(str(mine.documents), str(empty))
        file.write_text(text, encoding="utf-8")
        result = mine.run("ingest", "--json")
        assert result.exit_code == 1
        assert "ragassets ingest office --confirm-deletions" in result.stderr
        assert json.loads(result.stdout)["documents"]["removed"] == 0
        assert "7 of 7 documents" in mine.json("status")["sources"]["office"]["listing_problem"]
        assert mine.json("search", "hotel", "--mode", "sparse")["hits"]
        attention = [
            line for line in mine.run("status").stdout.splitlines() if line.startswith("attention")
        ]
        assert len(attention) == 1
        assert attention[0].startswith("attention: source 'office': the listing would remove")


class TestSearch:
    def test_a_hit_has_the_public_shape(self, project: SmallProject) -> None:
        found = project.json("search", "my laptop was stolen", "-k", "2")
        assert set(found) == {"hits"}
        first = found["hits"][0]
        assert set(first) == HIT_KEYS
        assert first["uri"] in {project.uri("security.md"), project.uri("copy of security.md")}
        assert first["source"] == "office"
        assert first["metadata"] == {"team": "people", "year": 2026, "acl": ["group:staff"]}
        assert len(first["document_id"]) == len(first["chunk_id"]) == 32

    @pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
    def test_every_mode_finds_the_article_number(self, project: SmallProject, mode: str) -> None:
        hits = project.json("search", "sensor XK-4711", "--mode", mode, "-k", "1")["hits"]
        assert [hit["uri"] for hit in hits] == [project.uri("größe/übersicht.html")]
        assert "%C3%BC" in hits[0]["uri"]

    def test_filters_must_all_hold(self, project: SmallProject) -> None:
        search = ("search", "leave", "--filter", "team=people", "--filter")
        assert project.json(*search, "year=2026")["hits"]
        assert project.json(*search, "acl=group:staff")["hits"]
        assert project.json(*search, "year=2025")["hits"] == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["search", ""], "query: '' is empty"),
            (["search", "   "], "is empty"),
            (["search"], "give either a query or --batch FILE"),
            (["search", "a", "--batch", "b"], "give either a query or --batch FILE"),
            (["search", "a", "-k", "0"], "greater than or equal to 1"),
            (["search", "a", "--filter", "team"], "'team' is not KEY=VALUE"),
            (["search", "a", "--filter", "a=1", "--filter", "a=2"], "'a' is given twice"),
            (["search", "a", "--alias", "docs"], "'docs' is not defined. Known: documents"),
            (["search", "a", "--index", "v9"], "'v9' is not defined. Known: v1, v2"),
            (["search", "a", "--index", "v2"], "Run `ragassets index build v2` first"),
            (["search", "a", "--index", "v1", "--alias", "documents"], "cannot be combined"),
            (["search", "a", "--mode", "fuzzy"], "'--mode': 'fuzzy' is not one of 'dense'"),
            (["show", "a", "--stage", "raw"], "'--stage': 'raw' is not one of 'parsed'"),
            (["search", "a", "--batch"], "--batch"),
            (["search", "--batch", "no such file"], "cannot be read"),
        ],
    )
    def test_wrong_use_is_one_line_and_exit_code_2(
        self, project: SmallProject, arguments: list[str], message: str
    ) -> None:
        result = project.run("--json", *arguments)
        assert result.exit_code == 2
        assert message in one_line(result.stderr)
        assert result.stdout == ""

    def test_a_batch_gives_one_line_for_each_in_order(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        file = tmp_path / "queries.jsonl"
        # A raw line separator is allowed inside a JSON string and must not split the line.
        queries = ["annual leave", "hotel\u2028receipt", "humidity sensor"]
        lines = [
            json.dumps({"query": text, "relevant": {}}, ensure_ascii=False) for text in queries
        ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        result = project.run("search", "--batch", str(file), "-k", "1")
        found = [json.loads(line) for line in result.stdout.split("\n") if line]
        assert [entry["query"] for entry in found] == queries
        assert [set(entry) for entry in found] == [{"query", "hits"}] * 3
        assert [entry["hits"][0]["uri"] for entry in found] == [
            project.uri("leave policy.md"),
            project.uri("expenses.txt"),
            project.uri("größe/übersicht.html"),
        ]

    def test_blank_lines_of_a_batch_are_skipped_and_counted(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        """Editors leave them, and a later error must name the line that a person sees."""
        file = tmp_path / "queries.jsonl"
        file.write_text('\n{"query": "leave"}\n  \n{"query": "hotel"}\n\n', encoding="utf-8")
        result = project.run("search", "--batch", str(file), "--mode", "sparse")
        found = [json.loads(line) for line in result.stdout.splitlines()]
        assert [entry["query"] for entry in found] == ["leave", "hotel"]
        file.write_text("\n\nleave\n", encoding="utf-8")
        assert f"{file}:3" in one_line(project.run("search", "--batch", str(file)).stderr)

    @pytest.mark.parametrize("key", ["taem", "metadata.taem"])
    def test_a_misspelt_filter_key_is_named_beside_the_empty_result(
        self, project: SmallProject, tmp_path: Path, key: str
    ) -> None:
        """No hits would look like no documents."""
        search = ("search", "leave", "--mode", "sparse", "--json", "--filter", f"{key}=people")
        result = project.run(*search)
        assert result.exit_code == 0
        assert json.loads(result.stdout) == {"hits": []}
        line = one_line(result.stderr)
        assert line.startswith(f"attention: --filter '{key}' is no key of any hit; did you mean")
        assert "'team'" in line
        assert "known: acl, document_id, document_type, language, page, source, team," in line
        file = tmp_path / "queries.jsonl"
        file.write_text('{"query": "leave"}\n{"query": "hotel"}\n', encoding="utf-8")
        batch = project.run("search", "--batch", str(file), *search[2:])
        assert [json.loads(line)["hits"] for line in batch.stdout.splitlines()] == [[], []]
        assert one_line(batch.stderr) == line

    def test_a_known_filter_key_without_a_match_is_just_no_hits(
        self, project: SmallProject
    ) -> None:
        result = project.run("search", "leave", "--mode", "sparse", "--filter", "team=sales")
        assert result.stdout == "No hits.\n"
        assert result.stderr == ""

    def test_a_bad_batch_line_is_named_before_anything_is_written(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        file = tmp_path / "queries.jsonl"
        file.write_text('{"query": "leave"}\n{"text": "leave"}\n', encoding="utf-8")
        result = project.run("search", "--batch", str(file))
        assert result.exit_code == 2
        assert f"{file}:2" in one_line(result.stderr)
        assert result.stdout == ""

    def test_people_get_score_place_and_text(self, project: SmallProject) -> None:
        result = project.run("search", "stolen laptop", "-k", "1", "--mode", "dense")
        first, second = result.stdout.splitlines()
        assert first.startswith("1. 0.")
        assert "security.md" in first
        assert "lock the accounts" in second


class TestShowAndWhy:
    def test_text_after_each_stage(self, project: SmallProject) -> None:
        path = project.path("größe/übersicht.html")
        for stage in ("parsed", "clean"):
            shown = project.json("show", path, "--stage", stage)
            assert set(shown) == {"uri", "stage", "text"}
            assert shown["uri"] == project.uri("größe/übersicht.html")
            assert "humidity sensor XK-4711" in shown["text"]

    def test_chunks_lie_in_the_clean_text(self, project: SmallProject) -> None:
        path = project.path("leave policy.md")
        text = project.json("show", path)["text"]
        shown = project.json("show", path, "--stage", "chunks")
        assert set(shown) >= {"uri", "stage", "chunks"}
        for chunk in shown["chunks"]:
            assert set(chunk) >= {"chunk_id", "text", "start_char", "end_char", "n_tokens"}
            assert text[chunk["start_char"] : chunk["end_char"]] == chunk["text"]

    def test_a_document_is_named_by_path_or_uri_however_it_is_spelled(
        self, project: SmallProject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(project.documents / "größe")
        uri = project.uri("leave policy.md")
        for spelling in (
            uri,
            uri.replace("%20", " "),
            "../leave policy.md",
            "./../leave policy.md",
        ):
            assert project.json("show", spelling)["uri"] == uri

    def test_what_failed_cannot_be_shown_and_says_why(self, project: SmallProject) -> None:
        result = project.run("show", project.path("broken.pdf"))
        assert result.exit_code == 1
        assert "parsed_documents failed: corrupt" in one_line(result.stderr)

    def test_why_gives_a_verdict_and_every_stage(self, project: SmallProject) -> None:
        found = project.json("why", project.path("leave policy.md"))
        assert found["verdict"] == "searchable in v1 (alias documents)"
        assert found["searchable"] is True
        assert [(step["stage"], step["state"]) for step in found["stages"]] == [
            ("raw_documents", "ok"),
            ("parsed_documents", "ok"),
            ("valid_documents", "ok"),
            ("clean_documents", "ok"),
            ("unique_documents", "ok"),
            ("chunks", "ok"),
            ("embeddings", "ok"),
            ("indexed_chunks", "ok"),
            ("indexed_chunks", "pending"),
        ]
        assert found["stages"][0]["details"]["content_hash"]
        assert found["stages"][1]["details"]["parser"] == "markdown"

    def test_the_verdict_comes_first_and_the_remedy_after_it(self, project: SmallProject) -> None:
        result = project.run("why", project.path("broken.pdf"))
        assert result.exit_code == 0
        verdict, remedy = result.stdout.splitlines()[:2]
        assert verdict.startswith("not searchable: parsed_documents failed: corrupt")
        assert remedy.startswith("Open the file with its own program")

    def test_an_unknown_document_names_near_matches(self, project: SmallProject) -> None:
        for command in ("show", "why"):
            result = project.run("--json", command, project.path("leave-policy.md"))
            assert result.exit_code == 2
            assert project.uri("leave policy.md") in one_line(result.stderr)
            assert result.stdout == ""

    def test_an_excluded_document_names_the_pattern(self, project: SmallProject) -> None:
        result = project.run("why", project.path("drafts/secret.md"))
        assert result.exit_code == 2
        assert "sources.office.exclude ['drafts/**'] leaves it out" in one_line(result.stderr)


class TestStatusAndLists:
    def test_status_counts_documents_and_points(self, project: SmallProject) -> None:
        found = project.json("status")
        assert set(found) == {"sources", "index_versions"}
        counts = {
            "documents": 7,
            "unique_documents": 4,
            "duplicates": 1,
            "dead_letters": 2,
            "pending": 0,
        }
        assert found["sources"]["office"].items() >= counts.items()
        built, unbuilt = found["index_versions"]["v1"], found["index_versions"]["v2"]
        assert built.items() >= {
            "chunks": 4, "embeddings": 4, "points": 4, "state": "sealed", "live": True, "stale": 0,
        }.items()  # fmt: skip
        assert unbuilt.items() >= {"points": 0, "state": "absent", "live": False}.items()

    def test_plain_status_has_one_record_a_line(self, project: SmallProject) -> None:
        lines = project.run("status").stdout.splitlines()
        assert any(line.startswith("office ") and " 7 " in line for line in lines)
        assert any(line.startswith("v1 ") and " sealed " in line for line in lines)

    def test_dead_letters_have_the_public_shape(self, project: SmallProject) -> None:
        letters = project.json("dead-letters", "list")["dead_letters"]
        assert {letter["reason"] for letter in letters} == {"corrupt", "empty"}
        keys = {"document_id", "source", "uri", "stage", "category", "reason", "attempts"}
        assert all(keys <= set(letter) for letter in letters)
        assert all(letter["attempts"] == 1 for letter in letters)
        only = project.json("dead-letters", "list", "--reason", "empty")["dead_letters"]
        assert [letter["uri"] for letter in only] == [project.uri("empty.md")]

    def test_a_dead_letter_shows_where_the_bytes_are(self, project: SmallProject) -> None:
        letters = project.json("dead-letters", "list", "--reason", "corrupt")["dead_letters"]
        for prefix in (letters[0]["document_id"][:10], letters[0]["dead_letter_id"][:10]):
            (shown,) = project.json("dead-letters", "show", prefix)["dead_letters"]
            assert Path(shown["raw_bytes"]).read_text(encoding="utf-8") == DOCUMENTS["broken.pdf"]
            assert "ragassets/core/parsing.py" in shown["stack_trace"]

    def test_a_misspelled_filter_is_not_an_empty_list(self, project: SmallProject) -> None:
        result = project.run("dead-letters", "list", "--reason", "currupt")
        assert result.exit_code == 2
        assert "Known: corrupt, empty" in one_line(result.stderr)

    def test_index_list_says_what_versions_are_made_of(self, project: SmallProject) -> None:
        versions = project.json("index", "list")["index_versions"]
        assert versions["v1"]["chunking"] == "recursive-256"
        assert versions["v2"]["backfill"] == "manual"

    def test_a_clean_audit_exits_with_0(self, project: SmallProject) -> None:
        found = project.json("audit")
        assert found["clean"] is True
        assert found["orphan_points"] == found["missing_points"] == found["stale_points"] == 0


class TestAliases:
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["promote", "v2"], 1, "was never built"),
            (["promote", "v9"], 2, "Known: v1, v2"),
            (["promote", "v1", "--alias", "docs"], 2, "Known: documents"),
            (["rollback"], 1, "There is nothing to roll back to"),
            (["build", "v9"], 2, "Known: v1, v2"),
        ],
    )
    def test_a_move_that_is_not_allowed_says_why_and_leaves_no_failed_run(
        self, project: SmallProject, arguments: list[str], code: int, message: str
    ) -> None:
        """The UI's list of runs is for what was tried, not for what could not be meant."""
        before = project.n_runs()
        result = project.run("index", *arguments)
        assert result.exit_code == code
        assert message in one_line(result.stderr)
        assert project.n_runs() == before

    def test_promoting_what_is_live_is_done_before_it_begins(self, project: SmallProject) -> None:
        before = project.n_runs()
        result = project.run("index", "promote", "v1")
        assert result.exit_code == 0
        assert result.stdout == "alias documents: serves v1 already; nothing to do\n"
        move = project.json("index", "promote", "v1")
        assert move == {
            "alias": "documents",
            "action": "promote",
            "from": "v1",
            "to": "v1",
            "canary_ended": None,
        }
        assert project.n_runs() == before

    @pytest.mark.slow
    def test_a_version_is_built_promoted_and_rolled_back(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        mine = project.copy(tmp_path / "project")
        built = mine.json("index", "build", "v2")
        assert built["embeddings"]["computed"] == 0
        assert built["indexed_chunks"]["upserted"] == 4
        move = mine.json("index", "promote", "v2", "--reason", "a test")
        assert (move["from"], move["to"]) == ("v1", "v2")
        live = {name: v["live"] for name, v in mine.json("status")["index_versions"].items()}
        assert live == {"v1": False, "v2": True}
        assert mine.run("search", "leave", "--mode", "sparse").exit_code == 2
        assert mine.json("index", "rollback")["to"] == "v1"
        assert mine.json("audit")["clean"] is True


class TestDoctor:
    def test_a_sound_project_passes(self, project: SmallProject) -> None:
        found = project.json("doctor")
        outcomes = {check["name"]: check["outcome"] for check in found["checks"]}
        assert found["ok"] is True
        assert outcomes["bundled model"] == outcomes["model minilm"] == "ok"
        assert outcomes["source office"] == outcomes["catalog"] == outcomes["dagster"] == "ok"

    def test_a_missing_source_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from ragassets.queries import doctor

        monkeypatch.setattr(doctor, "_check_models", lambda _workspace: iter(()))
        file = tmp_path / "ragassets.yaml"
        file.write_text("sources: {gone: {uri: ./gone}}\n", encoding="utf-8")
        result = run("doctor", "--config", str(file), "--json")
        assert result.exit_code == 1
        checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
        assert checks["source gone"]["outcome"] == "fail"
        assert "mend sources.gone.uri" in checks["source gone"]["remedy"]


class TestInit:
    def test_it_writes_a_project_that_the_configuration_reads(self, tmp_path: Path) -> None:
        folder = tmp_path / "my project"
        result = run("init", str(folder))
        assert result.exit_code == 0, result.stderr
        config = load_config(folder / "ragassets.yaml")
        source = next(iter(config.sources.values()))
        assert Path(source.uri) == folder / "documents"
        queries = [
            json.loads(line)
            for line in (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        written = {path.as_uri() for path in (folder / "documents").rglob("*") if path.is_file()}
        assert len(written) >= 20
        assert {uri for query in queries for uri in query["relevant"]} <= written
        assert (folder / "workspace.yaml").is_file()
        assert (folder / "dagster.yaml").is_file()

    def test_it_never_overwrites(self, tmp_path: Path) -> None:
        (tmp_path / "ragassets.yaml").write_text("mine", encoding="utf-8")
        result = run("init", str(tmp_path))
        assert result.exit_code == 2
        assert "already has ragassets.yaml; nothing was written" in one_line(result.stderr)
        assert [path.name for path in tmp_path.iterdir()] == ["ragassets.yaml"]


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("sources: [", "cannot be read"),
            ("sorces: {}", "Did you mean 'sources'?"),
            ("root: ${NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
            ("aliases: {a: {live: v9}}", "configuration is not valid: aliases.a.live: 'v9' is not"),
            ("sorces: {a: {uri: b}}", "sorces is not a known key. Did you mean 'sources'?"),
            (
                "embedding_models: {a: {model: b, dim: 3, api_key: [secret]}}",
                "embedding_models.a.api_key is not valid: Input should be a valid string",
            ),
        ],
    )
    def test_a_wrong_configuration_is_one_line_and_exit_code_2(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        file = tmp_path / "ragassets.yaml"
        file.write_text(text, encoding="utf-8")
        for command in (["status"], ["ingest"], ["audit"], ["index", "list"], ["doctor"]):
            result = run(*command, "--json", "--config", str(file))
            assert result.exit_code == 2, command
            assert message in one_line(result.stderr)
            assert result.stdout == ""

    def test_a_missing_configuration_is_named(self, tmp_path: Path) -> None:
        result = run("status", "--config", str(tmp_path / "none.yaml"))
        assert result.exit_code == 2
        assert "is not a file" in one_line(result.stderr)

    @pytest.mark.parametrize(
        ("window", "message"),
        [
            ("7m", "--since: '7m' is no period"),
            ("2026-11-07..2026-11-01", "--since: '2026-11-07..2026-11-01' ends before it begins"),
        ],
    )
    def test_a_window_that_cannot_be_meant_is_refused_before_anything_runs(
        self, tmp_path: Path, window: str, message: str
    ) -> None:
        file = tmp_path / "ragassets.yaml"
        file.write_text("root: here", encoding="utf-8")
        result = run("ingest", "--since", window, "--config", str(file))
        assert result.exit_code == 2
        assert message in one_line(result.stderr)
        assert not (tmp_path / "here").exists()

    def test_an_alias_that_has_to_be_named_has_no_value_to_show(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        file = tmp_path / "ragassets.yaml"
        text = "{root: here, aliases: {a: {live: v1}, b: {live: v1}}}"
        file.write_text(text, encoding="utf-8")
        result = run("search", "leave", "--config", str(file))
        assert result.exit_code == 2
        assert one_line(result.stderr) == "ragassets: --alias is needed here. Known aliases: a, b"

    def test_a_search_before_the_first_ingestion_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "documents").mkdir()
        file = tmp_path / "ragassets.yaml"
        file.write_text("{}", encoding="utf-8")
        result = run("search", "anything", "--config", str(file))
        assert result.exit_code == 2
        assert "Run `ragassets ingest` first" in one_line(result.stderr)

    def test_a_locked_vector_store_is_out_of_reach_and_names_the_holder(
        self, project: SmallProject
    ) -> None:
        with FileLock(project.folder / ".ragassets" / "qdrant" / ".lock"):
            search = project.run("search", "leave", "--mode", "sparse")
            status = project.run("status", "--json")
        assert search.exit_code == 3
        assert "held by another process" in one_line(search.stderr)
        # A status must not wait for a long upload, nor invent a number.
        version = json.loads(status.stdout)["index_versions"]["v1"]
        assert version["points"] is None
        assert "held by another process" in version["note"]

    def test_a_bug_is_one_line_without_a_stack_trace(
        self, project: SmallProject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def crash(_workspace: object) -> None:
            message = "a secret that must not be shown"
            raise ZeroDivisionError(message)

        monkeypatch.setattr("ragassets.queries.status.read_status", crash)
        result = project.run("status")
        assert result.exit_code == 1
        line = one_line(result.stderr)
        assert "unexpected ZeroDivisionError" in line
        assert "RAGASSETS_DEBUG=1" in line
        assert "secret" not in line

    @pytest.mark.parametrize("arguments", [["nope"], ["status", "--nope"], ["index", "drop"]])
    def test_wrong_usage_points_at_the_help(self, arguments: list[str]) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert "--help`" in one_line(result.stderr)


class TestGlobalOptions:
    def test_json_and_config_stand_before_or_after_the_command(self, project: SmallProject) -> None:
        config = ["--config", str(project.folder / "ragassets.yaml")]
        before = run(*config, "--json", "index", "list")
        after = run("index", "list", *config, "--json")
        assert json.loads(before.stdout) == json.loads(after.stdout)

    def test_only_the_commands_that_work_are_offered(self) -> None:
        """A stub that fails is worse than a command that is not there yet."""
        for command, names in {
            (): {"init", "ingest", "search", "show", "status", "why", "audit", "forget", "doctor"},
            ("index",): {"list", "plan", "build", "promote", "rollback"},
            ("dead-letters",): {"list", "show"},
        }.items():
            text = run(*command, "--help").stdout
            offered = {line.split()[1] for line in text.splitlines() if line.startswith("│ ")}
            assert names <= offered
            assert "redrive" not in offered

    def test_version(self) -> None:
        assert run("--version").stdout.startswith("ragassets ")


class TestStartUp:
    @pytest.mark.parametrize(
        "arguments", [["--help"], ["status"], ["search", "a", "--mode", "sparse"]]
    )
    def test_looking_loads_neither_models_nor_dagster(
        self, project: SmallProject, arguments: list[str]
    ) -> None:
        """Each costs seconds, and people look often."""
        code = (
            "import sys, atexit\n"
            "heavy = {'torch', 'dagster', 'unstructured', 'transformers', 'spacy'}\n"
            "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
            "from ragassets.cli import app\n"
            "app()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=project.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.splitlines()[-1] == "[]"

    def test_a_reader_that_goes_away_is_no_error(self, project: SmallProject) -> None:
        code = "from ragassets.cli import app; app()"
        with subprocess.Popen(
            [sys.executable, "-c", code, "status"],
            cwd=project.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait() == 0
