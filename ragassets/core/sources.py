"""What a source says: its objects, its listing, and the protocol that every kind of source obeys.

What a listing changes in what we know is `core/discovery.py`'s business.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

_MD5 = re.compile(r"[0-9a-f]{32}")
_LANDED = re.compile(r"sha256:([0-9a-f]{64})")


@dataclasses.dataclass(frozen=True)
class SourceObject:
    """One object as a listing shows it."""

    uri: str
    """Complete and percent-encoded."""
    etag: str
    """Changes whenever the bytes may have changed."""
    size_bytes: int
    modified_at: datetime
    version_id: str = ""
    """The store's id of this very version, where it is known: it can be fetched when the object was
    overwritten since."""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """The bytes of one object, and what the store calls the version that they are."""

    data: bytes
    version_id: str = ""
    """Empty where the store keeps no versions."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source said it holds."""

    objects: Sequence[SourceObject]
    is_complete: bool
    """Only a complete listing says that something is gone."""
    message: str = ""
    """Why it is not complete."""
    deleted: Collection[str] = ()
    """URIs that the source says are gone, one by one, whether or not the rest is complete."""


class Source(Protocol):
    """Where documents come from. One object serves several threads."""

    def probe(self) -> str:
        """What can be reached, in a few words for a person; cheap, whatever the source holds.

        Raises:
            SourceUnavailableError: Nothing can be listed.
        """
        ...

    def list_objects(self) -> Listing:
        """All objects of now, in any order.

        Raises:
            SourceUnavailableError: Nothing can be listed.
        """
        ...

    def fetch(self, wanted: SourceObject) -> bytes:
        """The bytes of one object, of the very state that was listed where the source can tell.

        Raises:
            SourceUnavailableError: It cannot be read now, or arrived damaged.
            ChangedDuringReadError: It has changed since it was listed.
            OversizedDocumentError: It is larger than the source's limit.
        """
        ...


@runtime_checkable
class VersionedSource(Protocol):
    """A source that may keep versions of its objects."""

    def fetch_version(self, wanted: SourceObject) -> Fetched:
        """As `Source.fetch`, with the version's id. One that `wanted` names is fetched itself."""
        ...


def fetch_version(source: Source, wanted: SourceObject) -> Fetched:
    """The bytes of one object, with the id of their version where the source knows it."""
    if isinstance(source, VersionedSource):
        return source.fetch_version(wanted)
    return Fetched(source.fetch(wanted))


@dataclasses.dataclass(frozen=True)
class ListingPage:
    """A piece of a listing that is made in the order of the objects' keys."""

    objects: Sequence[SourceObject]
    """Those that are wanted."""
    last_key: str
    """Of the last object, wanted or not; what comes after it is on the next page. Of a crawl, where
    it stands."""
    deleted: Collection[str] = ()
    """URIs that the source says are gone, one by one."""
    is_last: bool = False
    """Known to be the last page; a look that stops behind it is over."""
    problem: str = ""
    """On the last page: why the whole listing is not complete."""


@runtime_checkable
class PagedSource(Source, Protocol):
    """A source that lists in pages and can go on behind any of them."""

    def pages(self, after: str = "") -> Iterator[ListingPage]:
        """The objects in the order of their keys, or of a crawl as it finds them.

        Args:
            after: Start behind this key; it need not exist.

        Raises:
            SourceUnavailableError: The source does not answer, or refuses.
        """
        ...


class StreamedSource(Source, Protocol):
    """A source whose objects can be read piece by piece."""

    def stream(self, wanted: SourceObject) -> Iterator[bytes]:
        """The bytes of one object in pieces, all of one state; see `fetch` for what is raised."""
        ...


@runtime_checkable
class IncrementalSource(Source, Protocol):
    """A source that can be asked for what changed only."""

    @property
    def is_incremental(self) -> bool:
        """Whether this one can."""
        ...

    def list_since(self, moment: datetime) -> Listing:
        """What changed since some moment; never complete.

        Raises:
            SourceUnavailableError: The source does not answer, or refuses.
        """
        ...


@dataclasses.dataclass(frozen=True)
class EventBatch:
    """Some events of a source, as a listing of the objects that they are about."""

    listing: Listing
    """Never complete."""
    acknowledge: Callable[[], None]
    """To be called when the listing was recorded: then the events do not come again."""


class EventQueue(Protocol):
    """Where a source tells what happened to its objects."""

    def receive(self) -> EventBatch | None:
        """The next events; None when there are none now.

        Raises:
            SourceUnavailableError: Queue or source do not answer.
        """
        ...


@dataclasses.dataclass(frozen=True)
class StreamBatch:
    """Some messages of a stream, as a listing of the objects that they make."""

    listing: Listing
    """Never complete; the bodies of its objects are landed."""
    positions: Mapping[str, int]
    """Where each part of the stream is to be read on, once the listing is recorded."""
    n_without_identity: int
    """Messages that do not say which document they are."""
    problems: tuple[str, ...] = ()
    """What needs attention: messages that could not be taken in."""


class StreamReader(Protocol):
    """A stream that is being read, from recorded positions up to where it ended at the start."""

    def receive(self, *, wait_seconds: float) -> StreamBatch | None:
        """The next messages, landed; None when everything up to the end was read.

        Args:
            wait_seconds: How long to wait for the first of them.

        Raises:
            SourceUnavailableError: The stream gives nothing, though there is more.
        """
        ...

    def tell(self, positions: Mapping[str, int]) -> None:
        """Tell the stream's own service how far it was read, for people to see.

        Raises:
            SourceUnavailableError: It does not take it; nothing of ours hangs on it.
        """
        ...

    def n_behind(self) -> int:
        """Messages that are there and were not received."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


@runtime_checkable
class StreamSource(Source, Protocol):
    """A source that cannot be listed, but tells what happened, in order, from any position on."""

    def open_stream(self, positions: Mapping[str, int]) -> StreamReader:
        """Begin to read.

        Args:
            positions: By the names of its parts; a part without one is read from its beginning.

        Raises:
            SourceUnavailableError: The source does not answer, or refuses.
        """
        ...

    def count_behind(self, positions: Mapping[str, int]) -> int:
        """Messages behind the positions.

        Raises:
            SourceUnavailableError: The source does not answer, or refuses.
        """
        ...


def md5_of_etag(etag: str) -> str | None:
    """The MD5 that an ETag claims to be, as hexadecimal digits; None where it cannot be one.

    Object stores use the MD5 for objects that were uploaded in one part without a key of the
    customer's. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html, `ETag`.
    """
    bare = etag.strip('"').lower()
    return bare if _MD5.fullmatch(bare) else None


def landed_etag(content_hash: str) -> str:
    """The ETag of an object whose bytes were kept as they were listed, by their hash."""
    return f"sha256:{content_hash}"


def landed_hash(etag: str) -> str | None:
    """The content hash in an ETag of `landed_etag`; None where it is another one."""
    found = _LANDED.fullmatch(etag)
    return found[1] if found else None
