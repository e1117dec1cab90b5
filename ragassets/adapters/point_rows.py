"""Points of one collection in SQLite, for engines that keep vectors and nothing else.

Every point has a row number, and no number is ever used twice: not after a deletion, not when the
point is written again. So an index that was made of some rows is brought up to date by comparing
numbers; it needs no journal, and it does not matter when whoever made it was killed.

A batch is one transaction, on disk when `write` returns (`synchronous=FULL` over a write-ahead
log): a crash leaves all of it or nothing.

Source: https://www.sqlite.org/autoinc.html, https://www.sqlite.org/pragma.html#pragma_synchronous
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.core.indexing import Payload, PointBatch, StoredPoint
from ragassets.core.searching import (
    Condition,
    parse_filters,
    payload_condition_terms,
    payload_terms,
)

SCHEMA = """
CREATE TABLE points (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    point_id TEXT NOT NULL UNIQUE,
    chunk_id TEXT NOT NULL,
    document_id TEXT NOT NULL,
    payload_hash TEXT NOT NULL,
    payload TEXT NOT NULL
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE terms (
    term TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (term, row)
) WITHOUT ROWID;
CREATE INDEX terms_of_row ON terms (row);
"""
"""Vectors apart from payloads: reading all vectors must not read all texts."""

AUDITED_KEYS = ("chunk_id", "document_id", "payload_hash")

SCROLL_POINTS = 2_000

GONE = "SELECT row FROM points WHERE point_id IN (SELECT value FROM json_each(?))"


class FoundRow(NamedTuple):
    """What a search needs of a point."""

    point_id: str
    payload: Payload
    vector: NDArray[np.float32]


class PointRows:
    """The points of one collection; one process at a time, which the store sees to."""

    def __init__(self, path: Path, *, dim: int) -> None:
        """Open the database, which has to be there."""
        self._dim = dim
        self._database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._database.execute(f"PRAGMA {pragma}")

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty database."""
        database = sqlite3.connect(path)
        try:
            database.executescript(SCHEMA)
        finally:
            database.close()

    def close(self) -> None:
        """Close the database; its write-ahead log is merged."""
        self._database.close()

    def write(self, batch: PointBatch) -> None:
        """Write the points under new row numbers; those with the same ids go."""
        # The last of several points with one id counts.
        last_of = dict(zip(batch.point_ids, range(len(batch)), strict=True))
        vectors = np.ascontiguousarray(batch.vectors, np.float32)
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            self._remove(list(last_of))
            rows = range(self.last_number() + 1, self.last_number() + 1 + len(last_of))
            numbered = list(zip(rows, last_of.items(), strict=True))
            database.executemany(
                "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (row, point_id, *_audited(batch.payloads[place]), _as_json(batch, place))
                    for row, (point_id, place) in numbered
                ),
            )
            database.executemany(
                "INSERT INTO vectors VALUES (?, ?)",
                ((row, vectors[place].tobytes()) for row, (_, place) in numbered),
            )
            terms = {
                (term, row)
                for row, (_, place) in numbered
                for term in payload_terms(batch.payloads[place])
            }
            # In the order of the table's tree, which they would else be scattered over.
            database.executemany("INSERT INTO terms VALUES (?, ?)", sorted(terms))

    def delete(self, point_ids: Sequence[str]) -> None:
        """Remove the points; ids that are not there are ignored."""
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            self._remove(point_ids)

    def _remove(self, point_ids: Sequence[str]) -> None:
        ids = json.dumps([*point_ids])
        for table in ("terms", "vectors", "points"):  # points last: the others are found by it
            self._database.execute(f"DELETE FROM {table} WHERE row IN ({GONE})", (ids,))  # noqa: S608 - our own names

    def count(self, filters: Mapping[str, str]) -> int:
        """Return the exact number of points that match."""
        if not filters:
            return int(self._one("SELECT count(*) FROM points"))
        return len(self.matching(parse_filters(filters)))

    def matching(self, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        """Return the sorted row numbers of the points that satisfy all conditions."""
        found = self.numbers()
        for condition in conditions:
            terms = json.dumps(payload_condition_terms(condition))
            rows = self._numbers(
                "SELECT DISTINCT row FROM terms WHERE term IN (SELECT value FROM json_each(?))",
                terms,
            )
            found = np.intersect1d(found, rows)
        return found

    def numbers(self) -> NDArray[np.int64]:
        """Return all row numbers, sorted."""
        return self._numbers("SELECT row FROM vectors ORDER BY row")

    def last_number(self) -> int:
        """Return the largest row number that was ever given."""
        return int(self._one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence"))

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (n_rows, dim) float32, in the order of `rows`, which are sorted and all there."""
        if len(rows) and len(rows) == int(self._one("SELECT count(*) FROM vectors")):
            found = self._database.execute("SELECT vector FROM vectors ORDER BY row")
        else:
            found = self._database.execute(
                "SELECT vector FROM vectors WHERE row IN (SELECT value FROM json_each(?))"
                " ORDER BY row",
                (json.dumps(rows.tolist()),),
            )
        data = b"".join(vector for (vector,) in found)
        return np.frombuffer(data, np.float32).reshape(len(rows), self._dim)

    def read(self, rows: Sequence[int]) -> list[FoundRow]:
        """Return the points of these rows that exist, in any order."""
        found = self._database.execute(
            "SELECT point_id, payload, vector FROM points JOIN vectors USING (row)"
            " WHERE row IN (SELECT value FROM json_each(?))",
            (json.dumps([*rows]),),
        )
        return [
            FoundRow(
                point_id,
                cast("dict[str, object]", json.loads(payload)),
                np.frombuffer(vector, np.float32),
            )
            for point_id, payload, vector in found
        ]

    def hashes(self, point_ids: Sequence[str]) -> dict[str, str]:
        """Return point id to payload hash for those that exist."""
        found = self._database.execute(
            "SELECT point_id, payload_hash FROM points"
            " WHERE point_id IN (SELECT value FROM json_each(?))",
            (json.dumps([*point_ids]),),
        )
        return dict(cast("Iterator[tuple[str, str]]", found))

    def scroll(self) -> Iterator[StoredPoint]:
        """Yield every point once, ordered by id."""
        last = ""
        while True:
            found = self._database.execute(
                "SELECT point_id, chunk_id, document_id, payload_hash FROM points"
                " WHERE point_id > ? ORDER BY point_id LIMIT ?",
                (last, SCROLL_POINTS),
            ).fetchall()
            yield from (StoredPoint(*row) for row in found)
            if len(found) < SCROLL_POINTS:
                return
            last = found[-1][0]

    def _one(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def _numbers(self, query: str, *values: str) -> NDArray[np.int64]:
        found = self._database.execute(query, values)
        return np.sort(np.fromiter((row for (row,) in found), np.int64))


def _audited(payload: Payload) -> tuple[str, ...]:
    return tuple(str(payload.get(key, "")) for key in AUDITED_KEYS)


def _as_json(batch: PointBatch, place: int) -> str:
    return json.dumps(batch.payloads[place], ensure_ascii=False)
