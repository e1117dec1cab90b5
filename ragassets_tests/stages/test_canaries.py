"""Beginning, changing and ending a canary: the rules of a promotion, and one commit."""

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import ALIAS_SWITCHES, INDEX_VERSIONS, INDEXED_CHUNKS
from ragassets.core.canaries import Canary
from ragassets.errors import (
    ConcurrentWriteError,
    ConfigurationError,
    IndexVersionError,
    UnknownNameError,
)
from ragassets.queries.canaries import read_canary
from ragassets.queries.index_versions import list_index_versions
from ragassets.stages import canaries
from ragassets.stages.alias_history import AliasSwitch, read_history
from ragassets.stages.canaries import change_canary, plan_canary
from ragassets.stages.golden_queries import find_judges
from ragassets.stages.live_index import move_aliases
from ragassets_tests.scenario import Project
from ragassets_tests.two_versions import CONTEXT, LoadedModels, build_two_versions


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        LoadedModels().install(patch)
        return build_two_versions(tmp_path_factory.mktemp("canaries") / "project")


@pytest.fixture
def workspace(built: Project, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    LoadedModels().install(monkeypatch)
    return built.restore().workspace


def change(
    workspace: Workspace, version: str = "v2", share: float | None = 0.1, **options: object
) -> AliasSwitch | None:
    asked = {"alias": "documents", "actor": "me", "reason": "", **options}
    return change_canary(workspace, CONTEXT, index_version=version, share=share, **asked)


def move(workspace: Workspace, action: str, version: str = "") -> None:
    move_aliases(
        workspace,
        CONTEXT,
        alias="documents",
        action=action,
        to_version=version,
        actor="me",
        reason="",
    )


def running(workspace: Workspace) -> tuple[str, float] | None:
    canary = read_canary(workspace, "documents")
    return canary and (canary.index_version, canary.share)


def fail_gates(workspace: Workspace, version: str) -> None:
    """As a seal would write it."""
    snapshot = workspace.tables.snapshot(INDEX_VERSIONS)
    place = {"index_version": version}
    row = workspace.tables.read_at(snapshot, [place]).with_columns(
        pl.lit("failed_gates").alias("state"),
        pl.lit(["recall is 0.9, found 0.2"]).alias("failed_gates"),
    )
    workspace.tables.replace(snapshot, [place], row)


def test_a_canary_is_an_event_of_the_alias(workspace: Workspace) -> None:
    event = change(workspace, share=0.1, reason="better on part numbers")
    assert event is not None
    assert event.canary_id
    assert read_history(workspace.tables, "documents")[-1] == AliasSwitch(
        alias="documents",
        from_version="v1",
        to_version="v2",
        action="canary",
        reason="better on part numbers",
        actor="me",
        canary_id=event.canary_id,
        canary_share=0.1,
    )
    canary = Canary(event.canary_id, "documents", "v2", "v1", 0.1)
    assert read_canary(workspace, "documents") == canary
    with workspace.vector_store() as store:
        assert store.alias_target("documents") == "v1"


def test_status_names_the_canary_and_does_not_call_it_live(workspace: Workspace) -> None:
    change(workspace, share=0.1)
    found = {entry.index_version: entry for entry in list_index_versions(workspace)}
    assert found["v2"].canary_of == {"documents": 0.1}
    assert (found["v2"].live, found["v1"].live) == (False, True)
    assert found["v1"].canary_of == {}


def test_a_changed_share_is_the_same_canary(workspace: Workspace) -> None:
    """Its id decides who gets it: a larger share must add users, not exchange them."""
    first, second = change(workspace, share=0.1), change(workspace, share=0.5)
    assert first is not None
    assert second is not None
    assert first.canary_id == second.canary_id
    assert running(workspace) == ("v2", 0.5)


def test_another_start_is_another_canary(workspace: Workspace) -> None:
    first = change(workspace)
    change(workspace, share=None)
    later = canaries.RunContext("another-run", CONTEXT.now)
    second = change_canary(
        workspace,
        later,
        alias="documents",
        index_version="v2",
        share=0.1,
        actor="me",
        reason="",
    )
    assert first is not None
    assert second is not None
    assert first.canary_id != second.canary_id


def test_an_ended_canary_is_history(workspace: Workspace) -> None:
    begun = change(workspace)
    ended = change(workspace, "", share=None, reason="slower")
    assert begun is not None
    assert ended == AliasSwitch(
        "documents", "v2", "v1", "canary_off", "slower", "me", None, begun.canary_id
    )
    assert running(workspace) is None


def test_what_is_so_already_is_not_written_again(workspace: Workspace) -> None:
    assert change(workspace, "", share=None) is None
    assert change(workspace, share=0.1) is not None
    assert change(workspace, share=0.1) is None
    assert len(read_history(workspace.tables, "documents")) == 2


def test_a_plan_writes_nothing(workspace: Workspace) -> None:
    asked = {"alias": "documents", "actor": "me", "reason": ""}
    planned = plan_canary(workspace, index_version="v2", share=0.1, **asked)
    assert planned is not None
    assert running(workspace) is None


class TestRefusals:
    def test_a_version_that_was_never_built(self, workspace: Workspace) -> None:
        with pytest.raises(IndexVersionError, match=r"'v3' was never built.*index build v3"):
            change(workspace, "v3")

    def test_a_version_that_changed_since_its_seal(self, workspace: Workspace) -> None:
        """Guarantee 6: what an alias asks is complete and judged, for one search in ten too."""
        snapshot = workspace.tables.snapshot(INDEXED_CHUNKS.outputs)
        places = [{"index_version": "v2", "source_shard": "handbook-000"}]
        rows = workspace.tables.read_at(snapshot, places)
        workspace.tables.replace(snapshot, places, rows.head(rows.height - 1))
        with pytest.raises(IndexVersionError, match="has changed since it was sealed"):
            change(workspace)

    def test_a_version_that_fails_its_gates_needs_force_and_a_reason(
        self, workspace: Workspace
    ) -> None:
        fail_gates(workspace, "v2")
        with pytest.raises(IndexVersionError, match="failed its gates"):
            change(workspace)
        with pytest.raises(ConfigurationError, match="--reason"):
            change(workspace, is_forced=True)
        event = change(workspace, is_forced=True, reason="to see why")
        assert event is not None
        assert event.forced_over == "failed its gates (recall is 0.9, found 0.2)"

    def test_a_canary_beside_itself(self, workspace: Workspace) -> None:
        with pytest.raises(IndexVersionError, match="'v1' is what alias 'documents' serves"):
            change(workspace, "v1")

    def test_a_second_canary(self, workspace: Workspace) -> None:
        """Nobody ends the experiment of a colleague by beginning another one."""
        change(workspace)
        with pytest.raises(IndexVersionError, match=r"'v2' is one of alias.*--off"):
            change(workspace, "v3")

    def test_names_that_are_not_there(self, workspace: Workspace) -> None:
        with pytest.raises(UnknownNameError):
            change(workspace, "v9")
        with pytest.raises(UnknownNameError):
            change(workspace, alias="elsewhere")

    def test_of_two_who_change_one_at_once_one_is_refused(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def meanwhile(*arguments: object, **options: object) -> object:
            monkeypatch.undo()
            LoadedModels().install(monkeypatch)
            change(workspace, share=0.2)
            return plan_canary(*arguments, **options)

        monkeypatch.setattr(canaries, "plan_canary", meanwhile)
        with pytest.raises(ConcurrentWriteError):
            change(workspace, share=0.7)
        assert running(workspace) == ("v2", 0.2)


class TestMovesOfTheAlias:
    def test_promoting_the_canary_ends_it(self, workspace: Workspace) -> None:
        change(workspace)
        move(workspace, "promote", "v2")
        assert running(workspace) is None

    def test_a_rollback_ends_it(self, workspace: Workspace) -> None:
        """Whoever rolls back wants all searches where they were."""
        move(workspace, "promote", "v2")
        change(workspace, "v1")
        assert running(workspace) == ("v1", 0.1)
        move(workspace, "rollback")
        assert running(workspace) is None

    def test_a_promotion_that_was_killed_before_its_record_ends_it_too(
        self, workspace: Workspace
    ) -> None:
        change(workspace)
        with workspace.vector_store() as store:
            store.switch_alias("documents", "v2", expected="v1")
        assert running(workspace) is None
        move(workspace, "rollback")
        assert running(workspace) is None
        actions = [event.action for event in read_history(workspace.tables, "documents")]
        assert actions == ["start", "canary", "promote", "rollback"]

    def test_a_canary_is_no_version_that_was_served(self, workspace: Workspace) -> None:
        """The gate against the live version would spare it."""
        change(workspace)
        judges = find_judges(workspace, "v2", workspace.tables)
        assert not judges.was_served
        assert judges.aliases == ("documents",)
        assert judges.rival == "v1"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_canary_that_is_killed_has_begun_or_not(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """There is one commit, and nothing to mend on either side of it."""
    original = type(workspace.tables).replace

    def killed(self: object, *arguments: object) -> int:
        if moment == "after":
            original(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(workspace.tables), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        change(workspace)
    monkeypatch.setattr(type(workspace.tables), "replace", original)
    assert running(workspace) == (None if moment == "before" else ("v2", 0.1))
    change(workspace)
    assert running(workspace) == ("v2", 0.1)
    n_events = workspace.tables.read(ALIAS_SWITCHES).height
    assert n_events == 2
