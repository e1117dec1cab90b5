"""What uses a version: whoever drops one asks here."""

import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.errors import ConcurrentWriteError
from ragassets.stages.alias_history import (
    AliasSwitch,
    AliasUse,
    find_alias_uses,
    find_canary,
    read_history,
    record_event,
)
from ragassets.stages.live_index import move_aliases
from ragassets_tests.scenario import Project
from ragassets_tests.two_versions import CONTEXT, LoadedModels, build_two_versions


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        LoadedModels().install(patch)
        return build_two_versions(tmp_path_factory.mktemp("history") / "project")


@pytest.fixture
def workspace(built: Project, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    LoadedModels().install(monkeypatch)
    return built.restore().workspace


def begin_canary(workspace: Workspace) -> None:
    event = AliasSwitch("documents", "v1", "v2", "canary", "", "me", None, "an-id", 0.1)
    record_event(workspace.tables, event, CONTEXT)


def promote(workspace: Workspace, version: str) -> None:
    move_aliases(
        workspace,
        CONTEXT,
        alias="documents",
        action="promote",
        to_version=version,
        actor="me",
        reason="",
    )


def test_a_version_of_no_alias_has_no_use(workspace: Workspace) -> None:
    assert find_alias_uses(workspace, "v1") == [AliasUse("documents", "live")]
    assert find_alias_uses(workspace, "v2") == []


def test_a_canary_uses_its_version(workspace: Workspace) -> None:
    begin_canary(workspace)
    assert find_alias_uses(workspace, "v2") == [AliasUse("documents", "canary")]


def test_the_way_back_is_a_use_of_its_own(workspace: Workspace) -> None:
    promote(workspace, "v2")
    assert find_alias_uses(workspace, "v1") == [AliasUse("documents", "previous")]


def test_a_canary_ends_with_the_very_move_of_the_alias(workspace: Workspace) -> None:
    """Not with a second write: a run that dies between the two would leave it answering."""
    begin_canary(workspace)
    with workspace.vector_store() as store:
        store.switch_alias("documents", "v2", expected="v1")
        assert find_canary(read_history(workspace.tables, "documents"), "v2") is None
    assert find_alias_uses(workspace, "v2") == [AliasUse("documents", "live")]


def test_a_canary_is_never_a_way_back(workspace: Workspace) -> None:
    begin_canary(workspace)
    promote(workspace, "v2")
    assert find_alias_uses(workspace, "v1") == [AliasUse("documents", "previous")]


def test_an_event_that_was_decided_on_an_older_history_is_refused(workspace: Workspace) -> None:
    from ragassets.core.asset_tables import ALIAS_SWITCHES

    snapshot = workspace.tables.snapshot(ALIAS_SWITCHES)
    begin_canary(workspace)
    event = AliasSwitch("documents", "v1", "v3", "canary", "", "me", None, "another", 0.5)
    with pytest.raises(ConcurrentWriteError):
        record_event(workspace.tables, event, CONTEXT, snapshot)


def test_events_keep_their_order_on_a_clock_that_stands_still(workspace: Workspace) -> None:
    """Or goes back: two machines never agree to the microsecond."""
    begin_canary(workspace)
    promote(workspace, "v2")
    promote(workspace, "v1")
    actions = [event.action for event in read_history(workspace.tables, "documents")]
    assert actions == ["start", "canary", "promote", "promote"]
