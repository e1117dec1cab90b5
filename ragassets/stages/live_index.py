"""The aliases: where they point, how they got there, and the switch itself.

The vector store holds the truth of where an alias points; the table `live_index` is its history.
A move that was killed between the two is written into the history by the next one.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import ALIAS_SWITCHES
from ragassets.core.fingerprints import stable_hash
from ragassets.core.stages import RunContext
from ragassets.errors import ConfigurationError, IndexVersionError, UnknownNameError
from ragassets.stages.index_versions import describe_unservable

Action = Literal["start", "promote", "rollback"]


@dataclass(frozen=True)
class AliasSwitch:
    """One move of an alias."""

    alias: str
    from_version: str | None
    to_version: str
    action: Action
    reason: str
    actor: str
    forced_over: str | None = None
    """The gates that the version fails, where somebody serves it nevertheless."""


def move_aliases(
    workspace: Workspace,
    context: RunContext,
    *,
    alias: str,
    action: str,
    to_version: str,
    actor: str,
    reason: str,
    is_forced: bool = False,
) -> list[AliasSwitch]:
    """Do one move, or start the aliases that point nowhere; what was moved.

    Raises:
        IndexVersionError: The move is not allowed.
        UnknownNameError: There is no such alias, version or action.
    """
    for move in _unwritten_moves(workspace, actor=actor):
        _record(workspace, move, context)
    if action == "start":
        return start_aliases(workspace, context, actor=actor)
    switch = plan_move(
        workspace,
        alias=alias,
        action=action,
        to_version=to_version,
        actor=actor,
        reason=reason,
        is_forced=is_forced,
    )
    if switch is None:
        return []
    switch_alias(workspace, switch, context)
    return [switch]


def start_aliases(workspace: Workspace, context: RunContext, *, actor: str) -> list[AliasSwitch]:
    """Point every alias that points nowhere at its configured version, once that may be served."""
    with workspace.vector_store() as store:
        targets = store.aliases()
    started: list[AliasSwitch] = []
    for name, alias in workspace.config.aliases.items():
        if name in targets or describe_unservable(workspace, alias.live) is not None:
            continue
        switch = _start(name, alias.live, actor)
        switch_alias(workspace, switch, context)
        started.append(switch)
    return started


def plan_move(
    workspace: Workspace,
    *,
    alias: str,
    action: str,
    to_version: str,
    actor: str,
    reason: str,
    is_forced: bool = False,
) -> AliasSwitch | None:
    """The move that was asked for; None where the alias points there already. Nothing is written.

    The one rule for commands, which ask before they start a run, and for the run itself.

    Args:
        workspace: Where to look.
        alias: Which one to move.
        action: `promote` or `rollback`.
        to_version: What to promote.
        actor: Who asks.
        reason: Why; has to be said where the move is forced.
        is_forced: Serve a version that is whole although it fails its gates.

    Raises:
        ConfigurationError: A move is forced without a reason.
        IndexVersionError: The version may not be served, or there is none to go back to.
        UnknownNameError: There is no such alias, version or action.
    """
    workspace.config.alias(alias)
    with workspace.vector_store() as store:
        current = store.alias_target(alias)
    match action:
        case "promote":
            workspace.config.index_version(to_version)
            target = to_version
        case "rollback":
            target = _version_before(workspace, alias, current, actor=actor)
        case _:
            raise UnknownNameError(
                kind="action", name=action, known=["promote", "rollback", "start"]
            )
    if target == current:
        return None
    forced_over = _check_servable(workspace, target, is_forced=is_forced)
    if forced_over is not None and not reason.strip():
        raise ConfigurationError(
            key="--reason",
            value=reason,
            problem=f"must say why {target!r} is served although it {forced_over}",
            fix="The history of the alias keeps it: --force --reason 'why'",
        )
    return AliasSwitch(alias, current, target, action, reason, actor, forced_over)


def _version_before(workspace: Workspace, alias: str, current: str | None, *, actor: str) -> str:
    """What an alias served before the version that it serves now was promoted."""
    moves = [
        *_history(workspace, alias),
        *(move for move in _unwritten_moves(workspace, actor=actor) if move.alias == alias),
    ]
    before = [
        move.from_version
        for move in moves
        if move.to_version == current and move.from_version and move.action != "rollback"
    ]
    if not before:
        raise IndexVersionError(
            index_version=current or "none",
            problem=f"is the first that alias {alias!r} serves",
            fix="There is nothing to roll back to; use `ragassets index promote`",
        )
    return before[-1]


def switch_alias(workspace: Workspace, switch: AliasSwitch, context: RunContext) -> None:
    """Move an alias and write the history.

    Raises:
        IndexVersionError: The target is not sealed as it is now, or not up to date.
        ConcurrentWriteError: Somebody else moved the alias meanwhile.
    """
    _check_servable(workspace, switch.to_version, is_forced=switch.forced_over is not None)
    with workspace.vector_store() as store:
        store.switch_alias(switch.alias, switch.to_version, expected=switch.from_version)
    _record(workspace, switch, context)


def _check_servable(workspace: Workspace, version: str, *, is_forced: bool) -> str | None:
    """What speaks against serving a version and was overruled; None where nothing does."""
    unservable = describe_unservable(workspace, version)
    if unservable is None:
        return None
    if is_forced and unservable.can_be_forced:
        return unservable.problem
    raise IndexVersionError(
        index_version=version,
        problem=f"{unservable.problem}, so no alias may point at it",
        fix=unservable.fix,
    )


def _unwritten_moves(workspace: Workspace, *, actor: str) -> list[AliasSwitch]:
    """Moves of aliases that point elsewhere than their history says: a run was killed there."""
    with workspace.vector_store() as store:
        targets = store.aliases()
    unwritten: list[AliasSwitch] = []
    for name, target in sorted(targets.items()):
        moves = _history(workspace, name)
        last = moves[-1].to_version if moves else None
        if last is None:
            unwritten.append(_start(name, target, actor))
        elif last != target:
            reason = "recorded after an interruption"
            unwritten.append(AliasSwitch(name, last, target, "promote", reason, actor))
    return unwritten


def _history(workspace: Workspace, alias: str) -> list[AliasSwitch]:
    """The moves of an alias, oldest first."""
    moves = workspace.tables.read(ALIAS_SWITCHES, [{"alias": alias}]).sort("switched_at")
    columns = ("alias", "from_version", "to_version", "action", "reason", "actor", "forced_over")
    return [AliasSwitch(*row) for row in moves.select(columns).iter_rows()]


def _start(alias: str, version: str, actor: str) -> AliasSwitch:
    return AliasSwitch(alias, None, version, "start", "configured as live", actor)


def _record(workspace: Workspace, switch: AliasSwitch, context: RunContext) -> None:
    now = context.now()
    row = {
        "switch_id": stable_hash(switch.alias, switch.to_version, now.isoformat()),
        "alias": switch.alias,
        "from_version": switch.from_version,
        "to_version": switch.to_version,
        "action": switch.action,
        "reason": switch.reason,
        "actor": switch.actor,
        "forced_over": switch.forced_over,
        "switched_at": now,
        "run_id": context.run_id,
    }
    snapshot = workspace.tables.snapshot(ALIAS_SWITCHES)
    partition = {"alias": switch.alias}
    history = workspace.tables.read_at(snapshot, [partition])
    added = pl.DataFrame([row], schema=ALIAS_SWITCHES.schema)
    workspace.tables.replace(snapshot, [partition], pl.concat([history, added]))
