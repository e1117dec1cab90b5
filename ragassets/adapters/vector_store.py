"""Picks the vector store that a location names."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ragassets.adapters.extras import require_extra
from ragassets.core.indexing import VectorStore
from ragassets.core.settings import ChromaConfig, PineconeConfig, QdrantConfig
from ragassets.core.store_locations import LOCAL, StoreKind, parse_location

if TYPE_CHECKING:
    from ragassets.adapters.store_session import AliasBook


class StoreSettings(NamedTuple):
    """How to talk to servers; each store reads its own."""

    qdrant: QdrantConfig = QdrantConfig()
    chroma: ChromaConfig = ChromaConfig()
    pinecone: PineconeConfig = PineconeConfig()


def open_vector_store(
    location: str,
    *,
    timeout_seconds: float,
    settings: StoreSettings = StoreSettings(),  # noqa: B008 - frozen
    aliases: "AliasBook | None" = None,
) -> VectorStore:
    """Return the vector store at `location`, see `core/store_locations.py`.

    Opening takes no lock, creates nothing and sends nothing.

    Args:
        location: a path, `faiss:PATH`, `chroma:PATH`, or the address of a server.
        timeout_seconds: how long to wait for another process that holds an embedded store, or for
            a server that cannot be reached.
        settings: how to talk to a server.
        aliases: where the aliases of a store are kept that has none; such a store needs it.

    Raises:
        ConfigurationError: there is no such store, its URL holds a password, or its package is not
            installed.
    """
    kind, where = parse_location(location)
    if kind == "edge" or kind in LOCAL.values():
        return _open_local(kind, Path(where).expanduser(), timeout_seconds)
    if kind == "qdrant":
        from ragassets.adapters.qdrant_server_store import QdrantServerStore

        return QdrantServerStore(where, settings.qdrant, timeout_seconds=timeout_seconds)
    if kind == "pinecone":
        require_extra(kind, "pinecone", extra="pinecone")
        from ragassets.adapters.pinecone_store import PineconeStore

        return PineconeStore(
            where, settings.pinecone, _required(aliases), timeout_seconds=timeout_seconds
        )
    require_extra(kind, "chromadb", extra="chroma")
    from ragassets.adapters.chroma_server_store import ChromaServerStore

    return ChromaServerStore(
        where, settings.chroma, _required(aliases), timeout_seconds=timeout_seconds
    )


def _open_local(kind: StoreKind, directory: Path, timeout_seconds: float) -> VectorStore:
    if kind == "faiss":
        require_extra(kind, "faiss", extra="faiss")
        from ragassets.adapters.faiss_store import FaissStore

        return FaissStore(directory, timeout_seconds=timeout_seconds)
    if kind == "chroma":
        require_extra(kind, "chromadb", extra="chroma")
        from ragassets.adapters.chroma_store import ChromaStore

        return ChromaStore(directory, timeout_seconds=timeout_seconds)
    from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore

    return QdrantEdgeStore(directory, timeout_seconds=timeout_seconds)


def _required(aliases: "AliasBook | None") -> "AliasBook":
    if aliases is None:
        message = "this vector store has no aliases of its own: pass where they are kept"
        raise ValueError(message)
    return aliases
