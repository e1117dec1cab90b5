"""An index version is dropped when nobody uses it, to the last row, and comes back for nothing."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    ALIAS_SWITCHES,
    BUILD_WINDOWS,
    CHUNKS,
    EMBEDDINGS,
    INDEX_INTENTS,
    INDEX_VERSIONS,
    INDEXED_CHUNKS,
    RECORDED_SETTINGS,
)
from ragassets.core.stages import RunContext
from ragassets.core.vector_ledger import VECTOR_LEDGER
from ragassets.errors import ConfigurationError, IndexVersionError, UnknownNameError
from ragassets.queries.audit import run_audit
from ragassets.queries.drops import plan_drops
from ragassets.queries.index_versions import list_index_versions
from ragassets.queries.why import explain_document
from ragassets.stages.build_windows import begin_version, current_versions
from ragassets.stages.document_catalog import update_document_catalog
from ragassets.stages.dropped_versions import dropped_names
from ragassets.stages.dropping import (
    Removal,
    begin_anew,
    check_droppable,
    expired_versions,
    finish_drop,
    remove_version,
)
from ragassets.stages.index_versions import seal_index_version
from ragassets.stages.indexed_chunks import update_indexed_chunks
from ragassets.stages.live_index import plan_move, start_aliases, switch_alias
from ragassets_tests.scenario import CLEAN, Content, Executioner, Project, watched_effects
from ragassets_tests.stage_runs import NOW, RecordingEmbedder, run_documents, run_version

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")

V1 = {"chunking": "recursive-256", "embedding_model": "minilm"}
V2 = {"chunking": "small", "embedding_model": "other"}
SETTINGS: Mapping[str, object] = {
    "sources": {"handbook": {"uri": "./documents", "shards": 1}},
    "chunkings": {"recursive-256": {}, "small": {"max_tokens": 32, "overlap_tokens": 4}},
    "embedding_models": {
        "minilm": {"model": "all-MiniLM-L6-v2", "dim": 16},
        "other": {"model": "all-MiniLM-L6-v2", "dim": 8},
    },
    "index_versions": {"v1": V1, "v2": V2},
}
SMALL_SET = "small.other"


class Killed(BaseException):
    """Stands in for SIGKILL."""


def _die() -> None:
    raise Killed


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes down what it embeds."""
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder",
        lambda name, config: RecordingEmbedder(name, config.dim, seed=config.model),
    )
    RecordingEmbedder.embedded = []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three documents under `v1`, which is served, and `v2`, which never was."""
    some = {name: CLEAN[name] for name in ("vacation.md", "expenses.txt", "kitchen.txt")}
    project = Project(tmp_path_factory.mktemp("drops") / "project", some)
    project.configure(**SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ragassets.adapters.workspace.open_embedder",
            lambda name, config: RecordingEmbedder(name, config.dim, seed=config.model),
        )
        RecordingEmbedder.embedded = []
        run_documents(project)
        for name in ("v1", "v2"):
            build(project, name)
        start_aliases(project.workspace, at(NOW), actor="a test")
    project.save()
    return project


@pytest.fixture
def project(built: Project) -> Project:
    """Both versions, as if nothing had happened since."""
    return built.restore()


def at(moment: datetime) -> RunContext:
    """A run at a moment."""
    return RunContext("a-run", lambda: moment)


def build(project: Project, name: str) -> None:
    """Build and seal a version, as `ragassets index build` does."""
    workspace = project.workspace
    begin_anew(workspace, name, at(NOW))
    begin_version(workspace, name, NOW)
    run_version(project, name)
    seal_index_version(workspace, name, at(NOW))
    update_document_catalog(workspace, workspace.config.source_shards(), at(NOW))


def drop(project: Project, name: str, *, moment: datetime = NOW, is_now: bool = False) -> Removal:
    """Drop a version from the first record to the last."""
    workspace = project.workspace
    removal = remove_version(
        workspace, name, at(moment), actor="maria", reason="too dear", is_now=is_now
    )
    finish_drop(workspace, name)
    return removal


def move(project: Project, to_version: str, moment: datetime) -> None:
    """Promote a version."""
    switch = plan_move(
        project.workspace,
        alias="documents",
        action="promote",
        to_version=to_version,
        actor="a test",
        reason="",
    )
    assert switch is not None
    switch_alias(project.workspace, switch, at(moment))


def of_v2(project: Project) -> dict[str, int]:
    """How many rows of each table are `v2`'s alone."""
    version = pl.col("index_version") == "v2"
    where = [
        (INDEXED_CHUNKS.outputs, version),
        (INDEXED_CHUNKS.failures, version),
        (INDEX_INTENTS, version),
        (INDEX_VERSIONS, version),
        (BUILD_WINDOWS, version),
        (RECORDED_SETTINGS, (pl.col("section") == "index_versions") & (pl.col("name") == "v2")),
        (EMBEDDINGS.outputs, pl.col("embedding_set") == SMALL_SET),
        (EMBEDDINGS.failures, pl.col("embedding_set") == SMALL_SET),
        (CHUNKS.outputs, pl.col("chunking") == "small"),
        (CHUNKS.failures, pl.col("chunking") == "small"),
    ]
    return {spec.name: project.rows(spec, condition).height for spec, condition in where}


def collections(workspace: Workspace) -> list[str]:
    with workspace.vector_store() as store:
        return store.list_collections()


def without_drops(content: Content) -> dict[str, list[str]]:
    """All tables but the record of the drops."""
    return {name: rows for name, rows in content.tables.items() if name != "_dropped_versions"}


class TestRemoval:
    def test_it_goes_to_the_last_row_and_the_live_version_stays(self, project: Project) -> None:
        before = project.content()
        n_points = len(before.points["v2"])
        removal = drop(project, "v2")
        assert set(of_v2(project).values()) == {0}
        assert collections(project.workspace) == ["v1"]
        assert (removal.n_points, removal.n_indexed_chunks) == (n_points, n_points)
        assert (removal.embedding_set, removal.n_embeddings) == (SMALL_SET, n_points)
        assert (removal.chunking, removal.n_chunks) == ("small", n_points)
        after = project.content()
        assert after.points == {"v1": before.points["v1"]}
        assert after.aliases == before.aliases
        assert project.holds_text("thirty days of paid vacation", "v1")
        assert not any("v2" in row for row in after.catalog)
        assert run_audit(project.workspace).is_clean

    def test_what_another_version_needs_stays(self, project: Project) -> None:
        """Two collections of one embedding set: only the second drop empties it."""
        twin = {**V2, "sparse": None}
        project.configure(index_versions={"v1": V1, "v2": V2, "v3": twin})
        build(project, "v3")
        rows = project.rows(EMBEDDINGS.outputs).height
        removal = drop(project, "v2")
        assert (removal.embedding_set, removal.chunking) == (None, None)
        assert project.rows(EMBEDDINGS.outputs).height == rows
        assert drop(project, "v3").embedding_set == SMALL_SET

    def test_a_version_that_left_the_configuration_without_a_drop_keeps_its_rows(
        self, project: Project
    ) -> None:
        """Its name may come back; whoever wants the space drops it."""
        project.configure(index_versions={"v1": V1, "v3": {**V2, "sparse": None}})
        build(project, "v3")
        assert drop(project, "v3").embedding_set is None

    def test_building_it_anew_embeds_nothing(self, project: Project) -> None:
        """The ledger has the vectors."""
        before, ledger = project.content(), project.rows(VECTOR_LEDGER).height
        drop(project, "v2")
        RecordingEmbedder.embedded = []
        build(project, "v2")
        assert RecordingEmbedder.embedded == []
        assert project.rows(VECTOR_LEDGER).height == ledger
        after = project.content()
        assert after.points == before.points
        assert after.vectors.keys() == before.vectors.keys()
        assert without_drops(after) == without_drops(before)
        assert run_audit(project.workspace).is_clean

    def test_a_version_that_the_configuration_no_longer_has_goes_too(
        self, project: Project
    ) -> None:
        """The usual case: somebody took it out of the file first."""
        project.configure(index_versions={"v1": V1})
        removal = drop(project, "v2")
        assert removal.embedding_set == SMALL_SET
        assert set(of_v2(project).values()) == {0}
        assert collections(project.workspace) == ["v1"]

    def test_sizes_are_told_before(self, project: Project) -> None:
        (planned,) = plan_drops(project.workspace, ["v2"], NOW, is_now=False, reason="")
        n_points = len(project.content().points["v2"])
        assert planned.points == planned.embeddings == planned.chunks == n_points
        assert planned.vector_store_bytes > n_points * 1_100
        assert planned.disk_bytes > n_points * 250
        assert not planned.is_dropped
        assert collections(project.workspace) == ["v1", "v2"]


class TestRefusals:
    def test_what_an_alias_serves_stays(self, project: Project) -> None:
        with pytest.raises(IndexVersionError, match=r"serves.*index promote OTHER --alias doc"):
            drop(project, "v1", is_now=True)
        assert collections(project.workspace) == ["v1", "v2"]
        assert dropped_names(project.workspace.tables) == frozenset()

    def test_where_an_alias_starts_stays(self, project: Project) -> None:
        """A vector store that was lost begins there again."""
        move(project, "v2", NOW)
        later = NOW + timedelta(days=30)
        with pytest.raises(IndexVersionError, match=r"'v2', which it serves, as aliases\.doc"):
            drop(project, "v1", moment=later)

    def test_the_way_back_stays_for_a_week(self, project: Project) -> None:
        move(project, "v2", NOW)
        project.configure(aliases={"documents": {"live": "v2"}})
        for days in (0, 6.9):
            with pytest.raises(IndexVersionError, match=r"way back until 2026-01-09.*--now --reas"):
                drop(project, "v1", moment=NOW + timedelta(days=days))
        drop(project, "v1", moment=NOW + timedelta(days=7, minutes=1))
        assert collections(project.workspace) == ["v2"]

    def test_the_time_counts_from_the_end_of_the_last_service(self, project: Project) -> None:
        """Served, replaced, served again: the first replacement is forgotten."""
        move(project, "v2", NOW)
        move(project, "v1", NOW + timedelta(days=10))
        move(project, "v2", NOW + timedelta(days=20))
        project.configure(aliases={"documents": {"live": "v2"}})
        with pytest.raises(IndexVersionError, match="until 2026-01-22"):
            drop(project, "v1", moment=NOW + timedelta(days=26))

    def test_a_move_that_nobody_wrote_down_counts_as_now(self, project: Project) -> None:
        """The run was killed between the switch and its history."""
        with project.workspace.vector_store() as store:
            store.switch_alias("documents", "v2", expected="v1")
        project.configure(aliases={"documents": {"live": "v2"}})
        with pytest.raises(IndexVersionError, match="way back"):
            drop(project, "v1", moment=NOW + timedelta(days=30))

    def test_at_once_needs_a_reason(self, project: Project) -> None:
        move(project, "v2", NOW)
        project.configure(aliases={"documents": {"live": "v2"}})
        workspace = project.workspace
        with pytest.raises(ConfigurationError, match="--now --reason 'why'"):
            check_droppable(workspace, "v1", NOW, is_now=True, reason=" ")
        drop(project, "v1", is_now=True)
        assert collections(workspace) == ["v2"]

    def test_the_time_is_configured(self, project: Project) -> None:
        move(project, "v2", NOW)
        project.configure(aliases={"documents": {"live": "v2"}}, retention={"rollback_days": 0})
        drop(project, "v1", moment=NOW + timedelta(minutes=1))
        assert collections(project.workspace) == ["v2"]

    def test_an_unknown_name_is_refused(self, project: Project) -> None:
        with pytest.raises(UnknownNameError, match=r"'v9' is not defined\. Known: v1, v2"):
            drop(project, "v9")

    def test_expired_are_those_that_nothing_names_any_more(self, project: Project) -> None:
        assert expired_versions(project.workspace, NOW) == {}
        move(project, "v2", NOW)
        project.configure(index_versions={"v2": V2}, aliases={"documents": {"live": "v2"}})
        kept = expired_versions(project.workspace, NOW)["v1"]
        assert kept is not None
        assert "way back" in kept
        later = NOW + timedelta(days=7, minutes=1)
        assert expired_versions(project.workspace, later) == {"v1": None}
        drop(project, "v1", moment=later)
        assert expired_versions(project.workspace, later) == {}

    def test_a_live_version_that_left_the_configuration_is_not_expired(
        self, project: Project
    ) -> None:
        """An alias still serves it."""
        project.configure(index_versions={"v2": V2}, aliases={"documents": {"live": "v2"}})
        kept = expired_versions(project.workspace, NOW)["v1"]
        assert kept is not None
        assert "is what alias 'documents' serves" in kept


class TestAfterwards:
    def test_nothing_that_starts_by_itself_fills_it(self, project: Project) -> None:
        """`backfill: auto` stays in the configuration; the drop counts."""
        drop(project, "v2")
        workspace = project.workspace
        assert list(current_versions(workspace)) == ["v1"]
        with pytest.raises(IndexVersionError, match=r"dropped at .* by maria: too dear.*build v2"):
            run_version(project, "v2")
        shards = workspace.config.source_shards()
        with pytest.raises(IndexVersionError, match="'v2' was dropped"):
            update_indexed_chunks(workspace, "v2", shards, at(NOW))
        with pytest.raises(IndexVersionError, match="'v2' was dropped"):
            seal_index_version(workspace, "v2", at(NOW))
        assert set(of_v2(project).values()) == {0}
        assert collections(workspace) == ["v1"]

    def test_it_cannot_be_served(self, project: Project) -> None:
        drop(project, "v2")
        with pytest.raises(IndexVersionError, match=r"'v2' was dropped .*index build v2"):
            move(project, "v2", NOW)

    def test_the_list_and_the_document_say_so(self, project: Project) -> None:
        drop(project, "v2")
        workspace = project.workspace
        status = {entry.index_version: entry for entry in list_index_versions(workspace)}["v2"]
        assert (status.state, status.points, status.stale, status.live) == ("dropped", 0, 0, False)
        assert status.dropped == {
            "at": NOW, "by": "maria", "reason": "too dear", "is_finished": True,
        }  # fmt: skip
        found = explain_document(workspace, project.uri("vacation.md"))
        assert found.verdict == "searchable in v1 (alias documents)"
        states = {(step.stage, step.under): step.state for step in found.stages}
        assert states["indexed_chunks", "v1"] == "ok"
        assert states["indexed_chunks", "v2"] == "dropped"
        assert ("embeddings", SMALL_SET) not in states

    def test_a_dropped_version_that_is_not_configured_is_listed_too(self, project: Project) -> None:
        project.configure(index_versions={"v1": V1})
        drop(project, "v2")
        states = {v.index_version: v.state for v in list_index_versions(project.workspace)}
        assert states == {"v1": "sealed", "v2": "dropped"}

    def test_its_name_may_mean_something_else_afterwards(self, project: Project) -> None:
        drop(project, "v2")
        project.configure(index_versions={"v1": V1, "v2": {**V2, "distance": "dot"}})
        build(project, "v2")
        assert run_audit(project.workspace).is_clean


class TestCrashes:
    @pytest.mark.slow
    def test_killed_at_any_moment_the_next_drop_finishes(self, built: Project) -> None:
        expected = Executioner()
        with watched_effects(expected):
            drop(built.restore(), "v2")
        undisturbed = built.content()
        assert "after drop_collection" in expected.moments
        assert "after replace_documents" in expected.moments
        for moment, what in enumerate(expected.moments):
            project = built.restore()
            with watched_effects(Executioner(moment, _die)), suppress(Killed):
                drop(project, "v2")
            drop(project, "v2")
            assert undisturbed.differences(project.content()) == [], what
            assert run_audit(project.workspace).is_clean, what

    @pytest.mark.slow
    def test_killed_at_any_moment_a_build_begins_anew_from_nothing(self, built: Project) -> None:
        """It finishes the drop first: points of a half-dropped version would be nobody's."""
        whole = built.restore().content()
        counted = Executioner()
        with watched_effects(counted):
            drop(built.restore(), "v2")
        for moment in range(0, len(counted.moments), 3):
            project = built.restore()
            with watched_effects(Executioner(moment, _die)), suppress(Killed):
                drop(project, "v2")
            build(project, "v2")
            after = project.content()
            assert after.points == whole.points, counted.moments[moment]
            assert without_drops(after) == without_drops(whole), counted.moments[moment]
            assert run_audit(project.workspace).is_clean, counted.moments[moment]

    def test_while_it_is_half_done_everybody_is_told(self, built: Project) -> None:
        project = built.restore()
        moments = Executioner()
        with watched_effects(moments):
            drop(project, "v2")
        half = moments.moments.index("after drop_collection")
        project = built.restore()
        with watched_effects(Executioner(half, _die)), suppress(Killed):
            drop(project, "v2")
        assert "unfinished_drops: 1" in project.audit()
        status = {v.index_version: v for v in list_index_versions(project.workspace)}["v2"]
        assert status.state == "dropped"
        assert status.dropped is not None
        assert not status.dropped["is_finished"]
        with pytest.raises(IndexVersionError, match="was dropped"):
            run_version(project, "v2")

    def test_an_alias_that_moves_at_that_very_moment_wins(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is removed before the vector store has agreed."""
        before = project.content()

        def promote(tables: object, drop: object) -> None:
            original(tables, drop)
            # Past the lock of the embedded store, as with a server on another machine.
            aliases = project.folder / ".ragassets" / "qdrant" / "aliases.json"
            aliases.write_text('{"documents": "v2"}', encoding="utf-8")

        from ragassets.stages import dropping

        original = dropping.write_drop
        monkeypatch.setattr(dropping, "write_drop", promote)
        with pytest.raises(IndexVersionError, match="alias 'documents' points at"):
            drop(project, "v2")
        after = project.content()
        assert after.points == before.points
        assert without_drops(after) == without_drops(before)
        assert dropped_names(project.workspace.tables) == frozenset()
        assert project.rows(ALIAS_SWITCHES).height == 1
