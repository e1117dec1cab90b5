"""Whatever the corpus and whoever asks: no hit that may not be seen, and as many as there are."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.adapters.vector_store import open_vector_store
from ragassets.core.access import Access
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import PointBatch, VectorStore, point_id
from ragassets.core.searching import SearchMode, SearchRequest
from ragassets_tests.fakes import FakeEmbedder, InMemoryVectorStore
from ragassets_tests.points import chunk_id_of, payload_of

EMBEDDER = FakeEmbedder(dim=8)
WORDS = ("apple", "pear", "plum")

Stores = Callable[[Path], VectorStore]
STORES: dict[str, Stores] = {
    "edge": lambda path: open_vector_store(str(path), timeout_seconds=1),
    "faiss": lambda path: open_vector_store(f"faiss:{path}", timeout_seconds=1),
    "fake": lambda _path: InMemoryVectorStore(),
}

owners = st.none() | st.sampled_from(["acme", "globex"])
principals = st.sampled_from(["user:ann", "user:bob", "group:hr"])
documents = st.lists(
    st.tuples(owners, st.lists(principals | st.just("*"), max_size=2), st.sampled_from(WORDS)),
    min_size=1,
    max_size=12,
)
callers = st.builds(Access, owners, st.none() | st.frozensets(principals, max_size=2))


Labelled = tuple[str | None, list[str], str]


def labelled_points(texts: Sequence[str], corpus: Sequence[Labelled]) -> PointBatch:
    """One point a text, with its owner and its readers."""
    payloads = [
        payload_of(text, tenant=owner, acl=acl)
        for text, (owner, acl, _) in zip(texts, corpus, strict=True)
    ]
    ids = [point_id(chunk_id_of(text)) for text in texts]
    return PointBatch(ids, EMBEDDER.embed_documents(texts), payloads)


@pytest.mark.parametrize("store", [pytest.param("edge", marks=pytest.mark.slow), "faiss", "fake"])
@settings(max_examples=25, deadline=None)
@given(corpus=documents, caller=callers, limit=st.integers(1, 15), word=st.sampled_from(WORDS))
def test_every_search_finds_exactly_what_may_be_seen(
    store: str,
    corpus: list[Labelled],
    caller: Access,
    limit: int,
    word: str,
) -> None:
    """The allowed set is worked out here from the labels, not by the code under test."""
    texts = [f"{fruit} number {i}" for i, (_, _, fruit) in enumerate(corpus)]
    allowed = {
        text
        for text, (owner, acl, _) in zip(texts, corpus, strict=True)
        if caller.tenant in (None, owner)
        and (
            caller.principals is None
            or not acl
            or "*" in acl
            or any(name in caller.principals for name in acl)
        )
    }
    with tempfile.TemporaryDirectory() as folder, STORES[store](Path(folder) / "s") as opened:
        sparse = "bm25" if opened.capabilities.sparse else None
        opened.ensure_collection("v1", CollectionConfig(dim=8, sparse=sparse))
        opened.upsert("v1", labelled_points(texts, corpus))
        modes: tuple[SearchMode, ...] = ("dense", "sparse", "hybrid") if sparse else ("dense",)
        for mode in modes:
            vector = EMBEDDER.embed_queries([word])[0]
            request = SearchRequest(mode, limit, np.array(vector), word, access=caller)
            found = [str(hit.payload["text"]) for hit in opened.search("v1", request)]
            matching = {t for t in allowed if word in t} if mode == "sparse" else allowed
            assert set(found) <= matching
            assert len(found) == min(limit, len(matching))
