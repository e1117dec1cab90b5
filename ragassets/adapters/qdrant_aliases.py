"""Aliases of a Qdrant server, moved by compare-and-set.

The server's own move says nothing of what it replaced. So each alias has a second one beside it
that is named after its target: `documents@v1` while `documents` points at `v1`. A move renames it
first. The server does the actions of one request in order, alone, and stops at the first that
fails; and a name can be renamed once only. So of two that move an alias away from the same version,
one fails before it has changed anything.

Source: `update_aliases` in lib/storage of https://github.com/qdrant/qdrant
"""

from typing import TYPE_CHECKING

from ragassets.adapters.qdrant_connection import QdrantConnection
from ragassets.errors import ConcurrentWriteError, IndexVersionError

if TYPE_CHECKING:
    from qdrant_client.models import AliasOperations

MARK = "@"
"""Between alias and target; no name of ours may hold it."""


class QdrantAliases:
    """The aliases of one project on a server; names are without the prefix."""

    def __init__(self, connection: QdrantConnection) -> None:
        """Use a connection."""
        self._connection = connection
        self._prefix = connection.settings.collection_prefix

    def all(self) -> dict[str, str]:
        """Return alias to target."""
        return {name: target for name, target in self._read().items() if MARK not in name}

    def switch(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now.

        The first move of an alias, and one after somebody moved it with other means, finds no
        second alias to rename: there the comparison comes right before the move.

        Raises:
            ConcurrentWriteError: it points elsewhere.
        """
        known = self._read()
        if known.get(alias) != expected:
            raise ConcurrentWriteError(table="aliases", partition=alias)
        actions = self._actions(alias, target, expected, known)
        try:
            self._connection.call(
                f"switching alias {alias!r}",
                lambda c: c.update_collection_aliases(actions),
                index_version=target,
            )
        except IndexVersionError as error:
            current = self._read().get(alias)
            if current == target:  # the answer to our own first request was lost
                return
            if current != expected:
                raise ConcurrentWriteError(table="aliases", partition=alias) from error
            raise

    def _read(self) -> dict[str, str]:
        answer = self._connection.call("reading aliases", lambda c: c.get_aliases())
        return {
            entry.alias_name.removeprefix(self._prefix): entry.collection_name.removeprefix(
                self._prefix
            )
            for entry in answer.aliases
            if entry.alias_name.startswith(self._prefix)
            and entry.collection_name.startswith(self._prefix)
        }

    def _actions(
        self, alias: str, target: str, expected: str | None, known: dict[str, str]
    ) -> "list[AliasOperations]":
        from qdrant_client import models

        old, new = f"{alias}{MARK}{expected}", f"{alias}{MARK}{target}"
        actions: list[AliasOperations] = []
        if old in known and old != new:
            rename = models.RenameAlias(
                old_alias_name=f"{self._prefix}{old}", new_alias_name=f"{self._prefix}{new}"
            )
            actions.append(models.RenameAliasOperation(rename_alias=rename))
        for name in (alias, new):
            create = models.CreateAlias(
                collection_name=f"{self._prefix}{target}", alias_name=f"{self._prefix}{name}"
            )
            actions.append(models.CreateAliasOperation(create_alias=create))
        for name in known:
            if name.startswith(f"{alias}{MARK}") and name not in (old, new):
                delete = models.DeleteAlias(alias_name=f"{self._prefix}{name}")
                actions.append(models.DeleteAliasOperation(delete_alias=delete))
        return actions
