"""FAISS beside SQLite: the graph is derived, may be behind, damaged or of another time."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragassets.adapters import faiss_index
from ragassets.adapters.faiss_store import FaissStore
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.searching import SearchHit, SearchRequest
from ragassets.errors import StorageUnavailableError, SystemResourceError
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.points import payload_of, points_of

DIM = 16
EMBEDDER = FakeEmbedder(dim=DIM)
TEXTS = [f"text {number}" for number in range(600)]
CONFIG = CollectionConfig(dim=DIM, sparse=None)


@pytest.fixture(autouse=True)
def small_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph from 100 points on."""
    monkeypatch.setattr("ragassets.adapters.faiss_store.EXACT_SEARCH_POINTS", 100)
    monkeypatch.setattr("ragassets.adapters.faiss_index.EXACT_FILTER_POINTS", 50)


@pytest.fixture
def store(tmp_path: Path) -> FaissStore:
    """A store with one collection of 600 points and their graph."""
    store = FaissStore(tmp_path, timeout_seconds=1)
    with store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", points_of(EMBEDDER, TEXTS, metadata={"half": "a"}))
        assert store.optimize("v1") is True
    return store


def query(text: str, *, limit: int = 5, exact: bool = False, **filters: str) -> SearchRequest:
    return SearchRequest(
        "dense", limit, EMBEDDER.embed_queries([text])[0], filters=filters, exact=exact
    )


def texts_of(hits: list[SearchHit]) -> list[object]:
    return [hit.payload["text"] for hit in hits]


def test_a_graph_is_made_once_and_again_when_a_tenth_has_changed(store: FaissStore) -> None:
    """Sealing asks each time; making it takes minutes."""
    with store:
        assert store.optimize("v1") is False
        store.upsert("v1", points_of(EMBEDDER, [f"new {number}" for number in range(50)]))
        assert store.optimize("v1") is False
        store.upsert("v1", points_of(EMBEDDER, [f"more {number}" for number in range(30)]))
        assert store.optimize("v1") is True


def test_what_was_written_after_the_graph_is_found_and_what_was_deleted_is_not(
    store: FaissStore,
) -> None:
    """A graph never forgets by itself; nobody may be shown what is gone."""
    points = points_of(EMBEDDER, ["text 7", "text 8"], metadata={"half": "b"})
    with store:
        store.delete("v1", points.point_ids[:1])
        store.upsert("v1", points_of(EMBEDDER, ["something new"]))
        store.upsert("v1", points_of(EMBEDDER, ["text 8"], metadata={"half": "b"}))
    with store:
        assert "text 7" not in texts_of(store.search("v1", query("text 7", limit=20)))
        assert texts_of(store.search("v1", query("something new")))[0] == "something new"
        hit = store.search("v1", query("text 8"))[0]
        assert hit.payload["metadata"] == {"half": "b", "acl": []}
        everything = store.search("v1", query("text 8", limit=1000))
        assert len(everything) == len({hit.point_id for hit in everything}) == 600


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_graph_finds_what_exact_search_finds_with_the_same_scores(
    tmp_path: Path, quantization: str
) -> None:
    """The hits are scored by the stored vectors, not by what the index made of them."""
    with FaissStore(tmp_path, timeout_seconds=1) as store:
        config = CollectionConfig.model_validate({**CONFIG.model_dump(), "dim": DIM})
        store.ensure_collection("v1", config.model_copy(update={"quantization": quantization}))
        store.upsert("v1", points_of(EMBEDDER, TEXTS))
        assert store.optimize("v1") is True
        n_found = 0
        for number in range(20):
            exact = store.search("v1", query(f"question {number}", limit=10, exact=True))
            usual = store.search("v1", query(f"question {number}", limit=10))
            n_found += len({hit.point_id for hit in exact} & {hit.point_id for hit in usual})
            scores = {hit.point_id: hit.score for hit in exact}
            assert all(scores.get(hit.point_id, hit.score) == hit.score for hit in usual)
        assert n_found >= 198


@pytest.mark.parametrize("n_matching", [20, 300])
def test_filters_hold_whether_few_points_match_or_many(store: FaissStore, n_matching: int) -> None:
    """Few are compared one by one, many are searched in the graph."""
    with store:
        store.upsert("v1", points_of(EMBEDDER, TEXTS[:n_matching], metadata={"half": "b"}))
        hits = store.search("v1", query("text 3", limit=400, half="b"))
        assert len(hits) == n_matching
        assert hits[0].payload["text"] == "text 3"
        assert store.count("v1", {"half": "b"}) == n_matching


def damage(path: Path) -> None:
    path.write_bytes(b"no index")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("spoil", [damage, cut, Path.unlink])
def test_a_lost_or_damaged_graph_costs_speed_and_no_hit(
    store: FaissStore, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """It is derived: searches are exact until it is made again."""
    spoil(tmp_path / "collections" / "v1" / "graph.faiss")
    with store:
        assert texts_of(store.search("v1", query("text 7")))[0] == "text 7"
        assert store.optimize("v1") is True


def test_a_graph_of_a_later_time_than_the_points_is_not_used(
    store: FaissStore, tmp_path: Path
) -> None:
    """Somebody put back a copy of the database: its row numbers would be given twice."""
    folder = tmp_path / "collections" / "v1"
    shutil.copy(folder / "points.db", tmp_path / "copy.db")
    with store:
        store.upsert("v1", points_of(EMBEDDER, [f"later {number}" for number in range(100)]))
        assert store.optimize("v1") is True
    shutil.copy(tmp_path / "copy.db", folder / "points.db")
    with store:
        assert faiss_index.load_graph(folder / "graph.faiss", store._rows("v1")) is None
        assert texts_of(store.search("v1", query("text 7")))[0] == "text 7"


def test_a_batch_that_does_not_fit_the_disk_is_not_written_at_all(store: FaissStore) -> None:
    """SQLite says so itself, where the free space was taken by others after it was checked."""
    with store:
        database = store._rows("v1")._database
        (n_pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count={n_pages + 5}")
        payloads = [payload_of(f"long {number}" + "x" * 5_000) for number in range(50)]
        points = points_of(EMBEDDER, [str(payload["text"]) for payload in payloads])
        with pytest.raises(SystemResourceError, match=r"disk of vector store .* is full"):
            store.upsert("v1", points)
        assert store.count("v1") == 600
        assert store.retrieve("v1", points.point_ids) == {}


def test_a_damaged_database_gives_one_clear_error(store: FaissStore, tmp_path: Path) -> None:
    """It is the truth, so there is nothing to go on with but another version."""
    (tmp_path / "collections" / "v1" / "points.db").write_bytes(b"no database at all" * 1000)
    with store, pytest.raises(StorageUnavailableError, match=r"'v1' failed.*build it"):
        store.count("v1")


def test_a_row_number_is_never_given_twice(store: FaissStore, tmp_path: Path) -> None:
    """Everything rests on it: an index knows a point by its number alone."""
    path = tmp_path / "collections" / "v1" / "points.db"
    with store:
        last = store._rows("v1").last_number()
        store.delete("v1", [point.point_id for point in store.scroll("v1")])
        store.upsert("v1", points_of(EMBEDDER, ["one"]))
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT row FROM points").fetchall() == [(last + 1,)]
        for table in ("vectors", "terms"):
            query_text = f"SELECT DISTINCT row FROM {table}"
            assert database.execute(query_text).fetchall() == [(last + 1,)]
    database.close()


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclid"])
def test_distances_are_those_of_vectors_of_any_length(tmp_path: Path, distance: str) -> None:
    """Models need not normalize theirs."""
    points = points_of(EMBEDDER, TEXTS[:120])
    points.vectors[:] *= np.arange(1, 121, dtype=np.float32)[:, None]
    asked = EMBEDDER.embed_queries(["question"])[0] * np.float32(3)
    product = points.vectors @ asked
    lengths = np.linalg.norm(points.vectors, axis=1) * 3
    scores = {
        "cosine": product / lengths,
        "dot": product,
        "euclid": -np.linalg.norm(points.vectors - asked, axis=1),
    }[distance]
    best = np.argsort(-scores)[:3]
    with FaissStore(tmp_path, timeout_seconds=1) as store:
        config = CollectionConfig.model_validate({"dim": DIM, "sparse": None, "distance": distance})
        store.ensure_collection("v1", config)
        store.upsert("v1", points)
        for _ in range(2):
            hits = store.search("v1", SearchRequest("dense", 3, asked))
            assert texts_of(hits) == [TEXTS[number] for number in best]
            assert [hit.score for hit in hits] == pytest.approx(scores[best], rel=1e-4)
            store.optimize("v1")
