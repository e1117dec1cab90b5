"""Which vector store a location names, and what each of them can do; nothing is opened here.

The configuration refuses by this table what a store cannot hold, before anything is computed. A
test holds the adapters and docs/vector-stores.md to it.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ragassets.core.collection_config import StoreCapabilities
from ragassets.errors import ConfigurationError

StoreKind = Literal["edge", "qdrant", "faiss", "chroma", "chroma-server", "pinecone"]

STORE_NAMES: Mapping[StoreKind, str] = {
    "edge": "Qdrant in the process",
    "qdrant": "a Qdrant server",
    "faiss": "FAISS",
    "chroma": "Chroma",
    "chroma-server": "a Chroma server",
    "pinecone": "Pinecone",
}

CAPABILITIES: Mapping[StoreKind, StoreCapabilities] = {
    "edge": StoreCapabilities(),
    "qdrant": StoreCapabilities(is_shared=True),
    "faiss": StoreCapabilities(sparse=False, quantizations=frozenset({"none", "int8"})),
    "chroma": StoreCapabilities(sparse=False, quantizations=frozenset({"none"})),
    "chroma-server": StoreCapabilities(
        sparse=False, is_shared=True, quantizations=frozenset({"none"})
    ),
    "pinecone": StoreCapabilities(sparse=False, is_shared=True, quantizations=frozenset({"none"})),
}

WAYS: Mapping[StoreKind, str] = {
    "edge": "a path",
    "qdrant": "http(s)://HOST",
    "faiss": "faiss:PATH",
    "chroma": "chroma:PATH",
    "chroma-server": "chroma+http(s)://HOST",
    "pinecone": "pinecone://PROJECT",
}
"""How each is written."""

LOCAL: Mapping[str, StoreKind] = {"faiss": "faiss", "chroma": "chroma"}
"""Schemes before a path."""

REMOTE: Mapping[str, tuple[StoreKind, str]] = {
    "http": ("qdrant", "http"),
    "https": ("qdrant", "https"),
    "chroma+http": ("chroma-server", "http"),
    "chroma+https": ("chroma-server", "https"),
    "pinecone": ("pinecone", "pinecone"),
}
"""Schemes of addresses, with the scheme that requests are sent by."""


class StoreLocation(NamedTuple):
    """A vector store: what it is, and where."""

    kind: StoreKind
    where: str
    """A path for a local store, a URL for any other."""


def parse_location(location: str) -> StoreLocation:
    """Return what `vector_store` names: a path, `faiss:PATH`, or a URL.

    Raises:
        ConfigurationError: there is no such store.
    """
    scheme, separator, rest = location.partition(":")
    if separator and scheme in LOCAL:
        path = rest.removeprefix("//")
        if not path or "://" in path:
            raise _no_store(location, fix="Name the directory")
        return StoreLocation(LOCAL[scheme], path)
    if "://" not in location:
        return StoreLocation("edge", location)
    scheme = urlsplit(location).scheme
    if scheme not in REMOTE:
        # Only the scheme is shown: the rest may hold a password.
        shown = f"{scheme}://…"
        raise _no_store(shown, fix=f"Use {', '.join(WAYS.values())}")
    kind, sent_by = REMOTE[scheme]
    return StoreLocation(kind, f"{sent_by}{location.removeprefix(scheme)}")


def with_path(location: str, path: str) -> str:
    """Return the location of the same kind of local store at another path."""
    scheme, separator, _ = location.partition(":")
    return f"{scheme}:{path}" if separator and scheme in LOCAL else path


def ways_with_sparse() -> str:
    """Return how to name the stores that hold BM25 vectors."""
    return " or ".join(WAYS[kind] for kind, can in CAPABILITIES.items() if can.sparse)


def _no_store(location: str, *, fix: str) -> ConfigurationError:
    return ConfigurationError(
        key="vector_store", value=location, problem="is no vector store", fix=fix
    )
