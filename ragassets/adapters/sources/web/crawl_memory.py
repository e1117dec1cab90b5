"""Crawls that outlive a process: one object below the root for each, replaced after each step."""

import dataclasses
import json
from collections.abc import Callable
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
        for row in rows.drop(SHARD).iter_rows(named=True):
            place = known if row.pop("is_known") else visits
            if row["uri"]:
                place[row["uri"]] = dataclasses.replace(Visit(**row), found=Found(row["found"]))
            else:
                scalars = cast("dict[str, Any]", json.loads(row["detail"]))
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
        rows = [_row(Visit("", detail=scalars), is_known=False)]
        rows += [_row(visit, is_known=False) for visit in crawl.visits.values()]
        rows += [_row(visit, is_known=True) for visit in crawl.known.values()]
        frame = pl.DataFrame(rows, schema={name: SCHEMA[name] for name in rows[0]}, orient="row")
        frame = frame.with_columns(pl.lit(self._source).alias(SHARD)).select(SCHEMA.names())
        self._checkpoints().replace(self._name(slot), frame)

    def _name(self, slot: str) -> str:
        return f"crawls/{self._source}/{slot}"


def _row(visit: Visit, *, is_known: bool) -> dict[str, object]:
    names = [field.name for field in dataclasses.fields(Visit)]
    return {"is_known": is_known, **{name: getattr(visit, name) for name in names}}
