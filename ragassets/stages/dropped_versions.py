"""Which index versions somebody dropped; how they are removed stands in `stages/dropping.py`.

Dagster cannot take back that a partition was made, so what is dropped is told here. Nothing that
starts by itself fills a dropped version, or keeps it current, until a person builds it anew.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DROPPED_VERSIONS
from ragassets.core.stages import RunContext
from ragassets.core.tables import Tables
from ragassets.errors import IndexVersionError

DropState = Literal["dropping", "dropped", "begun_anew"]


@dataclass(frozen=True)
class Drop:
    """The last time that a version was dropped."""

    index_version: str
    state: DropState
    dropped_at: datetime
    actor: str
    reason: str
    chunking: str | None
    """What it was made of; None where nobody knows."""
    embedding_set: str | None
    run_id: str

    @property
    def stands(self) -> bool:
        """Whether nobody has begun the version anew."""
        return self.state != "begun_anew"

    def describe(self) -> str:
        """Completes "index version 'v2' …"."""
        why = f": {self.reason}" if self.reason else ""
        return f"was dropped at {self.dropped_at:%Y-%m-%d %H:%M} UTC by {self.actor}{why}"


def read_drops(tables: Tables) -> dict[str, Drop]:
    """Every version that was ever dropped, by name."""
    columns = list(Drop.__dataclass_fields__)
    rows = tables.read(DROPPED_VERSIONS, columns=columns)
    return {row["index_version"]: Drop(**row) for row in rows.iter_rows(named=True)}


def dropped_names(tables: Tables) -> frozenset[str]:
    """The versions that are dropped now, or being dropped."""
    return frozenset(name for name, drop in read_drops(tables).items() if drop.stands)


def write_drop(tables: Tables, drop: Drop) -> None:
    """Record a drop, or how far it came."""
    snapshot = tables.snapshot(DROPPED_VERSIONS)
    row = {name: getattr(drop, name) for name in DROPPED_VERSIONS.schema}
    frame = pl.DataFrame([row], schema=DROPPED_VERSIONS.schema)
    tables.replace(snapshot, [{"index_version": drop.index_version}], frame)


def advance_drop(tables: Tables, drop: Drop, state: DropState) -> Drop:
    """Record the next state of a drop."""
    moved = replace(drop, state=state)
    write_drop(tables, moved)
    return moved


def take_drop_back(tables: Tables, index_version: str) -> None:
    """Forget a drop that turned out to be refused, before anything was removed."""
    snapshot = tables.snapshot(DROPPED_VERSIONS)
    partition = {"index_version": index_version}
    tables.replace(snapshot, [partition], DROPPED_VERSIONS.empty_frame())


def refuse_dropped(workspace: Workspace, index_version: str) -> None:
    """Stop whoever would fill a dropped version without having been asked to.

    Raises:
        IndexVersionError: It is dropped.
    """
    drop = read_drops(workspace.tables).get(index_version)
    if drop is not None and drop.stands:
        raise IndexVersionError(
            index_version=index_version, problem=drop.describe(), fix=way_back(index_version)
        )


def refuse_dropped_alone(workspace: Workspace, context: RunContext, users: Collection[str]) -> None:
    """Stop whoever would make what dropped versions alone are made from, unless a person asks.

    Args:
        workspace: Where the drops are recorded.
        context: Knows whether a person asks.
        users: The configured versions that are made from it.

    Raises:
        IndexVersionError: All of them are dropped.
    """
    if context.is_requested or not users:
        return
    if set(users) <= dropped_names(workspace.tables):
        refuse_dropped(workspace, min(users))


def way_back(index_version: str) -> str:
    """What to do about a dropped version."""
    return f"Build it anew with `ragassets index build {index_version}`"
