"""The aliases: where they point, how they got there, and the switch itself.

The vector store holds the truth of where an alias points; the table `live_index` is its history.
A move that was killed between the two is written into the history by the next one.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.config import IndexVersionConfig
from ragassets.core.asset_tables import ALIAS_SWITCHES
from ragassets.core.fingerprints import stable_hash
from ragassets.core.stages import RunContext
from ragassets.errors import IndexVersionError, UnknownNameError
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


def move_aliases(
    workspace: Workspace,
    context: RunContext,
    *,
    alias: str,
    action: str,
    to_version: str,
    actor: str,
    reason: str,
) -> list[AliasSwitch]:
    """Do one move, or start the aliases that point nowhere; what was moved.

    Raises:
        IndexVersionError: The move is not allowed.
        UnknownNameError: There is no such alias, version or action.
    """
    _record_unwritten_moves(workspace, context, actor=actor)
    match action:
        case "promote":
            return [promote(workspace, alias, to_version, context, actor=actor, reason=reason)]
        case "rollback":
            return [rollback(workspace, alias, context, actor=actor, reason=reason)]
        case "start":
            return start_aliases(workspace, context, actor=actor)
        case _:
            raise UnknownNameError(
                kind="action", name=action, known=["promote", "rollback", "start"]
            )


def current_versions(workspace: Workspace) -> dict[str, IndexVersionConfig]:
    """The versions that an ingestion keeps current: a served one has to stay so."""
    with workspace.vector_store() as store:
        served = set(store.aliases().values())
    return {
        name: version
        for name, version in workspace.config.index_versions.items()
        if version.backfill == "auto" or name in served
    }


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


def promote(
    workspace: Workspace, alias: str, version: str, context: RunContext, *, actor: str, reason: str
) -> AliasSwitch:
    """Point an alias at a sealed version.

    Raises:
        IndexVersionError: The version is not sealed, or the alias points at it already.
    """
    workspace.config.alias(alias)
    workspace.config.index_version(version)
    with workspace.vector_store() as store:
        current = store.alias_target(alias)
    if current == version:
        raise IndexVersionError(
            index_version=version, problem=f"is what {alias!r} serves already", fix="Nothing to do"
        )
    switch = AliasSwitch(alias, current, version, "promote", reason, actor)
    switch_alias(workspace, switch, context)
    return switch


def rollback(
    workspace: Workspace, alias: str, context: RunContext, *, actor: str, reason: str
) -> AliasSwitch:
    """Point an alias at the version that it served before.

    Raises:
        IndexVersionError: It served none before, or that one was not kept up to date.
    """
    workspace.config.alias(alias)
    with workspace.vector_store() as store:
        current = store.alias_target(alias)
    moves = workspace.tables.read(ALIAS_SWITCHES, [{"alias": alias}]).sort("switched_at")
    arrivals = moves.filter(
        (pl.col("to_version") == current)
        & pl.col("from_version").is_not_null()
        & (pl.col("action") != "rollback")
    )
    if current is None or arrivals.is_empty():
        raise IndexVersionError(
            index_version=current or "none",
            problem=f"is the first that alias {alias!r} serves",
            fix="There is nothing to roll back to; use `ragassets index promote`",
        )
    target = str(arrivals["from_version"][-1])
    switch = AliasSwitch(alias, current, target, "rollback", reason, actor)
    switch_alias(workspace, switch, context)
    return switch


def switch_alias(workspace: Workspace, switch: AliasSwitch, context: RunContext) -> None:
    """Move an alias and write the history.

    Raises:
        IndexVersionError: The target is not sealed as it is now, or not up to date.
        ConcurrentWriteError: Somebody else moved the alias meanwhile.
    """
    if (problem := describe_unservable(workspace, switch.to_version)) is not None:
        raise IndexVersionError(
            index_version=switch.to_version,
            problem=f"{problem}, so no alias may point at it",
            fix=f"Run `ragassets index build {switch.to_version}`",
        )
    with workspace.vector_store() as store:
        store.switch_alias(switch.alias, switch.to_version, expected=switch.from_version)
    _record(workspace, switch, context)


def _record_unwritten_moves(workspace: Workspace, context: RunContext, *, actor: str) -> None:
    """Complete the history of aliases that point elsewhere than its last move says."""
    with workspace.vector_store() as store:
        targets = store.aliases()
    for name, target in sorted(targets.items()):
        moves = workspace.tables.read(ALIAS_SWITCHES, [{"alias": name}]).sort("switched_at")
        last = str(moves["to_version"][-1]) if moves.height else None
        if last == target:
            continue
        switch = (
            _start(name, target, actor)
            if last is None
            else AliasSwitch(name, last, target, "promote", "recorded after an interruption", actor)
        )
        _record(workspace, switch, context)


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
        "switched_at": now,
        "run_id": context.run_id,
    }
    snapshot = workspace.tables.snapshot(ALIAS_SWITCHES)
    partition = {"alias": switch.alias}
    history = workspace.tables.read_at(snapshot, [partition])
    added = pl.DataFrame([row], schema=ALIAS_SWITCHES.schema)
    workspace.tables.replace(snapshot, [partition], pl.concat([history, added]))
