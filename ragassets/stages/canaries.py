"""Canaries: a second version answers a share of an alias's searches, to be compared with the live.

A canary is one row of `live_index`. It is decided on the newest history and committed on it or not
at all, so of two people who change one at once, one is refused.
"""

from dataclasses import replace

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import ALIAS_SWITCHES
from ragassets.core.canaries import Canary
from ragassets.core.fingerprints import stable_hash
from ragassets.core.stages import RunContext
from ragassets.core.tables import PinnedTables, Tables
from ragassets.errors import IndexVersionError
from ragassets.stages.alias_history import AliasSwitch, find_canary, read_history, record_event
from ragassets.stages.live_index import check_servable, record_unwritten_moves

ID_DIGITS = 16
"""Enough to tell the canaries of one alias apart, and short enough to read out."""


def change_canary(
    workspace: Workspace,
    context: RunContext,
    *,
    alias: str,
    index_version: str,
    share: float | None,
    actor: str,
    reason: str,
    is_forced: bool = False,
) -> AliasSwitch | None:
    """Begin a canary, change its share or end it; None where there is nothing to do.

    Killed before its one commit nothing has happened, and after it all has.

    Args:
        workspace: Where the alias is.
        context: The run.
        alias: Whose canary.
        index_version: The second version; not looked at where a canary ends.
        share: Of the searches, in (0, 1]; None ends the canary.
        actor: Who asks.
        reason: Why; has to be said where it is forced.
        is_forced: Let a version answer that is whole although it fails its gates.

    Raises:
        ConcurrentWriteError: Somebody else changed the alias meanwhile.
        IndexVersionError: The version may not answer, or another canary is running.
    """
    record_unwritten_moves(workspace, context, actor=actor)
    tables = PinnedTables(workspace.tables, ALIAS_SWITCHES)
    event = plan_canary(
        workspace,
        alias=alias,
        index_version=index_version,
        share=share,
        actor=actor,
        reason=reason,
        is_forced=is_forced,
        tables=tables,
    )
    if event is None:
        return None
    if event.action == "canary" and event.canary_id is None:
        event = _named(event, context)
    record_event(tables, event, context, tables.snapshot(ALIAS_SWITCHES))
    return event


def plan_canary(
    workspace: Workspace,
    *,
    alias: str,
    index_version: str,
    share: float | None,
    actor: str,
    reason: str,
    is_forced: bool = False,
    tables: Tables | None = None,
) -> AliasSwitch | None:
    """The event that was asked for; None where there is nothing to do. Nothing is written.

    The one rule for commands, which ask before they start a run, and for the run itself. See
    `change_canary` for the arguments.
    """
    workspace.config.alias(alias)
    events = read_history(tables or workspace.tables, alias)
    with workspace.vector_store() as store:
        live = store.alias_target(alias)
    running = find_canary(events, live)
    if share is None:
        return running and _end(running, actor, reason)
    workspace.config.index_version(index_version)
    _check_place(alias, index_version, live, running)
    if live is None or (running is not None and running.share == share):
        return None
    forced_over = check_servable(workspace, index_version, reason=reason, is_forced=is_forced)
    return AliasSwitch(
        alias=alias,
        from_version=live,
        to_version=index_version,
        action="canary",
        reason=reason,
        actor=actor,
        forced_over=forced_over,
        canary_id=running and running.canary_id,
        canary_share=share,
    )


def _check_place(alias: str, index_version: str, live: str | None, running: Canary | None) -> None:
    """Refuse a canary beside nothing, beside itself, or beside another one."""
    if live is None:
        raise IndexVersionError(
            index_version=index_version,
            problem=f"cannot be a canary: alias {alias!r} serves nothing yet",
            fix="Run `ragassets ingest` first",
        )
    if index_version == live:
        raise IndexVersionError(
            index_version=index_version,
            problem=f"is what alias {alias!r} serves already",
            fix="Name another version as its canary",
        )
    if running is not None and running.index_version != index_version:
        raise IndexVersionError(
            index_version=index_version,
            problem=f"cannot be a canary: {running.index_version!r} is one of alias {alias!r} now",
            fix=f"Run `ragassets index canary --off --alias {alias}` first",
        )


def _end(running: Canary, actor: str, reason: str) -> AliasSwitch:
    return AliasSwitch(
        alias=running.alias,
        from_version=running.index_version,
        to_version=running.live_version,
        action="canary_off",
        reason=reason,
        actor=actor,
        canary_id=running.canary_id,
    )


def _named(event: AliasSwitch, context: RunContext) -> AliasSwitch:
    """The beginning of a canary with an id of its own, which decides who gets it."""
    moment = context.now().isoformat()
    name = stable_hash("canary", event.alias, event.to_version, context.run_id, moment)
    return replace(event, canary_id=name[:ID_DIGITS])
