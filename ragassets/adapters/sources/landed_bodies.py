"""Bodies that come with a listing or a stream, kept where fetched bytes are kept.

A message of a topic or a record of an API cannot be asked for again, one by one. So its bytes go
into the landing zone as it is read, its ETag is their hash, and fetching it reads them back.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from ragassets.adapters.landing_zone import LandingZone
from ragassets.core.fingerprints import content_hash, document_id
from ragassets.core.sources import landed_etag, landed_hash

PUT_THREADS = 32
"""Writing waits for a disk or a network, not for a core. Two thousand bodies into a store that
takes 50 ms for each of two requests are there after six seconds."""


class LandedBodies:
    """The landing zone as one source sees it."""

    def __init__(
        self,
        source: str,
        zone: Callable[[], LandingZone],
        forgotten: Callable[[], Collection[str]],
    ) -> None:
        """Describe where the bodies go; nothing is opened yet.

        Args:
            source: The source's name.
            zone: Opens the landing zone.
            forgotten: Reads which documents of the source were forgotten: their bytes are not
                taken in again, however often the source sends them.
        """
        self.source = source
        self._zone, self._forgotten = zone, forgotten

    def land(self, bodies: Mapping[str, bytes]) -> dict[str, str]:
        """Keep some bodies; to be called before a listing names them.

        What is landed and never recorded is harmless: an audit's repair removes it.

        Args:
            bodies: By the URI of their document.

        Returns:
            The ETag of each, by URI; that of a forgotten document, too, though nothing was kept.

        Raises:
            SystemResourceError: The disk is full.
            StorageUnavailableError: The landing zone cannot be written.
        """
        refused = self._forgotten()
        kept = [
            body
            for uri, body in bodies.items()
            if not refused or document_id(self.source, uri) not in refused
        ]
        if kept:
            zone = self._zone()
            with ThreadPoolExecutor(PUT_THREADS) as pool:
                list(pool.map(zone.put, kept))
        return {uri: landed_etag(content_hash(body)) for uri, body in bodies.items()}

    def read(self, etag: str) -> bytes:
        """The bytes behind an ETag of `land`.

        Raises:
            MissingRawBytesError: They are gone or damaged, and the source will not send them again
                by itself.
            StorageUnavailableError: The landing zone cannot be read.
        """
        name = landed_hash(etag)
        if name is None:
            msg = f"{etag!r} is no ETag of landed bytes"
            raise ValueError(msg)
        return self._zone().get(name)
