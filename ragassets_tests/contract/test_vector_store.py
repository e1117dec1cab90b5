"""What every vector store must do: one suite for all of them.

A store joins by an entry in `BACKENDS`. What it declares itself unable to do (`capabilities`) is
left out by `needs`, and has to be refused by name instead.
"""

import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ragassets.adapters.qdrant_collections import QdrantCollections
from ragassets.adapters.qdrant_connection import QdrantConnection
from ragassets.adapters.table_aliases import TableAliases
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.vector_store import StoreSettings, open_vector_store
from ragassets.core.access import EVERYTHING, Access
from ragassets.core.collection_config import CollectionConfig, StoreCapabilities
from ragassets.core.indexing import PointBatch, VectorStore, chunk_payload, point_id
from ragassets.core.searching import SearchMode, SearchRequest
from ragassets.core.settings import ChromaConfig, PineconeConfig, QdrantConfig
from ragassets.errors import (
    ConcurrentWriteError,
    ConfigurationError,
    IndexVersionError,
    InvalidVectorError,
    UnknownNameError,
)
from ragassets_tests.chroma_server import shared_chroma
from ragassets_tests.fakes import FakeEmbedder, InMemoryVectorStore
from ragassets_tests.pinecone_loopback import loopback_pinecone
from ragassets_tests.qdrant_loopback import loopback_qdrant

DIM = 8
EMBEDDER = FakeEmbedder(dim=DIM)


@dataclass(frozen=True)
class Open:
    """Opens the same store again at each call."""

    store: Callable[[], VectorStore]

    def __call__(self) -> VectorStore:
        return self.store()

    @property
    def capabilities(self) -> StoreCapabilities:
        """What the store says it can do."""
        with self.store() as store:
            return store.capabilities

    def config(self, **settings: object) -> CollectionConfig:
        """A collection that the store can hold, by default with all that it can."""
        sparse = "bm25" if self.capabilities.sparse else None
        return CollectionConfig.model_validate({"dim": DIM, "sparse": sparse, **settings})


def edge_backend(tmp_path: Path) -> Iterator[Open]:
    yield Open(lambda: open_vector_store(str(tmp_path / "qdrant"), timeout_seconds=1))


def faiss_backend(tmp_path: Path) -> Iterator[Open]:
    yield Open(lambda: open_vector_store(f"faiss:{tmp_path / 'faiss'}", timeout_seconds=1))


def chroma_backend(tmp_path: Path) -> Iterator[Open]:
    yield Open(lambda: open_vector_store(f"chroma:{tmp_path / 'chroma'}", timeout_seconds=1))


def chroma_server_backend(tmp_path: Path) -> Iterator[Open]:
    """Every test has a prefix and tables of its own; the server process is shared."""
    settings = StoreSettings(chroma=ChromaConfig(collection_prefix=f"test-{uuid.uuid4().hex}-"))
    location = f"chroma+{shared_chroma().url}"
    aliases = TableAliases(lambda: DeltaTables(str(tmp_path / "tables")), location)
    yield Open(
        lambda: open_vector_store(location, timeout_seconds=5, settings=settings, aliases=aliases)
    )


def pinecone_backend(tmp_path: Path) -> Iterator[Open]:
    """Writes are seen a while after they were accepted, as in the real service."""
    with loopback_pinecone() as service:
        service.lag_seconds = 0.02
        aliases = TableAliases(lambda: DeltaTables(str(tmp_path / "tables")), service.url)
        pinecone = PineconeConfig(api_key=service.api_key, host=service.url)
        settings = StoreSettings(pinecone=pinecone)
        yield Open(
            lambda: open_vector_store(
                "pinecone://test", timeout_seconds=5, settings=settings, aliases=aliases
            )
        )


def fake_backend(_tmp_path: Path) -> Iterator[Open]:
    fake = InMemoryVectorStore()
    yield Open(lambda: fake)


def loopback_backend(tmp_path: Path, *, prefer_grpc: bool) -> Iterator[Open]:
    with loopback_qdrant(tmp_path / "server") as server:
        settings = QdrantConfig(prefer_grpc=prefer_grpc, grpc_port=server.grpc_port)
        yield Open(
            lambda: open_vector_store(
                server.url, timeout_seconds=5, settings=StoreSettings(qdrant=settings)
            )
        )


def server_backend(_tmp_path: Path) -> Iterator[Open]:
    """A real server; every test has a prefix of its own and removes its collections."""
    url = os.environ.get("QDRANT_URL")
    if url is None:
        pytest.skip("QDRANT_URL names no Qdrant server")
    settings = QdrantConfig(
        grpc_port=int(os.environ.get("QDRANT_GRPC_PORT", "6334")),
        api_key=os.environ.get("QDRANT_API_KEY"),
        collection_prefix=f"ragassets-test-{uuid.uuid4().hex[:8]}-",
    )
    opened = Open(
        lambda: open_vector_store(url, timeout_seconds=30, settings=StoreSettings(qdrant=settings))
    )
    yield opened
    collections = QdrantCollections(QdrantConnection(url, settings, timeout_seconds=30))
    for name in collections.names():
        collections.drop(name)


BACKENDS: dict[str, Callable[[Path], Iterator[Open]]] = {
    "edge": edge_backend,
    "faiss": faiss_backend,
    "chroma": chroma_backend,
    "chroma-server": chroma_server_backend,
    "pinecone-loopback": pinecone_backend,
    "fake": fake_backend,
    "loopback-grpc": partial(loopback_backend, prefer_grpc=True),
    "loopback-rest": partial(loopback_backend, prefer_grpc=False),
    "server": server_backend,
}


@pytest.fixture(params=list(BACKENDS))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Every store in turn; what it cannot do is not asked of it."""
    with contextmanager(BACKENDS[request.param])(tmp_path) as opened:
        for marker in request.node.iter_markers("needs"):
            for name in marker.args:
                if not getattr(opened.capabilities, name):
                    pytest.skip(f"{request.param} declares that it has no {name}")
        yield opened


def chunk_id(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def batch(*texts: str, metadata: dict[str, object] | None = None, **extra: object) -> PointBatch:
    fields: dict[str, object] = {
        "document_id": chunk_id("document"),
        "uri": "file:///a.md",
        "source": "handbook",
        "source_shard": "handbook-000",
        "page": 3,
        "title": "A title",
        "language": "en",
        "document_type": "policy",
        "metadata": metadata or {},
        "acl": ["group:hr", "group:it"],
        **extra,
    }
    payloads = [chunk_payload(chunk_id=chunk_id(text), text=text, **fields) for text in texts]  # type: ignore[arg-type]
    return PointBatch([point(t) for t in texts], EMBEDDER.embed_documents(texts), payloads)


def point(text: str) -> str:
    return point_id(chunk_id(text))


def vector(text: str) -> NDArray[np.float32]:
    return EMBEDDER.embed_queries([text])[0]


def dense(text: str, limit: int = 10, **filters: str) -> SearchRequest:
    return SearchRequest(mode="dense", limit=limit, vector=vector(text), filters=filters)


def found_texts(store: VectorStore, request: SearchRequest) -> list[object]:
    return [hit.payload["text"] for hit in store.search("v1", request)]


class TestCollections:
    def test_a_collection_is_created_once_and_found_again(self, open_store: Open) -> None:
        """Every run calls ensure_collection; only the first may create."""
        with open_store() as store:
            assert store.list_collections() == []
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one"))
            store.ensure_collection("v1", open_store.config())
            assert store.count("v1") == 1
            assert store.problems("v1") == []
        with open_store() as store:
            assert store.list_collections() == ["v1"]
            assert store.collection_config("v1") == open_store.config()
            assert store.count("v1") == 1

    def test_what_has_to_happen_before_a_creation_happens_once(self, open_store: Open) -> None:
        """The table's rows of a lost collection are forgotten by it, those of a new one never."""
        calls: list[list[str]] = []
        with open_store() as store:
            for _ in range(2):
                store.ensure_collection(
                    "v1",
                    open_store.config(),
                    before_create=lambda: calls.append(store.list_collections()),
                )
        assert calls == [[]]

    def test_what_a_store_cannot_hold_it_refuses_by_name(self, open_store: Open) -> None:
        """A setting that is silently ignored is worse than none."""
        can = open_store.capabilities
        unsupported = [
            *(
                {"distance": name}
                for name in ("cosine", "dot", "euclid")
                if name not in can.distances
            ),
            *(
                {"quantization": name}
                for name in ("int8", "binary")
                if name not in can.quantizations
            ),
            *([] if can.sparse else [{"sparse": "bm25"}]),
        ]
        with open_store() as store:
            for settings in unsupported:
                with pytest.raises(ConfigurationError, match=next(iter(settings))):
                    store.ensure_collection("v1", open_store.config(**settings))
            assert store.list_collections() == []

    @pytest.mark.parametrize("quantization", ["int8", "binary"])
    def test_a_quantized_collection_finds_the_nearest(
        self, open_store: Open, quantization: str
    ) -> None:
        """Rescoring makes its scores those of the original vectors."""
        if quantization not in open_store.capabilities.quantizations:
            pytest.skip(f"it declares that it has no {quantization} quantization")
        texts = [f"text {i}" for i in range(50)]
        with open_store() as store:
            store.ensure_collection("v1", open_store.config(quantization=quantization))
            store.upsert("v1", batch(*texts))
            store.optimize("v1")
            hits = store.search("v1", dense("text 7", limit=3))
            assert hits[0].payload["text"] == "text 7"
            assert hits[0].score == pytest.approx(1, abs=1e-5)
            with pytest.raises(IndexVersionError, match="quantization"):
                store.ensure_collection("v1", open_store.config())

    def test_another_configuration_is_refused_by_name_and_setting(self, open_store: Open) -> None:
        """A changed dimension must not silently reuse, or drop, the old vectors."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            other = open_store.config(dim=9, distance="dot")
            with pytest.raises(IndexVersionError, match=r"'v1' exists with dim 8, not 9 and dist"):
                store.ensure_collection("v1", other)

    def test_dropping_is_idempotent_and_the_name_can_be_used_again(self, open_store: Open) -> None:
        """A drop that crashed half way is simply called again."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one"))
            store.drop_collection("v1")
            store.drop_collection("v1")
            assert store.list_collections() == []
            store.ensure_collection("v1", open_store.config(dim=3))
            assert store.count("v1") == 0

    def test_an_unknown_collection_is_named_with_the_known_ones(self, open_store: Open) -> None:
        """A typing error should be one line."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            with pytest.raises(UnknownNameError, match=r"'v2' is not defined\. Known: v1"):
                store.count("v2")
            with pytest.raises(UnknownNameError):
                store.search("v2", dense("x"))

    @pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a b", "é"])
    def test_a_name_that_is_no_safe_file_name_is_refused(self, open_store: Open, name: str) -> None:
        """Names become directories."""
        with open_store() as store, pytest.raises(ConfigurationError):
            store.ensure_collection(name, open_store.config())


class TestPoints:
    def test_points_are_counted_retrieved_and_scrolled(self, open_store: Open) -> None:
        """The audit compares the tables with exactly these three views."""
        written = batch("one", "two", "three")
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", written)
            store.flush("v1")
        with open_store() as store:
            hashes = {
                identifier: payload["payload_hash"]
                for identifier, payload in zip(written.point_ids, written.payloads, strict=True)
            }
            assert store.count("v1") == 3
            assert store.retrieve("v1", [*written.point_ids, point("four")]) == hashes
            stored = list(store.scroll("v1"))
            assert [p.point_id for p in stored] == sorted(written.point_ids)
            assert {p.chunk_id for p in stored} == {chunk_id(t) for t in ("one", "two", "three")}
            assert {p.document_id for p in stored} == {chunk_id("document")}
            assert {p.point_id: p.payload_hash for p in stored} == hashes

    def test_scrolling_goes_through_more_points_than_one_page_holds(self, open_store: Open) -> None:
        """A lost page would look like missing points to the audit."""
        texts = [f"text {i}" for i in range(4_500)]
        with open_store() as store:
            store.ensure_collection("v1", open_store.config(sparse=None))
            store.upsert("v1", batch(*texts))
            assert sorted(p.point_id for p in store.scroll("v1")) == sorted(map(point, texts))

    def test_upserting_again_replaces_vector_and_payload(self, open_store: Open) -> None:
        """A change of acl or metadata is an upsert of the same point."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one", metadata={"team": "hr"}))
            store.upsert("v1", batch("one", metadata={"team": "it"}, acl=["group:it"]))
            assert store.count("v1") == 1
            if open_store.capabilities.filters:
                assert store.count("v1", {"team": "hr"}) == 0
                assert store.count("v1", {"acl": "group:hr"}) == 0
            hit = store.search("v1", dense("one"))[0]
            assert hit.payload["metadata"] == {"team": "it", "acl": ["group:it"]}

    def test_deleting_is_idempotent_and_removes_from_every_ranking(self, open_store: Open) -> None:
        """Old chunks must not stay searchable."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("red apples", "green pears"))
            for _ in range(2):
                store.delete("v1", [point("red apples"), point("never written")])
            store.delete("v1", [])
            assert store.count("v1") == 1
            assert found_texts(store, dense("red apples")) == ["green pears"]
            if open_store.capabilities.sparse:
                sparse = SearchRequest(mode="sparse", limit=5, text="red apples")
                assert found_texts(store, sparse) == []

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (np.full(DIM, np.nan), "is not finite"),
            (np.array([np.inf] + [0] * (DIM - 1)), "is not finite"),
            (np.zeros(DIM), "is zero"),
        ],
    )
    def test_one_unsound_vector_refuses_the_whole_batch(
        self, open_store: Open, bad: NDArray[np.float64], problem: str
    ) -> None:
        """The engine stores NaN and zeros gladly, and then cannot rank them."""
        points = batch("one", "two", "three")
        points.vectors[1] = bad
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            with pytest.raises(InvalidVectorError, match=f"{chunk_id('two')}.* {problem}"):
                store.upsert("v1", points)
            assert store.count("v1") == 0

    def test_a_wrong_dimension_refuses_the_whole_batch(self, open_store: Open) -> None:
        """The engine would store the rest of the batch."""
        points = batch("one", "two")
        short = PointBatch(points.point_ids, points.vectors[:, :4], points.payloads)
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            with pytest.raises(InvalidVectorError, match="dimension 4 instead of 8"):
                store.upsert("v1", short)
            assert store.count("v1") == 0


METADATA: dict[str, object] = {
    "team": "hr",
    "year": 2024,
    "ratio": 0.5,
    "version": 3.0,
    "draft": False,
    "tags": ["a", "b"],
    "levels": [1, 2],
    "odd.key and 日本": "x",
    "nothing": None,
    "digits": "007",
}

FILTERS = [
    ("source", "handbook", True),
    ("source", "hand", False),
    ("uri", "file:///a.md", True),
    ("title", "A title", True),
    ("language", "en", True),
    ("document_type", "policy", True),
    ("page", "3", True),
    ("page", "4", False),
    ("team", "hr", True),
    ("metadata.team", "hr", True),
    ("year", "2024", True),
    ("year", "2024.0", True),
    ("year", "2025", False),
    ("ratio", "0.5", True),
    ("version", "3", True),
    ("draft", "false", True),
    ("draft", "true", False),
    ("draft", "0", False),
    ("tags", "b", True),
    ("tags", "c", False),
    ("levels", "2", True),
    ("acl", "group:it", True),
    ("acl", "group:legal", False),
    ("odd.key and 日本", "x", True),
    ("nothing", "None", False),
    ("missing", "x", False),
    ("digits", "007", True),
    ("digits", "7", False),
    ("year", "nan", False),
    ("year", "99999999999999999999", False),
]


@pytest.mark.needs("filters")
class TestFilters:
    def test_a_filter_finds_what_equals_its_value(self, open_store: Open) -> None:
        """Users type text; payloads hold numbers, booleans and lists."""
        other = dict[str, object](page=None, title=None, language=None, document_type=None)
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one", metadata=METADATA))
            store.upsert("v1", batch("two", source="other", uri="x", acl=[], **other))
            for key, value, is_match in FILTERS:
                assert store.count("v1", {key: value}) == int(is_match), (key, value)
                hits = store.search("v1", dense("two", **{key: value}))
                assert [hit.point_id for hit in hits] == [point("one")] * int(is_match)

    def test_several_filters_must_all_hold(self, open_store: Open) -> None:
        """`--filter a=1 --filter b=2` narrows."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one", metadata={"team": "hr", "year": 1}))
            store.upsert("v1", batch("two", metadata={"team": "hr", "year": 2}))
            assert store.count("v1", {"team": "hr"}) == 2
            assert store.count("v1", {"team": "hr", "year": "2"}) == 1
            assert store.count("v1", {"team": "it", "year": "2"}) == 0

    @pytest.mark.parametrize("key", ["", "metadata."])
    def test_an_unusable_key_is_refused(self, open_store: Open, key: str) -> None:
        """`--filter =x` is a slip of the hand."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            with pytest.raises(ConfigurationError, match="filter"):
                store.count("v1", {key: "x"})


class TestSearch:
    TEXTS = ("red apples grow", "green pears fall", "red wine", "blue cheese")

    @pytest.mark.parametrize("distance", ["cosine", "dot", "euclid"])
    def test_dense_search_puts_the_nearest_first(self, open_store: Open, distance: str) -> None:
        """The order must be the one that the distance defines, for all three."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config(distance=distance))
            store.upsert("v1", batch(*self.TEXTS))
            stored = EMBEDDER.embed_documents(self.TEXTS)
            nearest = np.argsort(-(stored @ vector("a question")))
            expected = [self.TEXTS[i] for i in nearest]
            assert found_texts(store, dense("a question")) == expected
            assert found_texts(store, dense("a question", limit=2)) == expected[:2]

    @pytest.mark.needs("sparse")
    def test_sparse_search_prefers_rare_words(self, open_store: Open) -> None:
        """Without inverse document frequency "red" would weigh as much as "wine"."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("red apple", "red pear", "red plum", "old wine"))
            request = SearchRequest(mode="sparse", limit=2, text="red wine")
            assert found_texts(store, request)[0] == "old wine"

    @pytest.mark.needs("sparse")
    def test_sparse_search_finds_nothing_for_words_that_nobody_uses(self, open_store: Open) -> None:
        """An empty query vector is an error in some engines."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch(*self.TEXTS))
            for text in ("zebra", "", "!?"):
                assert found_texts(store, SearchRequest(mode="sparse", limit=2, text=text)) == []

    @pytest.mark.needs("sparse")
    def test_hybrid_search_rewards_what_both_rankings_hold(self, open_store: Open) -> None:
        """The point of hybrid search."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch(*self.TEXTS))
            request = SearchRequest(
                mode="hybrid", limit=3, vector=vector("blue cheese"), text="cheese"
            )
            hits = store.search("v1", request)
            assert hits[0].payload["text"] == "blue cheese"
            assert hits[0].score == pytest.approx(2 / 61)
            assert len(hits) == 3

    @pytest.mark.needs("sparse", "filters")
    @pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
    def test_filters_hold_in_every_mode(self, open_store: Open, mode: str) -> None:
        """An acl filter that one mode forgets is a leak."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("red apples", acl=["a"]))
            store.upsert("v1", batch("red pears", acl=["b"]))
            request = SearchRequest(
                mode=mode,  # type: ignore[arg-type]
                limit=5,
                vector=vector("red apples"),
                text="red apples",
                filters={"acl": "b"},
            )
            assert found_texts(store, request) == ["red pears"]

    def test_equal_scores_are_ordered_by_point_id(self, open_store: Open) -> None:
        """The same search gives the same page."""
        texts = [f"text {i}" for i in range(20)]
        points = batch(*texts)
        points.vectors[:] = vector("same")
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", points)
            hits = store.search("v1", dense("same", limit=20))
            assert [hit.point_id for hit in hits] == sorted(points.point_ids)

    def test_a_batch_gives_what_single_searches_give_in_order(self, open_store: Open) -> None:
        """`search --batch` must not mix up its queries."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch(*self.TEXTS))
            requests = [dense(text, limit=2) for text in self.TEXTS]
            assert store.search_batch("v1", requests) == [
                store.search("v1", request) for request in requests
            ]

    def test_an_exact_search_finds_the_same_in_a_small_collection(self, open_store: Open) -> None:
        """What approximate search is measured against must be a search like any other."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch(*self.TEXTS))
            usual = dense("red apples", limit=3)
            exact = dataclasses.replace(usual, exact=True)
            found, expected = store.search("v1", usual), store.search("v1", exact)
            assert [hit.payload for hit in found] == [hit.payload for hit in expected]
            # A service computes in its own way.
            scores = [hit.score for hit in expected]
            assert [hit.score for hit in found] == pytest.approx(scores, abs=1e-6)

    def test_a_hit_carries_the_whole_payload(self, open_store: Open) -> None:
        """A search result needs no table."""
        written = batch("one", metadata={"team": "hr"})
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", written)
            hit = store.search("v1", dense("one"))[0]
            assert hit.point_id == written.point_ids[0]
            assert hit.payload == written.payloads[0]
            assert hit.score == pytest.approx(1, abs=1e-5)

    def test_a_query_vector_of_another_model_is_refused(self, open_store: Open) -> None:
        """A wrong model is the likeliest reason for a wrong dimension."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            request = SearchRequest(mode="dense", limit=1, vector=np.ones(3, dtype=np.float32))
            with pytest.raises(InvalidVectorError, match="dimension 3 instead of 8"):
                store.search("v1", request)

    def test_a_sparse_search_needs_sparse_vectors(self, open_store: Open) -> None:
        """Finding nothing would look like an empty index."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config(sparse=None))
            store.upsert("v1", batch("one"))
            with pytest.raises(ConfigurationError, match="sparse vectors"):
                store.search("v1", SearchRequest(mode="sparse", limit=1, text="one"))

    @pytest.mark.needs("sparse")
    def test_an_empty_collection_finds_nothing(self, open_store: Open) -> None:
        """The state between creation and the first upsert."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            request = SearchRequest(mode="hybrid", limit=3, vector=vector("x"), text="x")
            assert store.search("v1", request) == []
            assert store.optimize("v1") is False


@pytest.mark.needs("filters")
class TestAccess:
    """Tenants and access lists: what the store ranks is what the caller may see, nothing else."""

    OWNERS = (None, "acme", "globex")
    LISTS = ((), ("*",), ("user:ann",), ("group:hr",), ("group:hr", "user:bob"))
    CALLERS = (
        EVERYTHING,
        *(Access(tenant=name) for name in ("acme", "globex", "initech")),
        Access(principals=frozenset()),
        Access(principals=frozenset({"user:bob", "group:it"})),
        Access("acme", frozenset({"group:hr"})),
        Access("globex", frozenset({"user:ann", "group:hr"})),
    )

    @pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
    def test_a_search_finds_the_best_of_what_may_be_seen(
        self, open_store: Open, mode: SearchMode
    ) -> None:
        """As many as were asked for, although the best of all are somebody else's."""
        if mode != "dense" and not open_store.capabilities.sparse:
            pytest.skip("it declares that it has no sparse")
        labels = [(owner, acl) for owner in self.OWNERS for acl in self.LISTS]
        texts = {f"red apple {i} {n}": label for i, label in enumerate(labels) for n in "abc"}
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            for label in labels:
                mine = [text for text, of_text in texts.items() if of_text == label]
                store.upsert("v1", batch(*mine, tenant=label[0], acl=label[1]))
            for caller in self.CALLERS:
                allowed = {text for text, label in texts.items() if _may_see(caller, *label)}
                for limit in (1, 4, 100):
                    request = SearchRequest(
                        mode, limit, vector("red apple"), "red apple", access=caller
                    )
                    found = found_texts(store, request)
                    assert set(found) <= allowed, caller
                    assert len(found) == min(limit, len(allowed)), caller

    def test_filters_and_access_hold_together(self, open_store: Open) -> None:
        """A filter on a metadata key named like ours must not stand in for it."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one", tenant="acme", metadata={"tenant": "globex"}))
            store.upsert("v1", batch("two", tenant="globex", metadata={"tenant": "acme"}))
            for access, filters, expected in (
                (Access("acme"), {}, ["one"]),
                (Access("acme"), {"tenant": "globex"}, ["one"]),
                (Access("acme"), {"tenant": "acme"}, []),
                (EVERYTHING, {"tenant": "acme"}, ["two"]),
            ):
                request = SearchRequest("dense", 5, vector("x"), filters=filters, access=access)
                assert found_texts(store, request) == expected

    def test_another_tenant_is_an_upsert_of_the_same_point(self, open_store: Open) -> None:
        """A source that changes hands is gone for the one and there for the other."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.upsert("v1", batch("one", tenant="acme"))
            store.upsert("v1", batch("one", tenant="globex"))
            for tenant, expected in (("acme", []), ("globex", ["one"])):
                request = SearchRequest("dense", 5, vector("x"), access=Access(tenant))
                assert found_texts(store, request) == expected


def _may_see(caller: Access, owner: str | None, acl: Sequence[str]) -> bool:
    is_own = caller.tenant in (None, owner)
    wanted = caller.principals
    return is_own and (wanted is None or not acl or "*" in acl or not wanted.isdisjoint(acl))


@pytest.mark.needs("aliases")
class TestAliases:
    def test_an_alias_moves_only_from_where_it_is_expected(self, open_store: Open) -> None:
        """Two promotions at once: the second must notice the first."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            store.ensure_collection("v2", open_store.config())
            assert store.alias_target("documents") is None
            store.switch_alias("documents", "v1", expected=None)
            with pytest.raises(ConcurrentWriteError, match="documents"):
                store.switch_alias("documents", "v2", expected=None)
            store.switch_alias("documents", "v2", expected="v1")
        with open_store() as store:
            assert store.aliases() == {"documents": "v2"}

    def test_an_alias_never_points_at_nothing(self, open_store: Open) -> None:
        """Neither by a switch to a missing collection nor by a drop of its target."""
        with open_store() as store:
            store.ensure_collection("v1", open_store.config())
            with pytest.raises(IndexVersionError, match="'v2'"):
                store.switch_alias("documents", "v2", expected=None)
            store.switch_alias("documents", "v1", expected=None)
            with pytest.raises(IndexVersionError, match="alias"):
                store.drop_collection("v1")
            assert store.alias_target("documents") == "v1"
            assert store.list_collections() == ["v1"]
