"""Crawls that outlive a process: one object below the root for each, replaced after each step."""

import dataclasses
import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any, cast

import polars as pl

from ragassets.adapters.checkpoints import ObjectCheckpoints
from ragassets.core.crawling import Crawl, Found, Visit
from ragassets.core.incremental import TIMESTAMP
from ragassets.core.stages import SHARD

SLOTS = ("run", "watch")
"""A crawl of a run, and one of a sensor, which may go on at the same time."""

_TYPES: dict[Any, pl.DataType] = {
    str: pl.String(), int: pl.Int64(), float: pl.Float64(), bool: pl.Boolean(),
    Found: pl.String(),
}  # fmt: skip

_FIELDS = [field.name for field in dataclasses.fields(Visit)]
"""The first two are the address and what was found under it."""

SCHEMA = pl.Schema(
    {
        SHARD: pl.String(),
        "is_known": pl.Boolean(),
        **{field.name: _TYPES.get(field.type, TIMESTAMP) for field in dataclasses.fields(Visit)},
    }
)

_SCALARS = (
    "crawl_id",
    "began_at",
    "step",
    "next_request_at",
    "problems",
    "n_failed_in_a_row",
    "is_over",
)
"""Fields of a crawl that are kept as JSON in a row without an address."""


class CrawlMemory:
    """The crawls of one source, among the checkpoints: what forgets a document forgets it here."""

    def __init__(self, checkpoints: Callable[[], ObjectCheckpoints], source: str) -> None:
        """Say whose crawls; nothing is opened yet."""
        self._checkpoints, self._source = checkpoints, source

    def load(self, slot: str, max_pages: int) -> Crawl | None:
        """The last crawl of a slot as its last step left it; None where there was none.

        Raises:
            StorageUnavailableError: The root cannot be read.
        """
        rows = self._checkpoints().load(self._name(slot))
        if rows is None or rows.schema != SCHEMA:
            return None
        scalars: dict[str, Any] = {}
        visits: dict[str, Visit] = {}
        known: dict[str, Visit] = {}
        is_known = rows["is_known"].to_list()
        for place, row in zip(is_known, rows.select(_FIELDS).iter_rows(), strict=True):
            uri, found, *rest = row
            if uri:
                (known if place else visits)[uri] = Visit(uri, Found(found), *rest)
            else:
                scalars = cast("dict[str, Any]", json.loads(row[_FIELDS.index("detail")]))
        if not scalars:
            return None
        return Crawl(max_pages=max_pages, known=known, visits=visits, **scalars)

    def save(self, slot: str, crawl: Crawl) -> None:
        """Replace what is kept of a slot.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The root cannot be written.
        """
        scalars = json.dumps({name: getattr(crawl, name) for name in _SCALARS})
        kept = [Visit("", detail=scalars), *crawl.visits.values(), *crawl.known.values()]
        n_now = 1 + len(crawl.visits)
        # By columns: rows would be a second of work for every 30,000 pages, and each step saves.
        columns = {
            SHARD: [self._source] * len(kept),
            "is_known": [False] * n_now + [True] * (len(kept) - n_now),
            **{name: list(map(attrgetter(name), kept)) for name in _FIELDS},
        }
        frame = pl.DataFrame(columns, schema=SCHEMA)
        self._checkpoints().replace(self._name(slot), frame)

    def _name(self, slot: str) -> str:
        return f"crawls/{self._source}/{slot}"
