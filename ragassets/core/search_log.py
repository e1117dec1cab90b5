"""What one search during a canary leaves behind, and what an application says of its hits.

Neither holds a text or a name: queries and users are hashes, hits are hashes of their URIs.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.core.asset_tables import COUNT, FLAG, NUMBER, TEXT
from ragassets.core.fingerprints import stable_hash
from ragassets.core.incremental import TIMESTAMP
from ragassets.core.tables import TableSpec

MAX_LOGGED_HITS = 100
"""Hits whose URIs a record keeps; nobody finds the useful one further down."""

URI_HASH_DIGITS = 12
"""Two of a hundred hits share a hash once in 10^11 searches."""


@dataclass(frozen=True)
class SearchRecord:
    """One search by an alias that has a canary."""

    search_id: str
    searched_at: str
    """ISO 8601 with time zone."""
    alias: str
    canary_id: str
    arm: str
    index_version: str
    """That answered: the live one where the canary failed."""
    unit: str
    """What the arm was drawn for, hashed: searches of one unit depend on each other."""
    query_hash: str
    latency_ms: float
    is_cold: bool
    """The latency includes loading the model."""
    is_fallback: bool
    n_hits: int
    top_score: float | None
    hit_uris: tuple[str, ...]
    """Hashes of the URIs of the hits, best first."""


@dataclass(frozen=True)
class FeedbackRecord:
    """What somebody said of one hit."""

    feedback_id: str
    search_id: str
    alias: str
    said_at: str
    uri: str
    """Hashed as in the search."""
    rank: int
    """Of the hit, from 1."""
    is_relevant: bool


SEARCHES = TableSpec(
    "_canary_searches",
    pl.Schema(
        {
            "search_id": TEXT,
            "searched_at": TIMESTAMP,
            "alias": TEXT,
            "canary_id": TEXT,
            "arm": TEXT,
            "index_version": TEXT,
            "unit": TEXT,
            "query_hash": TEXT,
            "latency_ms": NUMBER,
            "is_cold": FLAG,
            "is_fallback": FLAG,
            "n_hits": COUNT,
            "top_score": NUMBER,
            "hit_uris": pl.List(TEXT),
        }
    ),
    ("alias",),
    "search_id",
)

FEEDBACK = TableSpec(
    "_canary_feedback",
    pl.Schema(
        {
            "feedback_id": TEXT,
            "search_id": TEXT,
            "alias": TEXT,
            "said_at": TIMESTAMP,
            "uri": TEXT,
            "rank": COUNT,
            "is_relevant": FLAG,
        }
    ),
    ("alias",),
    "feedback_id",
)

Record = SearchRecord | FeedbackRecord


def hash_uri(uri: str) -> str:
    """The short hash of a hit's URI."""
    return stable_hash("uri", uri)[:URI_HASH_DIGITS]


def encode_records(records: Iterable[Record]) -> bytes:
    """JSON lines."""
    lines = (json.dumps(asdict(record), separators=(",", ":")) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def decode_records(data: bytes) -> list[Record]:
    """The records of JSON lines; keys of a newer version of the software are left out."""
    return [_decode(json.loads(line)) for line in data.decode().splitlines()]


def _decode(values: dict[str, object]) -> Record:
    kind = FeedbackRecord if "feedback_id" in values else SearchRecord
    known = {key: value for key, value in values.items() if key in kind.__dataclass_fields__}
    if isinstance(known.get("hit_uris"), list):
        known["hit_uris"] = tuple(cast("list[str]", known["hit_uris"]))
    return kind(**known)  # pyright: ignore[reportArgumentType] - as `encode_records` wrote them


def records_frame(spec: TableSpec, records: Sequence[Record]) -> pl.DataFrame:
    """The rows of some records, of the kind that the table holds."""
    rows = [asdict(record) for record in records]
    for row in rows:
        moment = "searched_at" if "searched_at" in row else "said_at"
        row[moment] = datetime.fromisoformat(row[moment])
    return pl.DataFrame(rows, schema=spec.schema)
