"""Whether a source that failed on an object is to blame, or the object.

Whoever failed in an outage, or under an expired token, was not looked at: that must not use up its
attempts, else five such runs park documents that nobody ever tried. So a failure is put to the
proof: can the source give an object now that it gave before?
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DOCUMENT_IDENTITY, RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.core.sources import SourceObject
from ragassets.core.tables import Tables
from ragassets.errors import (
    ChangedDuringReadError,
    ObjectGoneError,
    OversizedDocumentError,
    SourceUnavailableError,
)

MAX_WITNESSES = 3
"""Objects that are asked for until one is given: a single one may be archived or locked away."""

ANSWERS = (ObjectGoneError, ChangedDuringReadError, OversizedDocumentError)
"""Errors that only a source which is up can give."""

Fetch = Callable[[SourceObject], object]


class SourceWitness:
    """Tells whether one source gives objects at all; one object serves several threads."""

    def __init__(self, fetch: Fetch, known: Callable[[], list[SourceObject]]) -> None:
        """Remember how to ask.

        Args:
            fetch: Fetches one object of the source.
            known: Objects that the source gave before, those first that cost least to ask for.
                Called once, and not before something failed.
        """
        self._fetch, self._known = fetch, known
        self._witnesses: list[SourceObject] | None = None
        self._last: SourceObject | None = None
        self._is_down = False
        self._lock = threading.Lock()

    def note_success(self, given: SourceObject) -> None:
        """The source gave an object: it is up, and this one is the next witness."""
        self._last, self._is_down = given, False

    def is_down(self) -> bool:
        """Whether the source gives nothing now, to be asked after it failed on an object.

        Once it was found to be down it is so until it gives any object. A source that never gave
        one counts as down: nothing says that an object of its own is to blame.
        """
        with self._lock:
            if not self._is_down:
                self._is_down = not any(self._gives(witness) for witness in self._candidates())
            return self._is_down

    def _candidates(self) -> list[SourceObject]:
        if self._witnesses is None:
            self._witnesses = self._known()
        last = [] if self._last is None else [self._last]
        return [*last, *self._witnesses][:MAX_WITNESSES]

    def _gives(self, witness: SourceObject) -> bool:
        try:
            self._fetch(witness)
        except ANSWERS:
            return True
        except SourceUnavailableError:
            return False
        return True


def open_witness(workspace: Workspace, source: str, tables: Tables) -> SourceWitness:
    """The witness of a configured source: its smallest objects that were fetched as they are."""

    def known() -> list[SourceObject]:
        of_source = pl.col("source") == source
        fetched = tables.read(
            RAW_DOCUMENTS.outputs,
            columns=["document_id", "etag"],
            where=of_source & pl.col("output_hash").is_not_null(),
        )
        columns = [*DOCUMENT_IDENTITY, "etag", "size_bytes", "modified_at"]
        alive = tables.read(
            SOURCE_OBJECTS, columns=columns, where=of_source & ~pl.col("is_deleted")
        )
        # An empty object says nothing of bytes that arrive damaged.
        full = alive.filter(pl.col("size_bytes") > 0).join(
            fetched, on=["document_id", "etag"], how="semi"
        )
        smallest = full.sort("size_bytes", "document_id").head(MAX_WITNESSES)
        return [listed_object(row) for row in smallest.iter_rows(named=True)]

    return SourceWitness(workspace.source(source).fetch, known)


@dataclasses.dataclass(frozen=True)
class Waiting:
    """Documents of one source that wait for it to give anything at all."""

    source: str
    n_documents: int
    message: str
    """What it said of one of them."""

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"source {self.source!r} gives nothing now: {self.n_documents} documents wait for it,"
            f" and are tried again by themselves: {self.message}"
        )


def waiting_documents(tables: Tables, sources: Sequence[str]) -> list[Waiting]:
    """Of the named sources those that could not be fetched from, as the last runs found out."""
    rows = tables.read(
        RAW_DOCUMENTS.outputs,
        columns=["source", "document_id", "error_message"],
        where=pl.col("source").is_in(list(sources))
        & pl.col("failed_input_hash").is_not_null()
        & (pl.col("attempts") == 0),
    )
    by_source = rows.sort("document_id").partition_by("source", as_dict=True, maintain_order=True)
    return [
        Waiting(str(name), part.height, str(part["error_message"][0]))
        for (name,), part in sorted(by_source.items())
    ]


def listed_object(row: dict[str, object], *, version_id: str = "") -> SourceObject:
    """The object that a row of `source_objects` or `raw_documents` tells of."""
    return SourceObject(
        uri=str(row["uri"]),
        etag=str(row["etag"]),
        size_bytes=cast("int", row["size_bytes"]),
        modified_at=cast("datetime", row["modified_at"]),
        version_id=version_id,
    )
