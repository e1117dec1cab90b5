"""Documents in a folder of this machine."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.core.sources import Listing, SourceObject
from ragassets.errors import ChangedDuringReadError, SourceUnavailableError

BLOCK_BYTES = 1024**2


class LocalFolder:
    """The files below a folder that the patterns let through.

    Links to files of the folder are followed; links out of it are left out, and so are links to
    folders (they can form loops). Hidden files and
    folders are left out unless a pattern names their dot.
    """

    def __init__(self, path: str, include: Sequence[str], exclude: Sequence[str]) -> None:
        """Describe the folder; nothing is read yet.

        Args:
            path: A path or `file://` URI.
            include: Glob patterns relative to the folder, `**` for any depth; one must match.
            exclude: Patterns of files to leave out.
        """
        self._folder = _path_of(path) if path.startswith("file://") else Path(path)
        self._patterns = PathPatterns(include, exclude)

    def probe(self) -> str:
        """The folder, which is there and can be read.

        Raises:
            SourceUnavailableError: It is not.
        """
        if not self._folder.is_dir() or not os.access(self._folder, os.R_OK | os.X_OK):
            raise SourceUnavailableError(
                service=f"source folder {self._folder}",
                detail="is not a folder that can be read",
                fix="Nothing was deleted. Bring it back, or mend the source's uri",
            )
        return str(self._folder)

    def list_objects(self) -> Listing:
        """All files of now; incomplete where a folder below cannot be read.

        Raises:
            SourceUnavailableError: The folder itself is not there or cannot be read.
        """
        self.probe()
        problems: list[str] = []
        objects = [entry for path in self._walk(problems) if (entry := _describe(path, problems))]
        return Listing(objects, is_complete=not problems, message="; ".join(problems[:3]))

    def fetch(self, wanted: SourceObject) -> bytes:
        """The file's bytes, all of one state of the file.

        That may be a later state than the listed one: the next listing sees it, and the bytes of
        now serve searches meanwhile.

        Raises:
            SourceUnavailableError: The file cannot be read.
            ChangedDuringReadError: It changed while it was read.
        """
        return b"".join(self.stream(wanted, block_bytes=-1))

    def stream(self, wanted: SourceObject, *, block_bytes: int = 0) -> Iterator[bytes]:
        """The same in pieces, of `BLOCK_BYTES` or of another size; -1 is one piece."""
        uri = wanted.uri
        path = _path_of(uri)
        try:
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                while block := file.read(block_bytes or BLOCK_BYTES):
                    yield block
                after = os.fstat(file.fileno())
        except OSError as error:
            raise SourceUnavailableError(
                service=uri, detail=f"cannot be read ({error.strerror})"
            ) from error
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise ChangedDuringReadError(uri=uri)

    def _walk(self, problems: list[str]) -> Iterator[Path]:
        def note(error: OSError) -> None:
            problems.append(f"{error.filename}: {error.strerror}")

        for folder, folders, files in os.walk(self._folder, onerror=note):
            folders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                relative = path.relative_to(self._folder).as_posix()
                if self._patterns.wants(relative) and self._is_inside(path):
                    yield path

    def _is_inside(self, path: Path) -> bool:
        """Whether a file lies in the folder: a link out of it could publish any readable file."""
        # Unlike pathlib's, these two never raise: a path that cannot be read is reported later.
        if not os.path.islink(path):  # noqa: PTH114
            return True
        target = Path(os.path.realpath(path))
        return target.is_relative_to(os.path.realpath(self._folder))


def _path_of(uri: str) -> Path:
    """The path that a `file://` URI names; a file name need not be UTF-8."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))


def _describe(path: Path, problems: list[str]) -> SourceObject | None:
    """The listing's entry of a file; None for what is not a file, or just went away.

    A link to nothing is a problem and no deletion: its target may lie on a volume that is not
    mounted now.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            problems.append(
                f"{path} is a link to a file that is not there: mend it, or exclude it under the"
                " source; until then nothing of this source is deleted"
            )
        return None
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return None
    if not path.is_file():
        return None
    return SourceObject(
        uri=path.absolute().as_uri(),
        etag=f"{status.st_mtime_ns:x}-{status.st_size:x}",
        size_bytes=status.st_size,
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
    )
