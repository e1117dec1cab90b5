"""Aliases of vector stores that have none: a table below the project's root.

A commit that was not made from the newest state of an alias fails, so of two moves one loses.
"""

from collections.abc import Callable

import polars as pl

from ragassets.core.asset_tables import STORE_ALIASES
from ragassets.core.fingerprints import fingerprint
from ragassets.core.tables import Tables
from ragassets.errors import ConcurrentWriteError


class TableAliases:
    """The aliases of one store."""

    def __init__(self, open_tables: Callable[[], Tables], location: str) -> None:
        """Keep the aliases of the store at `location` in tables; nothing is opened yet."""
        self._open_tables = open_tables
        self._store = fingerprint({"vector_store": location})

    def all(self) -> dict[str, str]:
        """Return alias to target."""
        rows = self._open_tables().read(STORE_ALIASES, [{"store": self._store}])
        return dict(rows.select("alias", "target").iter_rows())

    def switch(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now.

        Raises:
            ConcurrentWriteError: it points elsewhere, or somebody else moved it meanwhile.
        """
        tables = self._open_tables()
        snapshot = tables.snapshot(STORE_ALIASES)
        partition = {"store": self._store, "alias": alias}
        known = tables.read_at(snapshot, [partition])["target"].to_list()
        if known != ([] if expected is None else [expected]):
            raise ConcurrentWriteError(table="aliases", partition=alias)
        row = pl.DataFrame([{**partition, "target": target}], schema=STORE_ALIASES.schema)
        tables.replace(snapshot, [partition], row)
