"""Aliases of an embedded vector store: one small file, replaced as a whole."""

import json
from pathlib import Path
from typing import cast

from ragassets.adapters.durable_files import replace_file
from ragassets.errors import ConcurrentWriteError, StorageUnavailableError


class FileAliases:
    """The aliases in one file."""

    def __init__(self, path: Path) -> None:
        """Name the file; there is none before the first switch."""
        self._path = path

    def all(self) -> dict[str, str]:
        """Return alias to target; nothing when there is no file yet.

        Raises:
            StorageUnavailableError: the file is damaged.
        """
        try:
            content = cast("object", json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StorageUnavailableError(
                service=f"vector store {self._path.parent}",
                detail=f"{self._path.name} cannot be read ({error})",
                fix="Remove the file and promote a version again",
            ) from error
        return dict(cast("dict[str, str]", content))

    def switch(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target` if it points at `expected` now; needs the store's lock.

        Raises:
            ConcurrentWriteError: it points elsewhere.
        """
        aliases = self.all()
        if aliases.get(alias) != expected:
            raise ConcurrentWriteError(table="aliases", partition=alias)
        replace_file(self._path, json.dumps({**aliases, alias: target}, sort_keys=True))
