"""Pinecone's adapter and the real SDK against `pinecone_loopback`: lag, limits, faults, names."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragassets.adapters.pinecone_indexes import index_name
from ragassets.adapters.pinecone_store import PineconeStore
from ragassets.adapters.table_aliases import TableAliases
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.vector_store import open_vector_store
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import VectorStore
from ragassets.core.searching import SearchRequest
from ragassets.core.settings import PineconeConfig
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    StageError,
    StorageUnavailableError,
)
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.pinecone_loopback import LoopbackPinecone, loopback_pinecone
from ragassets_tests.points import points_of
from ragassets_tests.qdrant_loopback import RESET, Fault

CONFIG = CollectionConfig(dim=8, sparse=None, embedding="f" * 32)
EMBEDDER = FakeEmbedder(dim=8)

OpenStore = Callable[..., VectorStore]


@pytest.fixture
def service() -> Iterator[LoopbackPinecone]:
    """An empty account."""
    with loopback_pinecone() as running:
        yield running


@pytest.fixture
def opened(service: LoopbackPinecone, tmp_path: Path) -> OpenStore:
    """Opens a store of the account."""

    def open_store(
        location: str = "pinecone://test",
        *,
        timeout_seconds: float = 5,
        answer_seconds: float = 5,
        **options: Any,
    ) -> VectorStore:
        account = {"api_key": service.api_key, "host": service.url}
        values = {**account, "timeout_seconds": answer_seconds, **options}
        return PineconeStore(
            location,
            PineconeConfig.model_validate(values),
            TableAliases(lambda: DeltaTables(str(tmp_path / "tables")), location),
            timeout_seconds=timeout_seconds,
        )

    return open_store


def test_whoever_asks_after_a_write_sees_it(opened: OpenStore, service: LoopbackPinecone) -> None:
    """The run verifies its points, and a seal counts them, right after they were written."""
    with opened() as store:
        store.ensure_collection("v1", CONFIG)
        service.lag_seconds = 0.4
        points = points_of(EMBEDDER, ["one", "two"])
        store.upsert("v1", points)
        assert store.retrieve("v1", points.point_ids).keys() == set(points.point_ids)
        assert store.count("v1") == 2
        changed = points_of(EMBEDDER, ["one"], metadata={"team": "hr"})
        store.upsert("v1", changed)
        assert store.count("v1", {"team": "hr"}) == 1
        store.delete("v1", points.point_ids)
        assert store.count("v1") == 0
        assert list(store.scroll("v1")) == []


def test_a_write_that_is_never_seen_is_no_write(
    opened: OpenStore, service: LoopbackPinecone
) -> None:
    """The wait has an end, and the next run writes the points again."""
    with opened(visibility_timeout_seconds=0.3) as store:
        store.ensure_collection("v1", CONFIG)
        service.lag_seconds = 60
        with pytest.raises(StorageUnavailableError, match=r"what was written in 'v1' cannot be s"):
            store.upsert("v1", points_of(EMBEDDER, ["one"]))


def test_a_new_index_is_waited_for(opened: OpenStore, service: LoopbackPinecone) -> None:
    """A serverless index takes seconds to be ready; a run that was killed then finds it later."""
    service.ready_seconds = 0.5
    with opened() as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert store.count("v1") == 1
    service.ready_seconds = 60
    with opened(ready_timeout_seconds=0.3) as store:
        with pytest.raises(StorageUnavailableError, match=r"test-v2 is not ready after 0\.3 s"):
            store.ensure_collection("v2", CONFIG)
        assert store.list_collections() == ["v1", "v2"]


def test_requests_stay_below_the_limits_of_the_service(
    opened: OpenStore, service: LoopbackPinecone
) -> None:
    """2 MiB and 1,000 points; the service refuses more."""
    texts = [f"{number} " + "word " * 1_000 for number in range(1_050)]
    with opened() as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", points_of(EMBEDDER, texts))
        assert service.calls.count("upsert") >= 3
        assert 1024**2 < service.largest_body_bytes <= 2 * 1024**2
        assert store.count("v1") == 1_050


def test_a_payload_that_is_too_large_is_refused_before_anything_is_written(
    opened: OpenStore, service: LoopbackPinecone
) -> None:
    """Pinecone would refuse the request, and say nothing of which chunk it was."""
    points = points_of(EMBEDDER, ["short", "x" * 41_000])
    with opened() as store:
        store.ensure_collection("v1", CONFIG)
        with pytest.raises(StageError, match=str(points.payloads[1]["chunk_id"])) as caught:
            store.upsert("v1", points)
        assert "Pinecone holds 40960; nothing of this batch was written" in str(caught.value)
        assert "upsert" not in service.calls


FAULTS = [
    Fault(429),
    Fault(429, retry_after=1),
    Fault(500),
    Fault(503),
    Fault(RESET),
    Fault(503, is_done_first=True),
    Fault(RESET, is_done_first=True),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("operation", ["upsert", "create"])
def test_what_may_pass_is_tried_again_and_may_have_been_done(
    opened: OpenStore, service: LoopbackPinecone, operation: str, fault: Fault
) -> None:
    """A lost answer does not tell whether the request was."""
    service.inject(operation, fault)
    with opened() as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert store.count("v1") == 1
        store.drop_collection("v1")
        assert store.list_collections() == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (403, ConfigurationError, r"^pinecone\.api_key: '…' does not allow it: searching 'v1'"),
        (402, ConfigurationError, "quota"),
        (400, IndexVersionError, "cannot be served as asked by Pinecone: searching 'v1' failed"),
        (503, StorageUnavailableError, "searching 'v1' failed .503"),
    ],
)
def test_other_answers_are_errors_of_their_class(
    opened: OpenStore,
    service: LoopbackPinecone,
    status: int,
    error: type[Exception],
    message: str,
) -> None:
    """Whether a run is tried again depends on it."""
    with opened(timeout_seconds=0.2) as store:
        store.ensure_collection("v1", CONFIG)
        service.inject("query", *[Fault(status) for _ in range(20)])
        request = SearchRequest("dense", 1, EMBEDDER.embed_queries(["x"])[0])
        with pytest.raises(error, match=message):
            store.search("v1", request)


def test_a_wrong_key_is_a_configuration_error_without_the_key(opened: OpenStore) -> None:
    """A key must not get into a log by being wrong."""
    with (
        opened(api_key="pcsk-wrong-secret") as store,
        pytest.raises(ConfigurationError, match=r"pinecone\.api_key") as caught,
    ):
        store.list_collections()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", ["pinecone://", "pinecone://A_b", "pinecone://pcsk:key@x"])
def test_an_address_without_a_project_is_refused_and_not_shown(
    opened: OpenStore, location: str
) -> None:
    """Whoever writes a key into it would find it in a log."""
    with pytest.raises(ConfigurationError, match="'pinecone://…' names no project") as caught:
        opened(location)
    assert "key" not in str(caught.value).replace("vector_store", "")


def test_a_key_is_needed(opened: OpenStore) -> None:
    """Said before anything is computed with it."""
    with pytest.raises(ConfigurationError, match=r"pinecone\.api_key is needed .*PINECONE_API_KEY"):
        opened(api_key=None)


def test_projects_and_other_indexes_of_one_account_are_left_alone(
    opened: OpenStore, service: LoopbackPinecone
) -> None:
    """An account holds indexes of many programs."""
    field = {"type": "dense_vector", "dimension": 3, "metric": "cosine"}
    deployment = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
    service.create(
        {"name": "test-v9", "schema": {"fields": {"_values": field}}, "deployment": deployment}
    )
    with opened("pinecone://one") as one, opened("pinecone://two") as two:
        one.ensure_collection("v1", CONFIG)
        assert (one.list_collections(), two.list_collections()) == (["v1"], [])
        two.drop_collection("v1")
        assert set(service.indexes) == {"test-v9", "one-v1"}
    with opened() as store:
        store.drop_collection("v9")
        assert "test-v9" in service.indexes


def test_points_in_another_namespace_are_not_counted(opened: OpenStore) -> None:
    """Somebody else may use the index, too."""
    with opened(namespace="theirs") as other, opened(namespace="ours") as store:
        store.ensure_collection("v1", CONFIG)
        other.upsert("v1", points_of(EMBEDDER, ["one", "two"]))
        store.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert (store.count("v1"), other.count("v1")) == (1, 2)


def test_names_of_versions_become_names_that_pinecone_takes(opened: OpenStore) -> None:
    """Lower case, 45 characters; where anything is lost, a hash keeps names apart."""
    assert index_name("handbook", "v1") == "handbook-v1"
    assert index_name("handbook", "V1") == "handbook-v1-dae96fc0"
    assert index_name("handbook", "minilm_256.b") == "handbook-minilm-256-b-f295b70f"
    long = index_name("handbook", "v" * 64)
    assert len(long) == 45
    assert long.startswith("handbook-vvvv")
    with opened() as store:
        for name in ("v1", "V1", "v_1", "v" * 64):
            store.ensure_collection(name, CONFIG)
        assert store.list_collections() == ["V1", "v1", "v_1", "v" * 64]
        assert store.collection_config("V1") == CONFIG


def test_an_answer_that_does_not_come_is_asked_for_again(
    opened: OpenStore, service: LoopbackPinecone
) -> None:
    """A hanging connection is given up after `timeout_seconds`."""
    with opened(answer_seconds=0.3) as store:
        store.ensure_collection("v1", CONFIG)
        service.inject("query", Fault(seconds=1))
        request = SearchRequest("dense", 1, EMBEDDER.embed_queries(["x"])[0])
        assert store.search("v1", request) == []
        assert service.calls.count("query") == 2


@pytest.mark.parametrize(
    ("location", "package", "extra"),
    [
        ("pinecone://test", "pinecone", "pinecone"),
        ("chroma+http://host", "chromadb", "chroma"),
    ],
)
def test_an_absent_package_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, location: str, package: str, extra: str
) -> None:
    """An import error says neither who needs it nor how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError) as caught:
        open_vector_store(location, timeout_seconds=1)
    assert f"needs the package {package}, which is not installed" in str(caught.value)
    assert str(caught.value).endswith(f"pip install 'ragassets[{extra}]'")
