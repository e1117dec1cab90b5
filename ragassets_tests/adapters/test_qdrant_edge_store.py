"""What only the embedded store has to stand: other processes, kills, full disks, damaged files."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from ragassets.adapters.bm25 import Bm25Encoder
from ragassets.adapters.edge_engine import create_shard, load_shard
from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore
from ragassets.adapters.vector_store import open_vector_store
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import PointBatch
from ragassets.core.searching import SearchRequest
from ragassets.errors import (
    ConfigurationError,
    StorageUnavailableError,
    SystemResourceError,
    VectorStoreLockedError,
)
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.points import points_of

DIM = 8
CONFIG = CollectionConfig(dim=DIM)
EMBEDDER = FakeEmbedder(dim=DIM)

HOLD = """
import sys, time
from ragassets.adapters.vector_store import open_vector_store
from ragassets.core.collection_config import CollectionConfig
sys.argv = ["ragassets", "ingest", "--token=secret"]
store = open_vector_store({location!r}, timeout_seconds=5)
store.ensure_collection("v1", CollectionConfig(dim=8))
store.count("v1")
print("held", flush=True)
time.sleep(60)
"""

WORK = """
import sys
from ragassets.adapters.vector_store import open_vector_store
from ragassets_tests.adapters.test_qdrant_edge_store import CONFIG, batch
round_number = int(sys.argv[1])
with open_vector_store({location!r}, timeout_seconds=5) as store:
    for step in range(1000):
        store.ensure_collection("v1", CONFIG)
        texts = [f"round {{round_number}} step {{step}} chunk {{i}}" for i in range(40)]
        store.upsert("v1", batch(*texts))
        store.flush("v1")
        print(step, flush=True)
        spare = f"spare-{{step % 2}}"
        store.ensure_collection(spare, CONFIG)
        store.upsert(spare, batch("x"))
        store.switch_alias("documents", spare, expected=store.alias_target("documents"))
        store.drop_collection(f"spare-{{(step + 1) % 2}}")
"""


def batch(*texts: str) -> PointBatch:
    return points_of(EMBEDDER, texts, language="en")


SEARCH = """
import time
from ragassets.adapters.vector_store import open_vector_store
while True:
    with open_vector_store({location!r}, timeout_seconds=30) as store:
        store.count("v1")
        time.sleep(0.3)
        print("session", flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Generator[subprocess.Popen[str]]:
    """A process that holds the store."""
    script = HOLD.format(location=str(tmp_path / "qdrant"))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        yield held
        held.kill()


def test_a_second_process_waits_and_then_says_who_holds_the_store(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    """An operator needs a process id, not `WouldBlock`; and no secret of its command line."""
    started = time.monotonic()
    with (
        open_vector_store(str(tmp_path / "qdrant"), timeout_seconds=0.3) as store,
        pytest.raises(VectorStoreLockedError, match=f"process {holder.pid} on .*ingest") as caught,
    ):
        store.count("v1")
    assert time.monotonic() - started >= 0.3
    assert "secret" not in str(caught.value)


def test_a_killed_holder_frees_the_store_at_once(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Its note stays behind and must not count."""
    holder.kill()
    holder.wait()
    assert (tmp_path / "qdrant" / "holder.json").exists()
    with open_vector_store(str(tmp_path / "qdrant"), timeout_seconds=0.5) as store:
        assert store.count("v1") == 0
        note = json.loads((tmp_path / "qdrant" / "holder.json").read_text())
        assert note["pid"] == os.getpid()
    assert not (tmp_path / "qdrant" / "holder.json").exists()


@pytest.mark.slow
def test_a_loop_of_short_sessions_does_not_starve_an_ingestion(tmp_path: Path) -> None:
    """A busy search process gives the lock back for microseconds only."""
    location = str(tmp_path / "qdrant")
    with open_vector_store(location, timeout_seconds=1) as store:
        store.ensure_collection("v1", CONFIG)
    command = [sys.executable, "-c", SEARCH.format(location=location)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as searcher:
        try:
            assert searcher.stdout is not None
            for turn in range(3):
                assert searcher.stdout.readline() == "session\n"
                with open_vector_store(location, timeout_seconds=10) as store:
                    store.upsert("v1", batch(f"text {turn}"))
                    assert store.count("v1") == turn + 1
        finally:
            searcher.kill()


def test_looking_at_names_and_aliases_needs_no_lock(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    """`status` answers while an ingestion runs."""
    with open_vector_store(str(tmp_path / "qdrant"), timeout_seconds=0) as store:
        assert store.list_collections() == ["v1"]
        assert store.collection_config("v1") == CONFIG
        assert store.aliases() == {}


def test_opening_a_store_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    """A typing error in a path must not leave a store behind."""
    with open_vector_store(str(tmp_path / "typo"), timeout_seconds=0) as store:
        assert store.list_collections() == []
        assert store.alias_target("documents") is None
    assert not (tmp_path / "typo").exists()


@pytest.mark.slow
def test_a_store_killed_at_any_moment_opens_and_keeps_what_was_flushed(tmp_path: Path) -> None:
    """Create, upsert, flush, alias switch and drop are all interrupted; flushed points stay."""
    location = str(tmp_path / "qdrant")
    moments = random.Random(7)
    acknowledged: set[str] = set()
    for round_number in range(8):
        command = [sys.executable, "-c", WORK.format(location=location), str(round_number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()  # the first step, however long the imports took
            time.sleep(moments.uniform(0, 1.5))
            worker.send_signal(signal.SIGKILL)
            n_steps = 1 + worker.stdout.read().count("\n")
        for step in range(n_steps):
            texts = [f"round {round_number} step {step} chunk {i}" for i in range(40)]
            acknowledged.update(batch(*texts).point_ids)
        with open_vector_store(location, timeout_seconds=5) as store:
            assert store.retrieve("v1", sorted(acknowledged)).keys() == acknowledged
            assert store.count("v1") == len(list(store.scroll("v1")))
            target = store.alias_target("documents")
            assert target is None or store.count(target) == 1
            for name in store.list_collections():
                store.collection_config(name)
                store.count(name)
        assert not [p for p in (tmp_path / "qdrant/collections").iterdir() if p.name[0] == "."]
    assert len(acknowledged) >= 8 * 40


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """The engine's memory maps would kill the process with SIGBUS."""
    with QdrantEdgeStore(tmp_path, timeout_seconds=1) as store:
        store.ensure_collection("v1", CONFIG)
    with QdrantEdgeStore(tmp_path, timeout_seconds=1, min_free_bytes=10**18) as store:
        for call in (
            lambda: store.upsert("v1", batch("one")),
            lambda: store.ensure_collection("v2", CONFIG),
            lambda: store.count("v1"),
        ):
            with pytest.raises(SystemResourceError, match=r"MiB are free, 953674316\d* MiB"):
                call()
    with QdrantEdgeStore(tmp_path, timeout_seconds=1) as store:
        assert store.list_collections() == ["v1"]
        assert store.count("v1") == 0


def test_damaged_engine_files_give_one_clear_error(tmp_path: Path) -> None:
    """The engine raises a bare Exception, or panics."""
    with QdrantEdgeStore(tmp_path, timeout_seconds=1) as store:
        store.ensure_collection("v1", CONFIG)
    for path in (tmp_path / "collections/v1/shard").rglob("*.json"):
        path.write_text("{}")
    with (
        QdrantEdgeStore(tmp_path, timeout_seconds=1) as store,
        pytest.raises(StorageUnavailableError, match=r"opening collection 'v1' failed.*build it"),
    ):
        store.count("v1")


def test_a_path_that_cannot_be_a_directory_is_a_configuration_error(tmp_path: Path) -> None:
    """An unwritable root ends in one line."""
    (tmp_path / "file").write_text("")
    with (
        open_vector_store(str(tmp_path / "file" / "qdrant"), timeout_seconds=0) as store,
        pytest.raises(ConfigurationError, match="vector_store"),
    ):
        store.ensure_collection("v1", CONFIG)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8", "binary"])
def test_a_large_collection_is_optimized_in_a_child_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    """Afterwards the same points are there, and the same search finds them."""
    monkeypatch.setattr("ragassets.adapters.qdrant_edge_store.EXACT_SEARCH_POINTS", 100)
    monkeypatch.setattr("ragassets.adapters.edge_engine.EXACT_SEARCH_POINTS", 100)
    texts = [f"text {i}" for i in range(600)]
    request = SearchRequest(
        mode="dense", limit=5, vector=np.asarray(EMBEDDER.embed_queries(["text 7"])[0])
    )
    config = CollectionConfig.model_validate({"dim": DIM, "quantization": quantization})
    with QdrantEdgeStore(tmp_path, timeout_seconds=5) as store:
        store.ensure_collection("v1", config)
        store.upsert("v1", batch(*texts))
        before = store.search("v1", request)
        assert store.optimize("v1") is True
        assert store.search("v1", request)[0].payload == before[0].payload
        assert store.count("v1") == 600


def terms(encoder: Bm25Encoder, text: str, language: str | None) -> list[int]:
    """Term ids of a chunk, which must have some."""
    encoded = encoder.encode_document(text, language)
    assert encoded is not None
    return encoded.indices


class TestBm25Languages:
    def test_a_chunk_of_stop_words_has_no_terms(self) -> None:
        """Its point has no sparse vector, and no query can find it by words."""
        assert Bm25Encoder(default_language="en").encode_document("the of and", "en") is None

    def test_inflected_words_meet_in_their_language(self) -> None:
        """A German chunk is stemmed as German, so a German query must be too."""
        encoder = Bm25Encoder(default_language="english")
        chunk = terms(encoder, "Die Häuser der Stadt", "de")
        query = encoder.encode_query("das Haus in den Städten", {"en": 0.5, "de": 0.5})
        assert set(chunk) == set(query)

    def test_a_rare_slip_of_language_detection_does_not_change_queries(self) -> None:
        """Else the few misjudged chunks, whose stems are rare, would rank first."""
        encoder = Bm25Encoder(default_language="english")
        english = encoder.encode_query("heat transfer", {"en": 1.0})
        assert encoder.encode_query("heat transfer", {"en": 0.99, "ro": 0.01}) == english

    def test_chinese_and_japanese_are_found_by_a_part_of_a_clause(self) -> None:
        """Without spaces a whole clause would be one word."""
        encoder = Bm25Encoder(default_language="english")
        for text, part in (
            ("我们研究机器学习的方法", "机器学习"),
            ("東京都に住んでいます", "東京都"),
        ):
            chunk = terms(encoder, text, "zh")
            query = encoder.encode_query(part, {"zh": 1.0})
            assert query
            assert set(query) <= set(chunk)

    def test_unknown_languages_fall_back_to_the_default(self) -> None:
        """A detector knows more languages than the engine."""
        encoder = Bm25Encoder(default_language="en")
        assert terms(encoder, "running", "xx") == terms(encoder, "running", None) != []
        assert encoder.encode_query("runs", {"xx": 1.0}) == encoder.encode_query("running", {})

    def test_an_unknown_default_is_a_configuration_error(self) -> None:
        """It would be noticed with the first chunk only."""
        with pytest.raises(ConfigurationError, match="klingon"):
            Bm25Encoder(default_language="klingon")


def test_an_older_collection_gets_the_payload_indexes_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them a tenant's search would read every payload of the collection."""
    monkeypatch.setattr("ragassets.adapters.edge_engine.INDEXED_FIELDS", ("document_id",))
    create_shard(tmp_path / "shard", CONFIG)
    monkeypatch.undo()
    shard = load_shard(tmp_path / "shard", timeout_seconds=1)
    assert {"document_id", "tenant", "readers"} <= set(shard.info().payload_schema)
    shard.close()


def _everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_rewritten_collection_is_the_same_without_what_was_deleted(tmp_path: Path) -> None:
    """The engine itself keeps deleted payloads in its segments and its log."""
    kept, gone = batch("one that stays", "another that stays"), batch("a zeppelin that goes")
    with QdrantEdgeStore(tmp_path, timeout_seconds=5) as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", kept)
        store.upsert("v1", gone)
        store.delete("v1", gone.point_ids)
        store.flush("v1")
        before = list(store.scroll("v1"))
        assert b"zeppelin" in _everything(tmp_path)

        store.rewrite_collection("v1")

        assert b"zeppelin" not in _everything(tmp_path)
        assert list(store.scroll("v1")) == before
        (hit,) = store.search("v1", SearchRequest("sparse", 1, text="another stays"))
        assert hit.payload["text"] == "another that stays"
        vectors = store.vectors("v1", kept.point_ids)
        for name, vector in zip(kept.point_ids, kept.vectors, strict=True):
            np.testing.assert_allclose(vectors[name], vector, atol=1e-6)
        store.upsert("v1", batch("written afterwards"))
        store.flush("v1")
        store.rewrite_collection("v1")
        assert store.count("v1") == 3


def test_a_rewriting_that_was_killed_leaves_the_collection_as_it_was(tmp_path: Path) -> None:
    """Half a copy counts for nothing, and goes when the collection is opened next."""
    with QdrantEdgeStore(tmp_path, timeout_seconds=5) as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", batch("a text"))
        store.flush("v1")
    half = tmp_path / "collections" / "v1" / "shard-0a1b2c3d"
    create_shard(half, CONFIG)
    with QdrantEdgeStore(tmp_path, timeout_seconds=5) as store:
        assert store.count("v1") == 1
        assert not half.exists()
