"""A vector store that writes only while somebody may: every change asks first."""

from collections.abc import Sequence
from typing import Protocol

from ragassets.core.indexing import PointBatch, VectorStore


class Fence(Protocol):
    """Says whether this process may still write."""

    def confirm(self, *, is_fresh: bool = False) -> None:
        """Return when it may; raise `LeaseLostError` when not."""
        ...


class FencedStore:
    """Passes everything on to a store; `upsert` and `delete` of points ask the fence first.

    A writer that was paused until another took its place must not delete what that one has
    written: points that no committed row has look like its own leftovers.
    """

    def __init__(self, store: VectorStore, fence: Fence) -> None:
        """Put the fence before the store."""
        self._store, self._fence = store, fence

    def upsert(self, name: str, batch: PointBatch) -> None:
        """Write the points, if we still may."""
        self._fence.confirm()
        self._store.upsert(name, batch)

    def delete(self, name: str, point_ids: Sequence[str]) -> None:
        """Remove the points, if we still may: the storage of the lease is asked each time."""
        self._fence.confirm(is_fresh=True)
        self._store.delete(name, point_ids)

    def __getattr__(self, name: str) -> object:
        """Return everything else of the store."""
        return getattr(self._store, name)
