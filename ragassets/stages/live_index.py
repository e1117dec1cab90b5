"""The aliases: where they point, how they got there, and the switch itself.

The vector store holds the truth of where an alias points; the table `live_index` is its history.
A move that was killed between the two is written into the history by the next one.
"""

from ragassets.adapters.workspace import Workspace
from ragassets.core.stages import RunContext
from ragassets.errors import (
    ConcurrentWriteError,
    ConfigurationError,
    IndexVersionError,
    UnknownNameError,
)
from ragassets.stages.alias_history import (
    MOVES,
    AliasSwitch,
    read_history,
    record_event,
    version_before,
)
from ragassets.stages.index_versions import describe_unservable

RECORD_ATTEMPTS = 5
"""Two who write the history of one alias at once are rare; five in a row are something else."""


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
    record_unwritten_moves(workspace, context, actor=actor)
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


def record_unwritten_moves(workspace: Workspace, context: RunContext, *, actor: str) -> None:
    """Complete the history of aliases whose last move was killed before its record."""
    for move in _unwritten_moves(workspace, actor=actor):
        record_event(workspace.tables, move, context)


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
    forced_over = check_servable(workspace, target, reason=reason, is_forced=is_forced)
    return AliasSwitch(alias, current, target, action, reason, actor, forced_over)


def _version_before(workspace: Workspace, alias: str, current: str | None, *, actor: str) -> str:
    """What an alias served before the version that it serves now was promoted."""
    events = [
        *read_history(workspace.tables, alias),
        *(move for move in _unwritten_moves(workspace, actor=actor) if move.alias == alias),
    ]
    before = version_before(events, current)
    if before is None:
        raise IndexVersionError(
            index_version=current or "none",
            problem=f"is the first that alias {alias!r} serves",
            fix="There is nothing to roll back to; use `ragassets index promote`",
        )
    return before


def switch_alias(workspace: Workspace, switch: AliasSwitch, context: RunContext) -> None:
    """Move an alias and write the history.

    Raises:
        IndexVersionError: The target is not sealed as it is now, or not up to date.
        ConcurrentWriteError: Somebody else moved the alias meanwhile.
    """
    is_forced = switch.forced_over is not None
    with workspace.index_writer(switch.to_version) as store:
        # Who drops the version waits until the alias has moved, or has dropped it before the check.
        check_servable(workspace, switch.to_version, reason=switch.reason, is_forced=is_forced)
        store.switch_alias(switch.alias, switch.to_version, expected=switch.from_version)
    _record(workspace, switch, context)


def check_servable(
    workspace: Workspace, version: str, *, reason: str, is_forced: bool
) -> str | None:
    """What speaks against serving a version and was overruled; None where nothing does.

    Raises:
        ConfigurationError: It is forced without a reason.
        IndexVersionError: It may not be served.
    """
    unservable = describe_unservable(workspace, version)
    if unservable is None:
        return None
    if not (is_forced and unservable.can_be_forced):
        raise IndexVersionError(
            index_version=version,
            problem=f"{unservable.problem}, so no alias may point at it",
            fix=unservable.fix,
        )
    if not reason.strip():
        raise ConfigurationError(
            key="--reason",
            value=reason,
            problem=f"must say why {version!r} is served although it {unservable.problem}",
            fix="The history of the alias keeps it: --force --reason 'why'",
        )
    return unservable.problem


def _unwritten_moves(workspace: Workspace, *, actor: str) -> list[AliasSwitch]:
    """Moves of aliases that point elsewhere than their history says: a run was killed there."""
    with workspace.vector_store() as store:
        targets = store.aliases()
    unwritten: list[AliasSwitch] = []
    for name, target in sorted(targets.items()):
        events = read_history(workspace.tables, name)
        moves = [event for event in events if event.action in MOVES]
        last = moves[-1].to_version if moves else None
        if last is None:
            unwritten.append(_start(name, target, actor))
        elif last != target:
            reason = "recorded after an interruption"
            unwritten.append(AliasSwitch(name, last, target, "promote", reason, actor))
    return unwritten


def _start(alias: str, version: str, actor: str) -> AliasSwitch:
    return AliasSwitch(alias, None, version, "start", "configured as live", actor)


def _record(workspace: Workspace, switch: AliasSwitch, context: RunContext) -> None:
    """Write down a move that was made; whoever wrote meanwhile did not know of it."""
    for attempt in range(1, RECORD_ATTEMPTS + 1):
        try:
            record_event(workspace.tables, switch, context)
        except ConcurrentWriteError:
            if attempt == RECORD_ATTEMPTS:
                raise
        else:
            return
