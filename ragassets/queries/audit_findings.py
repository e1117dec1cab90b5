"""What an audit can find: the checks by name, what a finding of each is, and what it names."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

MAX_EXAMPLES = 3

MEANINGS: dict[str, str] = {
    "orphan_points": "points in a collection that no table knows",
    "missing_points": "indexed chunks whose point is not in the collection",
    "stale_points": "points whose payload is not the one that was indexed",
    "wrong_vectors": "points whose vector is not the one that was embedded",
    "unsound_vectors": "embeddings that are not finite, of unit length and of the model's size",
    "orphan_indexed_chunks": "indexed chunks without embedding",
    "missing_indexed_chunks": "embeddings of a built version without an indexed chunk",
    "orphan_embeddings": "embeddings without chunk",
    "missing_embeddings": "chunks of a built version without embedding",
    "orphan_chunks": "chunks of documents that are gone or duplicates",
    "missing_chunks": "documents of a built version that have no chunks",
    "incomplete_chunks": "documents whose chunks leave out some of their text",
    "altered_chunks": "chunks whose text is not the one that was hashed",
    "orphan_documents": "documents in a stage that the stage before no longer has",
    "missing_documents": "documents that a stage has lost",
    "orphan_dead_letters": "dead letters of documents that are gone or no longer fail",
    "missing_dead_letters": "failures that stand for good without a dead letter",
    "orphan_catalog_rows": "catalog rows of documents that are gone",
    "missing_catalog_rows": "documents without a catalog row",
    "wrong_catalog_rows": "catalog rows that say something else than the tables",
    "missing_raw_bytes": "documents whose bytes are not in the landing zone",
    "damaged_raw_bytes": "objects of the landing zone whose bytes have another hash",
    "retired_shards": "source shards in tables that the configuration no longer has",
    "leftover_intents": "points that a run was about to write when it died",
    "unfinished_drops": "index versions whose drop was interrupted: `ragassets index drop` again",
    "unused_raw_bytes": "objects of the landing zone that no document has",
}
"""Every check, and what a finding of it is."""

HARMLESS = frozenset({"unused_raw_bytes"})
"""Findings that are no damage: an edited document leaves its earlier bytes until a repair."""


class Thing(NamedTuple):
    """One thing that is not as it should be."""

    label: str
    """What a person reads."""
    key: str = ""
    """Point id or content hash."""
    document_id: str = ""
    shard: str = ""
    under: str = ""
    """The chunking, embedding set or index version."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    things: tuple[Thing, ...] = ()
    """All of them, ordered."""

    @property
    def count(self) -> int:
        """How many."""
        return len(self.things)

    @property
    def examples(self) -> tuple[str, ...]:
        """The first of them."""
        return tuple(thing.label for thing in self.things[:MAX_EXAMPLES])

    @property
    def meaning(self) -> str:
        """What is counted."""
        return MEANINGS[self.name]

    @property
    def is_harmless(self) -> bool:
        """Whether everything is true nevertheless."""
        return self.name in HARMLESS


def finding(name: str, things: Iterable[Thing]) -> Finding:
    """A finding of these things, each once."""
    return Finding(name, tuple(sorted(set(things))))


def row_things(rows: pl.DataFrame, label: str, *, under: str = "") -> list[Thing]:
    """Rows as things.

    Args:
        rows: With `document_id` and `source_shard`.
        label: The column that a person reads.
        under: The column of the second dimension.
    """
    return [
        Thing(
            str(row[label]),
            document_id=str(row["document_id"]),
            shard=str(row["source_shard"]),
            under=str(row[under]) if under else "",
        )
        for row in rows.iter_rows(named=True)
    ]
