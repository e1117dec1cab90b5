"""Picks the vector store that a location names."""

from pathlib import Path
from urllib.parse import urlsplit

from ragassets.core.indexing import VectorStore
from ragassets.errors import ConfigurationError


def open_vector_store(location: str, *, timeout_seconds: float) -> VectorStore:
    """Return the vector store at `location`; a path means the embedded engine.

    Opening takes no lock and creates nothing.

    Args:
        location: a directory.
        timeout_seconds: how long to wait for another process that holds the store.

    Raises:
        ConfigurationError: the location is a URL.
    """
    scheme = urlsplit(location).scheme
    if "://" in location:
        # Only the scheme is shown: the rest may hold a password.
        raise ConfigurationError(
            key="vector_store",
            value=f"{scheme}://…",
            problem="is not supported yet",
            fix="Use a local path; Qdrant servers come with a later release",
        )
    from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore

    return QdrantEdgeStore(Path(location).expanduser(), timeout_seconds=timeout_seconds)
