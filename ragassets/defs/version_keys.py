"""Which chunkings, embedding sets and index versions automation may ask for, and for whom.

The configuration says which are automatic; the table of dropped versions, which are taken out. The
table is read once a tick, whatever asks.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from ragassets.config import IndexVersionConfig
from ragassets.defs.resources import WorkspaceResource

if TYPE_CHECKING:
    from ragassets.stages.dropped_versions import Drop

Drops = dict[str, "Drop"]


def key_of(partition: str) -> str:
    """The key of a partition's other dimension; the whole of it where there is but one.

    Keys of several dimensions are joined in the order of the dimensions' names, and `source_shard`
    comes last of all that the graph has.
    """
    return partition.rsplit("|", 1)[0]


class VersionKeys:
    """Keys of the partitioned assets, by the versions that are made from them."""

    def __init__(self, resource: WorkspaceResource) -> None:
        """Ask this project; nothing is read yet."""
        self._resource = resource
        self._drops: tuple[datetime | None, Drops] = (None, {})

    def current(self, asset: str, begun: Iterable[str], now: datetime) -> set[str]:
        """Automatic keys and those that were begun, except where every version of a key is dropped.

        Args:
            asset: Whose keys.
            begun: Keys under which anything was ever made.
            now: The time of the tick.
        """
        dropped = {name for name, drop in self._read(now).items() if drop.stands}
        users = self._users(asset)
        versions = self._resource.config.index_versions
        automatic = {
            key
            for key, names in users.items()
            if any(versions[name].backfill == "auto" for name in names - dropped)
        }
        gone = {key for key, names in users.items() if names <= dropped}
        return (automatic | set(begun)) - gone

    def ever_emptied(self, asset: str, now: datetime) -> set[str]:
        """Keys that may have been emptied with a dropped version, and that another one needs."""
        drops = self._read(now)
        emptied = {key for drop in drops.values() if (key := _key_of_drop(asset, drop))}
        dropped = {name for name, drop in drops.items() if drop.stands}
        return {key for key, names in self._users(asset).items() if names - dropped} & emptied

    def due_for_retry(self, asset: str, now: datetime) -> set[str]:
        """Partitions with a failure that is to be tried again now."""
        from ragassets.core.asset_tables import STAGES
        from ragassets.stages.due_retries import due_retries

        stage = next((stage for stage in STAGES if stage.name == asset), None)
        return set() if stage is None else set(due_retries(self._resource.workspace, stage, now))

    def live(self, asset: str) -> set[str] | None:
        """Keys that a version is made from that is served or a canary; None for other assets."""
        from ragassets.stages.alias_history import versions_in_use

        users = self._users(asset)
        if not users:
            return None
        in_use = versions_in_use(self._resource.workspace)
        return {key for key, names in users.items() if names & in_use}

    def _users(self, asset: str) -> dict[str, set[str]]:
        """Every key that a configured version needs, with those versions."""
        users: dict[str, set[str]] = {}
        for name, version in self._resource.config.index_versions.items():
            if key := _key_of_version(asset, name, version):
                users.setdefault(key, set()).add(name)
        return users

    def _read(self, now: datetime) -> Drops:
        """What was dropped, as it was at the first question of a tick."""
        if self._drops[0] != now:
            from ragassets.stages.dropped_versions import read_drops

            self._drops = (now, read_drops(self._resource.workspace.tables))
        return self._drops[1]


def _key_of_version(asset: str, name: str, version: IndexVersionConfig) -> str | None:
    return {
        "chunks": version.chunking,
        "embeddings": version.embedding_set,
        "indexed_chunks": name,
        "index_versions": name,
    }.get(asset)


def _key_of_drop(asset: str, drop: "Drop") -> str | None:
    return {
        "chunks": drop.chunking,
        "embeddings": drop.embedding_set,
        "indexed_chunks": drop.index_version,
        "index_versions": drop.index_version,
    }.get(asset)
