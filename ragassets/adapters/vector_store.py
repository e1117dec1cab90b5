"""Picks the vector store that a location names."""

from pathlib import Path

from ragassets.adapters.extras import require_extra
from ragassets.core.indexing import VectorStore
from ragassets.core.settings import QdrantConfig
from ragassets.core.store_locations import parse_location

DEFAULT_QDRANT = QdrantConfig()


def open_vector_store(
    location: str, *, timeout_seconds: float, qdrant: QdrantConfig = DEFAULT_QDRANT
) -> VectorStore:
    """Return the vector store at `location`, see `core/store_locations.py`.

    Opening takes no lock, creates nothing and sends nothing.

    Args:
        location: a path, `faiss:PATH`, or the URL of a server's REST interface.
        timeout_seconds: how long to wait for another process that holds an embedded store, or for
            a server that cannot be reached.
        qdrant: how to talk to a Qdrant server.

    Raises:
        ConfigurationError: there is no such store, its URL holds a password, or its package is not
            installed.
    """
    kind, where = parse_location(location)
    match kind:
        case "qdrant":
            from ragassets.adapters.qdrant_server_store import QdrantServerStore

            return QdrantServerStore(where, qdrant, timeout_seconds=timeout_seconds)
        case "edge":
            from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore

            return QdrantEdgeStore(Path(where).expanduser(), timeout_seconds=timeout_seconds)
        case "faiss":
            require_extra(kind, "faiss", extra="faiss")
            from ragassets.adapters.faiss_store import FaissStore

            return FaissStore(Path(where).expanduser(), timeout_seconds=timeout_seconds)
