"""What happened to the aliases, as the table `live_index` tells it, and what they use therefore.

Where an alias points is known to the vector store alone. That it has a canary is known to this
table alone, so that beginning or ending one is a single commit; and a canary holds only while the
alias serves what it served when the canary began, so that moving the alias ends it in the same
moment, wherever the run that moves it dies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import ALIAS_SWITCHES
from ragassets.core.canaries import Canary
from ragassets.core.fingerprints import stable_hash
from ragassets.core.stages import RunContext
from ragassets.core.tables import Snapshot, Tables

Action = Literal["start", "promote", "rollback", "canary", "canary_off"]

MOVES: frozenset[Action] = frozenset({"start", "promote", "rollback"})
"""What changes where an alias points."""

Role = Literal["live", "canary", "previous"]


@dataclass(frozen=True)
class AliasSwitch:
    """One event in the life of an alias: a move, or the beginning or end of a canary."""

    alias: str
    from_version: str | None
    """What the alias served; at the end of a canary, the canary's version."""
    to_version: str
    """What it serves then; at the beginning of a canary, the canary's version."""
    action: Action
    reason: str
    actor: str
    forced_over: str | None = None
    """The gates that the version fails, where somebody serves it nevertheless."""
    canary_id: str | None = None
    canary_share: float | None = None
    happened_at: datetime | None = field(default=None, compare=False)
    """As the history has it; None where it is yet to be written."""


@dataclass(frozen=True)
class AliasUse:
    """What an alias needs a version for."""

    alias: str
    role: Role
    """`live` and `canary` answer searches now; `previous` is where a rollback would go."""


def find_alias_uses(workspace: Workspace, index_version: str) -> list[AliasUse]:
    """Every alias that needs a version, and what for; no lock is taken.

    A version that is `live` or `canary` of any alias answers searches: dropping it breaks them.
    """
    with workspace.vector_store() as store:
        targets = store.aliases()
    histories = _by_alias(workspace.tables.read(ALIAS_SWITCHES))
    uses: list[AliasUse] = []
    for alias, target in sorted(targets.items()):
        events = histories.get(alias, [])
        canary = find_canary(events, target)
        roles: dict[Role, str | None] = {
            "live": target,
            "canary": canary and canary.index_version,
            "previous": version_before(events, target),
        }
        uses += [AliasUse(alias, role) for role, name in roles.items() if name == index_version]
    return uses


def versions_in_use(workspace: Workspace) -> set[str]:
    """What the aliases serve and try, as their history tells; where they start, until they serve.

    Asks no vector store, so it is right but for a move that was killed before it was written down:
    good enough to say which work comes first.
    """
    found: set[str] = set()
    for name, alias in workspace.config.aliases.items():
        events = read_history(workspace.tables, name)
        moves = [event.to_version for event in events if event.action in MOVES]
        target = moves[-1] if moves else alias.live
        canary = find_canary(events, target)
        found |= {target} | ({canary.index_version} if canary else set())
    return found


def find_canary(events: Sequence[AliasSwitch], target: str | None) -> Canary | None:
    """The canary of an alias that points at `target` now; None where it has none.

    Args:
        events: All events of the alias, oldest first.
        target: What the vector store says.
    """
    last = events[-1] if events else None
    if last is None or last.action != "canary" or target is None or last.from_version != target:
        return None
    return Canary(
        canary_id=last.canary_id or "",
        alias=last.alias,
        index_version=last.to_version,
        live_version=target,
        share=last.canary_share or 0.0,
    )


def running_canaries(tables: Tables, targets: Mapping[str, str]) -> list[Canary]:
    """The canaries of all aliases, by alias.

    Args:
        tables: Where the history is.
        targets: Where each alias points.
    """
    by_alias = _by_alias(tables.read(ALIAS_SWITCHES))
    found = (find_canary(by_alias.get(name, []), targets[name]) for name in sorted(targets))
    return [canary for canary in found if canary is not None]


def version_before(events: Sequence[AliasSwitch], current: str | None) -> str | None:
    """What an alias served before the version that it serves now was promoted."""
    before = [
        event.from_version
        for event in events
        if event.action in ("start", "promote") and event.to_version == current
    ]
    return next((version for version in reversed(before) if version), None)


def read_history(tables: Tables, alias: str) -> list[AliasSwitch]:
    """The events of an alias, oldest first."""
    return _events(tables.read(ALIAS_SWITCHES, [{"alias": alias}]))


def record_event(
    tables: Tables, event: AliasSwitch, context: RunContext, snapshot: Snapshot | None = None
) -> None:
    """Write an event to the history, after all that is there.

    Args:
        tables: Where.
        event: What happened.
        context: The run.
        snapshot: What the event was decided on; without it, it happened whatever the history says.

    Raises:
        ConcurrentWriteError: Somebody else wrote to the alias's history meanwhile.
    """
    snapshot = snapshot or tables.snapshot(ALIAS_SWITCHES)
    partition = {"alias": event.alias}
    history = tables.read_at(snapshot, [partition])
    moment = _after(history, context.now())
    row = {
        "switch_id": stable_hash(event.alias, event.to_version, moment.isoformat()),
        "alias": event.alias,
        "from_version": event.from_version,
        "to_version": event.to_version,
        "action": event.action,
        "reason": event.reason,
        "actor": event.actor,
        "forced_over": event.forced_over,
        "canary_id": event.canary_id,
        "canary_share": event.canary_share,
        "switched_at": moment,
        "run_id": context.run_id,
        "pipeline_version": context.pipeline_version,
    }
    added = pl.DataFrame([row], schema=ALIAS_SWITCHES.schema)
    tables.replace(snapshot, [partition], pl.concat([history, added]))


def _after(history: pl.DataFrame, now: datetime) -> datetime:
    """Now, or right after the last event: clocks differ, and the order of events is their time."""
    last = cast("datetime | None", history["switched_at"].max())
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _by_alias(rows: pl.DataFrame) -> dict[str, list[AliasSwitch]]:
    found: dict[str, list[AliasSwitch]] = {}
    for event in _events(rows):
        found.setdefault(event.alias, []).append(event)
    return found


def _events(rows: pl.DataFrame) -> list[AliasSwitch]:
    columns = (
        "alias", "from_version", "to_version", "action", "reason", "actor", "forced_over",
        "canary_id", "canary_share", "switched_at",
    )  # fmt: skip
    ordered = rows.sort("switched_at", maintain_order=True).select(columns)
    return [AliasSwitch(*row) for row in ordered.iter_rows()]
