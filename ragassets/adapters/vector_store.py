"""Picks the vector store that a location names."""

from pathlib import Path
from urllib.parse import urlsplit

from ragassets.core.indexing import VectorStore
from ragassets.core.settings import QdrantConfig
from ragassets.errors import ConfigurationError

DEFAULT_QDRANT = QdrantConfig()


def open_vector_store(
    location: str, *, timeout_seconds: float, qdrant: QdrantConfig = DEFAULT_QDRANT
) -> VectorStore:
    """Return the vector store at `location`: a path is the embedded engine, a URL a Qdrant server.

    Opening takes no lock, creates nothing and sends nothing.

    Args:
        location: a directory, or the URL of a server's REST interface.
        timeout_seconds: how long to wait for another process that holds the embedded store, or for
            a server that cannot be reached.
        qdrant: how to talk to a server.

    Raises:
        ConfigurationError: the URL is of another scheme, or holds a password.
    """
    scheme = urlsplit(location).scheme
    if scheme in ("http", "https"):
        from ragassets.adapters.qdrant_server_store import QdrantServerStore

        return QdrantServerStore(location, qdrant, timeout_seconds=timeout_seconds)
    if "://" in location:
        # Only the scheme is shown: the rest may hold a password.
        raise ConfigurationError(
            key="vector_store",
            value=f"{scheme}://…",
            problem="is no vector store",
            fix="Use a local path, or http:// or https:// and the address of a Qdrant server",
        )
    from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore

    return QdrantEdgeStore(Path(location).expanduser(), timeout_seconds=timeout_seconds)
