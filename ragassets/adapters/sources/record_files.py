"""Documents that are the lines of files: dumps as JSON lines, packed with gzip or not."""

import json
import zlib

from ragassets.adapters.sources.integrity import check_size
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.patience import Patience
from ragassets.adapters.sources.record_listing import RecordListing
from ragassets.core.json_lines import decompress, split_lines
from ragassets.core.records import RecordMapping
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import Listing, SourceObject, StreamedSource
from ragassets.errors import ChangedDuringReadError, SourceUnavailableError


class RecordFiles:
    """The records of all files of another source.

    A file is read again with every listing, a line at a time. A file that cannot be read to its
    end, and a line that is no record, make the listing incomplete: then nothing is deleted.
    """

    def __init__(
        self,
        files: StreamedSource,
        mapping: RecordMapping,
        bodies: LandedBodies,
        *,
        fetching: FetchConfig,
        patience: Patience,
    ) -> None:
        """Describe the source; nothing is read yet.

        Args:
            files: Lists the files and streams them.
            mapping: Reads the records.
            bodies: Where their bodies go.
            fetching: `max_bytes` is the limit of one line and of one body.
            patience: The tries of one file.
        """
        self._files, self._mapping, self._bodies = files, mapping, bodies
        self._fetching, self._patience = fetching, patience

    def probe(self) -> str:
        """See `Source`."""
        return self._files.probe()

    def list_objects(self) -> Listing:
        """All records of all files; incomplete where one of them could not be read.

        Raises:
            SourceUnavailableError: The files cannot be listed.
        """
        files = self._files.list_objects()
        found = RecordListing(self._mapping, self._bodies, self._fetching)
        for file in sorted(files.objects, key=lambda entry: entry.uri):
            try:
                self._patience.with_retries(lambda file=file: self._read(file, found))
            except (SourceUnavailableError, ChangedDuringReadError) as error:
                found.note_broken(str(error))
        return found.finished(is_complete=files.is_complete, message=files.message)

    def fetch(self, wanted: SourceObject) -> bytes:
        """The body that was landed when its file was read.

        Raises:
            OversizedDocumentError: It is larger than `max_bytes`.
            MissingRawBytesError: The landing zone lost it; the next listing brings it again.
        """
        check_size(wanted.uri, wanted.size_bytes, self._fetching)
        return self._bodies.read(wanted.etag)

    def _read(self, file: SourceObject, found: RecordListing) -> None:
        blocks = self._files.stream(file)
        if file.uri.lower().endswith(".gz"):
            blocks = decompress(blocks)
        try:
            for number, line in split_lines(blocks, max_bytes=self._fetching.max_bytes):
                self._take(file, number, line, found)
        except EOFError:
            found.note_broken(f"{file.uri}: ends in the middle of what gzip packed")
        except zlib.error:
            found.note_broken(f"{file.uri}: is damaged, or was not packed with gzip")

    def _take(
        self, file: SourceObject, number: int, line: bytes | None, found: RecordListing
    ) -> None:
        place = f"{file.uri}, line {number}"
        if line is None:
            limit = f"{self._fetching.max_bytes:,}"
            found.note_broken(f"{place}: is longer than fetch.max_bytes {limit} allows")
            return
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # its text may quote the document
            found.note_broken(f"{place}: is no JSON")
            return
        found.add(file.uri, value, place=place, modified_at=file.modified_at)
