"""What `vector_store` may say, and what the users' page promises of each store."""

import re

import pytest

from ragassets.adapters.chroma_server_store import ChromaServerStore
from ragassets.adapters.chroma_store import ChromaStore
from ragassets.adapters.faiss_store import FaissStore
from ragassets.adapters.pinecone_store import PineconeStore
from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore
from ragassets.adapters.qdrant_server_store import QdrantServerStore
from ragassets.core.collection_config import StoreCapabilities
from ragassets.core.store_locations import (
    CAPABILITIES,
    WAYS,
    StoreKind,
    parse_location,
    with_path,
)
from ragassets.errors import ConfigurationError
from ragassets_tests.corpora import REPOSITORY_ROOT

ADAPTERS = {
    "edge": QdrantEdgeStore,
    "qdrant": QdrantServerStore,
    "faiss": FaissStore,
    "chroma": ChromaStore,
    "chroma-server": ChromaServerStore,
    "pinecone": PineconeStore,
}


@pytest.mark.parametrize(
    ("location", "kind", "where"),
    [
        ("store", "edge", "store"),
        ("/data/qdrant", "edge", "/data/qdrant"),
        ("odd:name", "edge", "odd:name"),
        ("http://host:6333", "qdrant", "http://host:6333"),
        ("https://host", "qdrant", "https://host"),
        ("faiss:store", "faiss", "store"),
        ("faiss:/data/faiss", "faiss", "/data/faiss"),
        ("faiss:///data/faiss", "faiss", "/data/faiss"),
        ("faiss://store", "faiss", "store"),
        ("chroma:/data/chroma", "chroma", "/data/chroma"),
        ("chroma+http://host:8000", "chroma-server", "http://host:8000"),
        ("chroma+https://host", "chroma-server", "https://host"),
        ("pinecone://handbook", "pinecone", "pinecone://handbook"),
    ],
)
def test_a_location_names_a_store_and_where_it_is(location: str, kind: str, where: str) -> None:
    """Paths and the addresses of Qdrant servers stay what they were."""
    assert parse_location(location) == (kind, where)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("ftp://me:secret@host", r"^vector_store: 'ftp://…' is no vector store\. Use a path, "),
        ("faiss:", r"^vector_store: 'faiss:' is no vector store\. Name the directory$"),
        ("faiss:s3://bucket/x", r"Name the directory$"),
    ],
)
def test_what_is_no_store_is_refused_without_its_secrets(location: str, message: str) -> None:
    """A typing error is one line that says what there is."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_location(location)
    assert "secret" not in str(caught.value)


def test_a_local_location_keeps_its_kind_at_another_path() -> None:
    """The configuration makes paths absolute."""
    assert with_path("faiss:store", "/a b/c") == "faiss:/a b/c"
    assert with_path("chroma://store", "/c") == "chroma:/c"
    assert with_path("store", "/a b/c") == "/a b/c"
    assert with_path("odd:name", "/c") == "/c"


def test_adapters_declare_what_the_table_says() -> None:
    """The configuration is checked by the table, the contract suite by the adapters."""
    assert {kind: adapter.capabilities for kind, adapter in ADAPTERS.items()} == CAPABILITIES


def test_the_users_page_says_what_each_store_can_do() -> None:
    """A table that nobody holds to the code is wrong after the next release."""
    page = (REPOSITORY_ROOT / "docs" / "vector-stores.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| \| sparse .*?\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[1:] == [[WAYS[kind], *_cells(can)] for kind, can in CAPABILITIES.items()]


def _cells(can: StoreCapabilities) -> list[str]:
    def said(*, value: bool) -> str:
        return "yes" if value else "no"

    return [
        said(value=can.sparse),
        said(value=can.filters),
        said(value=can.aliases),
        ", ".join(sorted(can.distances)),
        ", ".join(sorted(can.quantizations - {"none"}, reverse=True)) or "none",
        said(value=can.is_shared),
    ]


def test_every_store_has_a_way_to_name_it() -> None:
    """Messages list them."""
    kinds: tuple[StoreKind, ...] = tuple(CAPABILITIES)
    assert tuple(WAYS) == kinds
