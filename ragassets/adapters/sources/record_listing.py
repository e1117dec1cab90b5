"""A listing that is made of records as they are read: their bodies are landed on the way."""

from collections.abc import Iterator
from datetime import datetime

from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.core.fingerprints import content_hash
from ragassets.core.records import RecordMapping, record_uri
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import Listing, SourceObject, landed_etag
from ragassets.errors import BrokenRecordError

BATCH_RECORDS = 500
BATCH_BYTES = 8 * 1024**2
"""What is held in memory until it is landed, whichever comes first."""

MAX_TOLD = 3
"""Problems that a message names; of the others it says how many they are."""


class RecordListing:
    """Collects the records of one listing."""

    def __init__(self, mapping: RecordMapping, bodies: LandedBodies, fetching: FetchConfig) -> None:
        """Begin an empty listing.

        Args:
            mapping: Reads the records.
            bodies: Where their bodies go.
            fetching: The size limit; what is larger is listed, and not landed.
        """
        self._mapping, self._bodies, self._fetching = mapping, bodies, fetching
        self._objects: dict[str, SourceObject] = {}
        self._deleted: set[str] = set()
        self._pending: dict[str, bytes] = {}
        self._n_pending_bytes = 0
        self._broken: list[str] = []
        self._doubled: list[str] = []

    def add(self, base_uri: str, value: object, *, place: str, modified_at: datetime) -> None:
        """Take one record in; what is wrong with it is told by the listing.

        Args:
            base_uri: Of its file, or of the API.
            value: As `json.loads` gives it.
            place: Where it was found, for a person.
            modified_at: Where the record says nothing of its time.
        """
        try:
            record = self._mapping.read(value, place=place)
        except BrokenRecordError as error:
            self.note_broken(str(error))
            return
        uri = record_uri(base_uri, record.record_id)
        if record.is_deleted:
            self._objects.pop(uri, None)
            self._pending.pop(uri, None)
            self._deleted.add(uri)
            return
        entry = SourceObject(
            uri=uri,
            etag=landed_etag(content_hash(record.body)),
            size_bytes=len(record.body),
            modified_at=record.updated_at or modified_at,
        )
        before = self._objects.get(uri)
        if before is not None and before.etag != entry.etag:
            self._doubled.append(
                f"{place}: id {record.record_id!r} is there again; the last counts"
            )
        self._deleted.discard(uri)
        self._objects[uri] = entry
        if len(record.body) <= self._fetching.max_bytes:
            self._hold(uri, record.body)

    def note_broken(self, problem: str) -> None:
        """Something could not be read: the listing will not be complete."""
        self._broken.append(problem)

    def finished(self, *, is_complete: bool, message: str = "") -> Listing:
        """What was read.

        Args:
            is_complete: Whether everything was read; broken records are counted here.
            message: Why not.
        """
        self._land()
        told = "; ".join(filter(None, [message, *_told(self._broken), *_told(self._doubled)]))
        return Listing(
            list(self._objects.values()),
            is_complete=is_complete and not self._broken,
            message=told,
            deleted=frozenset(self._deleted),
        )

    @property
    def n_objects(self) -> int:
        """Documents until now."""
        return len(self._objects)

    def _hold(self, uri: str, body: bytes) -> None:
        self._pending[uri] = body
        self._n_pending_bytes += len(body)
        if len(self._pending) >= BATCH_RECORDS or self._n_pending_bytes >= BATCH_BYTES:
            self._land()

    def _land(self) -> None:
        if self._pending:
            self._bodies.land(self._pending)
        self._pending, self._n_pending_bytes = {}, 0


def _told(problems: list[str]) -> Iterator[str]:
    yield from problems[:MAX_TOLD]
    if len(problems) > MAX_TOLD:
        yield f"and {len(problems) - MAX_TOLD} more like these"
