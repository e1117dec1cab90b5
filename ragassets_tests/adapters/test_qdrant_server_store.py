"""What only a server can do to us: refuse, throttle, hang, lose answers, and serve several at once.

The server is `qdrant_loopback`, or nobody at all.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from ragassets.adapters.point_encoding import encode_points
from ragassets.adapters.qdrant_connection import QdrantConnection
from ragassets.adapters.qdrant_queries import grpc_points
from ragassets.adapters.qdrant_server_store import QdrantServerStore
from ragassets.adapters.vector_store import StoreSettings, open_vector_store
from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import PointBatch, VectorStore, point_id
from ragassets.core.settings import QdrantConfig
from ragassets.errors import (
    ConcurrentWriteError,
    ConfigurationError,
    IndexVersionError,
    StorageUnavailableError,
)
from ragassets.queries.doctor import _check_vector_store
from ragassets_tests.adapters.test_qdrant_edge_store import CONFIG, batch
from ragassets_tests.points import payload_of
from ragassets_tests.qdrant_loopback import RESET, Fault, LoopbackQdrant, loopback_qdrant
from ragassets_tests.small_project import run

Connect = Callable[..., VectorStore]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackQdrant]:
    """A server of its own for each test."""
    with loopback_qdrant(tmp_path / "server") as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def connect(server: LoopbackQdrant, request: pytest.FixtureRequest) -> Connect:
    """Opens a store on the server by either protocol."""

    def opened(
        timeout_seconds: float = 30, request_seconds: float = 10, **settings: object
    ) -> VectorStore:
        qdrant = QdrantConfig.model_validate(
            {
                "prefer_grpc": request.param == "grpc",
                "grpc_port": server.grpc_port,
                "timeout_seconds": request_seconds,
                **settings,
            }
        )
        return open_vector_store(
            server.url, timeout_seconds=timeout_seconds, settings=StoreSettings(qdrant=qdrant)
        )

    return opened


class TestRetries:
    @pytest.mark.parametrize("status", [503, 504, 429, RESET])
    def test_what_may_pass_is_tried_again(
        self, server: LoopbackQdrant, connect: Connect, status: int
    ) -> None:
        """A node that restarts must not fail an ingestion."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            server.inject("upsert", Fault(status), Fault(status))
            store.upsert("v1", batch("one"))
            assert store.count("v1") == 1
        assert server.calls.count("upsert") == 3

    def test_a_server_that_asks_to_wait_is_given_the_time(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """Coming back early makes a throttled server worse."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            server.inject("upsert", Fault(429, retry_after=1))
            started = time.monotonic()
            store.upsert("v1", batch("one"))
            assert time.monotonic() - started >= 1
            assert store.count("v1") == 1

    def test_a_wait_that_is_longer_than_the_patience_is_not_begun(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """The client library would sleep for an hour if a server asked for it."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            server.inject("upsert", Fault(429, retry_after=3600))
            with pytest.raises(StorageUnavailableError, match="writing to 'v1' failed"):
                store.upsert("v1", batch("one"))

    def test_a_server_that_hangs_is_asked_again_after_the_time_out(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """Without a time-out a lost packet would stop an ingestion for ever."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
        server.inject("count", Fault(400, seconds=6.0))
        with connect(request_seconds=2) as store:
            started = time.monotonic()
            assert store.count("v1") == 0
            assert time.monotonic() - started < 6

    @pytest.mark.parametrize("status", [RESET, 503])
    def test_an_answer_that_is_lost_after_the_write_changes_nothing(
        self, server: LoopbackQdrant, connect: Connect, status: int
    ) -> None:
        """Whatever is sent may be sent twice: creation, indexes, points, deletion, alias, drop."""
        lost = Fault(status, is_done_first=True)
        for operation in (
            "create",
            "index",
            "update",
            "upsert",
            "delete",
            "change_aliases",
            "drop",
        ):
            server.inject(operation, lost)
        creations: list[str] = []
        with connect() as store:
            store.ensure_collection("v1", CONFIG, before_create=lambda: creations.append("v1"))
            store.ensure_collection("v2", CONFIG)
            store.upsert("v1", batch("one", "two"))
            store.delete("v1", batch("two").point_ids)
            assert [point.point_id for point in store.scroll("v1")] == [*batch("one").point_ids]
            store.switch_alias("documents", "v1", expected=None)
            server.inject("change_aliases", lost)
            store.switch_alias("documents", "v2", expected="v1")
            assert store.aliases() == {"documents": "v2"}
            store.drop_collection("v1")
            assert store.list_collections() == ["v2"]
        assert creations == ["v1"]

    @pytest.mark.parametrize("status", [400, 409, 422])
    def test_a_refusal_is_not_tried_again(
        self, server: LoopbackQdrant, connect: Connect, status: int
    ) -> None:
        """The same request would be refused for ever."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            server.inject("upsert", Fault(status, message="Wrong input: no"))
            with pytest.raises(IndexVersionError, match=r"'v1' cannot be served.*Wrong input: no"):
                store.upsert("v1", batch("one"))
        assert server.calls.count("upsert") == 1

    def test_an_error_inside_the_server_is_left_to_a_later_run(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """It may pass, but hardly within seconds; a full disk is named as such."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            server.inject("upsert", Fault(500, message="panicked"))
            with pytest.raises(StorageUnavailableError, match="panicked"):
                store.upsert("v1", batch("one"))
        assert server.calls.count("upsert") == 1

    def test_a_write_that_is_only_queued_is_no_write(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """`acknowledged` says nothing of whether the points will ever be there."""
        from qdrant_client.models import UpdateStatus

        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            server.update_status = UpdateStatus.ACKNOWLEDGED
            with pytest.raises(StorageUnavailableError, match="acknowledged, not completed"):
                store.upsert("v1", batch("one"))


class TestErrors:
    @pytest.mark.parametrize("prefer_grpc", [True, False])
    def test_nobody_there_is_said_soon_and_clearly(self, prefer_grpc: bool) -> None:
        """A wrong port should not cost a minute."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        settings = QdrantConfig(prefer_grpc=prefer_grpc, grpc_port=port, timeout_seconds=1)
        started = time.monotonic()
        with (
            open_vector_store(
                f"http://127.0.0.1:{port}",
                timeout_seconds=1,
                settings=StoreSettings(qdrant=settings),
            ) as store,
            pytest.raises(StorageUnavailableError, match=rf"127\.0\.0\.1:{port}: nobody answers"),
        ):
            store.aliases()
        assert time.monotonic() - started < 20

    @pytest.mark.parametrize("key", [None, "wrong-key"])
    def test_a_key_that_is_not_accepted_is_a_configuration_error_without_the_key(
        self, server: LoopbackQdrant, connect: Connect, key: str | None
    ) -> None:
        """Trying again would lock an account, and a log is no place for a key."""
        server.api_key = "right-key"
        with (
            connect(api_key=key) as store,
            pytest.raises(ConfigurationError, match=r"qdrant\.api_key") as caught,
        ):
            store.list_collections()
        assert "wrong-key" not in str(caught.value)
        with connect(api_key="right-key") as store:
            assert store.list_collections() == []

    @pytest.mark.parametrize("location", ["http://user:secret@host:6333", "https://:secret@host"])
    def test_a_password_in_the_address_is_refused_without_repeating_it(self, location: str) -> None:
        """Addresses are printed and logged."""
        with pytest.raises(ConfigurationError, match=r"qdrant\.api_key") as caught:
            open_vector_store(location, timeout_seconds=0)
        assert "secret" not in str(caught.value)

    def test_an_address_of_another_kind_is_refused(self) -> None:
        """A URL must not become a directory of that name."""
        with pytest.raises(ConfigurationError, match="ftp://…"):
            open_vector_store("ftp://user:secret@host", timeout_seconds=0)


class TestUploads:
    def test_requests_are_bounded_in_bytes(self, server: LoopbackQdrant, connect: Connect) -> None:
        """A server takes 32 MiB; a thousand long chunks may be more."""
        texts = [f"text {i} " + "padding words " * 400 for i in range(60)]
        with connect(batch_bytes=64 * 1024) as store:
            store.ensure_collection("v1", CONFIG)
            store.upsert("v1", batch(*texts))
            assert store.count("v1") == 60
        assert server.calls.count("upsert") > 5
        assert server.largest_request_bytes <= 64 * 1024 + 1024

    def test_our_messages_are_those_of_the_client(self) -> None:
        """The client's way takes three times as long; what arrives must not differ by a bit."""
        metadata = {"year": 2024, "share": 0.1, "is_draft": True, "tags": ["a", 1], "none": None}
        found = np.array([[0.1, -2.5e-30, 3.0]], dtype=np.float32)
        payload = payload_of("书 naïve words", metadata=metadata, acl=["group:hr"], page=3)
        points = PointBatch([point_id(str(payload["chunk_id"]))], found, [payload])
        (encoded,) = encode_points(points, CollectionConfig(dim=3))
        assert encoded.sparse is not None
        terms = models.SparseVector(indices=encoded.sparse.indices, values=encoded.sparse.values)
        for sparse, vectors in (
            (encoded.sparse, {"dense": found[0].tolist(), "bm25": terms}),
            (None, {"dense": found[0].tolist()}),
        ):
            model = models.PointStruct(
                id=encoded.point_id, vector=vectors, payload=dict(encoded.payload)
            )
            ((message, size),) = grpc_points([encoded._replace(sparse=sparse)])
            assert message == RestToGrpc.convert_point_struct(model)
            assert size > message.ByteSize()

    def test_payload_indexes_are_there_before_the_first_point(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """A graph that is built without them has no links for filters."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            store.upsert("v1", batch("one"))
        assert max(
            i for i, call in enumerate(server.calls) if call == "index"
        ) < server.calls.index("upsert")
        fields = {"document_id", "source", "source_shard", "uri", "language", "metadata_terms"}
        assert fields <= server.engine.collection("v1").fields.keys()

    def test_the_tenant_is_indexed_as_such_also_where_a_collection_is_older(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """The server keeps each tenant's points side by side; older collections lack the index."""
        store = connect()
        store.ensure_collection("v1", CONFIG)
        fields = server.engine.collections["v1"].fields
        assert {name for name, info in fields.items() if info.params and info.params.is_tenant} == {
            "tenant"
        }
        for name in ("tenant", "readers"):
            del fields[name]
        connect().ensure_collection("v1", CONFIG)
        assert {"tenant", "readers", "document_id"} <= set(fields)

    def test_nothing_is_indexed_during_the_upload_and_everything_afterwards(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """An index that is rebuilt with every batch costs more than the upload."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            store.upsert("v1", batch("one"))
            assert server.engine.collection("v1").indexing_threshold == 0
            store.optimize("v1")
            assert server.engine.collection("v1").indexing_threshold == 10_000
            assert store.problems("v1") == []


class TestCollections:
    def test_a_creation_that_was_killed_is_finished_by_the_next_one(
        self, server: LoopbackQdrant, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half made, it is in no list; finished, it is as if nothing had happened."""
        monkeypatch.setattr("ragassets.adapters.qdrant_collections.TAKE_OVER_SECONDS", 0.3)
        creations: list[str] = []

        def die() -> None:
            raise KeyboardInterrupt

        with connect() as store:
            with pytest.raises(KeyboardInterrupt):
                store.ensure_collection("v1", CONFIG, before_create=die)
            assert store.list_collections() == []
        with connect() as store:
            store.ensure_collection("v1", CONFIG, before_create=lambda: creations.append("v1"))
            assert store.list_collections() == ["v1"]
            assert server.engine.collection("v1").fields
        assert creations == ["v1"]

    def test_of_several_at_once_one_creates_and_the_others_wait(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`before_create` empties a table: twice would lose what was written in between."""
        monkeypatch.setattr("ragassets.adapters.qdrant_collections.TAKE_OVER_SECONDS", 60)
        creations: list[int] = []
        errors: list[BaseException] = []

        def create(number: int) -> None:
            def before() -> None:
                creations.append(number)
                time.sleep(0.3)

            try:
                with connect() as store:
                    store.ensure_collection("v1", CONFIG, before_create=before)
                    assert store.list_collections() == ["v1"]
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(creations) == 1

    def test_one_that_is_dropped_while_it_is_looked_at_is_not_there(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A search lists the collections while somebody drops an old version."""
        call = QdrantConnection.call

        def call_late(connection: QdrantConnection, action: str, *args: Any, **named: Any) -> Any:
            if action == "reading collection 'v1'":
                monkeypatch.setattr(QdrantConnection, "call", call)
                other.drop_collection("v1")
            return call(connection, action, *args, **named)

        with connect() as store, connect() as other:
            store.ensure_collection("v1", CONFIG)
            monkeypatch.setattr(QdrantConnection, "call", call_late)
            assert store.list_collections() == []

    def test_projects_with_other_prefixes_do_not_see_each_other(self, connect: Connect) -> None:
        """One server may serve a whole company."""
        with connect(collection_prefix="a-") as first, connect(collection_prefix="a-b-") as second:
            first.ensure_collection("v1", CONFIG)
            second.ensure_collection("v1", CollectionConfig(dim=3))
            first.switch_alias("documents", "v1", expected=None)
            assert first.list_collections() == ["v1"]
            assert second.list_collections() == ["v1"]
            assert first.aliases() == {"documents": "v1"}
            assert second.aliases() == {}

    def test_a_collection_of_somebody_else_is_neither_listed_nor_taken(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """It holds points that nobody here knows of."""
        from qdrant_client import models

        params = {"dense": models.VectorParams(size=8, distance=models.Distance.COSINE)}
        server.engine.create("v1", models.CreateCollection(vectors=params))
        with connect() as store:
            assert store.list_collections() == []
            with pytest.raises(IndexVersionError, match="collection_prefix"):
                store.ensure_collection("v1", CONFIG)
            store.drop_collection("v1")
        assert "v1" in server.engine.collections

    def test_what_may_change_on_a_living_collection_is_changed(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """More replicas are no new index version."""
        with connect() as store:
            store.ensure_collection("v1", CONFIG)
            store.upsert("v1", batch("one"))
        with connect(replication_factor=2, write_consistency_factor=2, on_disk=True) as store:
            store.ensure_collection("v1", CONFIG)
            assert store.count("v1") == 1
            assert store.retrieve("v1", batch("one").point_ids).keys() == {*batch("one").point_ids}
        params = server.engine.collection("v1").info().config.params
        assert (params.replication_factor, params.write_consistency_factor) == (2, 2)
        assert params.vectors["dense"].on_disk is True

    def test_shards_and_replicas_are_those_of_the_configuration(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """A cluster spreads a collection by them."""
        with connect(shard_number=3, replication_factor=2) as store:
            store.ensure_collection("v1", CollectionConfig(dim=8, quantization="int8"))
        request = server.engine.collection("v1").request
        assert (request.shard_number, request.replication_factor) == (3, 2)
        assert "Scalar" in type(request.vectors["dense"].quantization_config).__name__

    def test_what_keeps_the_server_from_serving_is_named(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """A version that is sealed meanwhile would be served badly."""
        from qdrant_client.models import CollectionStatus

        with connect(timeout_seconds=0.3, indexing_timeout_seconds=0.3) as store:
            store.ensure_collection("v1", CONFIG)
            collection = server.engine.collection("v1")
            collection.status = CollectionStatus.YELLOW
            assert store.problems("v1") == ["the server is still indexing the collection"]
            assert store.optimize("v1") is False
            collection.status = CollectionStatus.RED
            collection.optimizer_error = "out of disk"
            assert store.problems("v1") == ["the server cannot index the collection (out of disk)"]
            server.is_ready = False
            assert "not ready" in store.problems("v1")[0]


class TestAliases:
    def test_of_two_that_move_an_alias_at_once_one_wins(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both have compared before either has moved: the server itself has to refuse one."""
        barrier = threading.Barrier(2)
        outcomes: dict[str, str] = {}
        with connect() as store:
            for name in ("v1", "v2", "v3"):
                store.ensure_collection(name, CONFIG)
            store.switch_alias("documents", "v1", expected=None)

        def compared_together(self: object, *args: object) -> object:
            actions = original(self, *args)
            barrier.wait(timeout=20)
            return actions

        from ragassets.adapters.qdrant_aliases import QdrantAliases

        original = QdrantAliases._actions
        monkeypatch.setattr(QdrantAliases, "_actions", compared_together)

        def promote(target: str) -> None:
            try:
                with connect() as store:
                    store.switch_alias("documents", target, expected="v1")
                outcomes[target] = "won"
            except ConcurrentWriteError:
                outcomes[target] = "lost"

        threads = [threading.Thread(target=promote, args=(name,)) for name in ("v2", "v3")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes.values()) == ["lost", "won"]
        winner = next(name for name, outcome in outcomes.items() if outcome == "won")
        with connect() as store:
            assert store.aliases() == {"documents": winner}

    def test_an_alias_that_somebody_moved_elsewhere_can_be_moved_on(
        self, server: LoopbackQdrant, connect: Connect
    ) -> None:
        """Qdrant's own dashboard moves aliases too."""
        with connect() as store:
            for name in ("v1", "v2"):
                store.ensure_collection(name, CONFIG)
            store.switch_alias("documents", "v1", expected=None)
            server.engine.alias_targets["documents"] = "v2"
            assert store.aliases() == {"documents": "v2"}
            with pytest.raises(ConcurrentWriteError):
                store.switch_alias("documents", "v2", expected="v1")
            store.switch_alias("documents", "v1", expected="v2")
            assert store.aliases() == {"documents": "v1"}
        assert set(server.engine.alias_targets) == {"documents", "documents@v1"}


def test_opening_sends_nothing() -> None:
    """`ragassets --help` must not wait for a server."""
    with QdrantServerStore("http://127.0.0.1:9", QdrantConfig(), timeout_seconds=1) as store:
        assert store.capabilities.is_shared


def test_commands_end_with_exit_code_three_where_nobody_answers(tmp_path: Path) -> None:
    """A script tells an outage from a mistake by it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    file = tmp_path / "ragassets.yaml"
    file.write_text(
        f"vector_store: http://127.0.0.1:{port}\nvector_store_timeout_seconds: 0.3\n"
        f"qdrant: {{grpc_port: {port}, timeout_seconds: 1}}\n"
    )
    for command in (["status"], ["search", "anything", "--mode", "sparse"]):
        result = run("--config", str(file), *command)
        assert result.exit_code == 3
        assert f"vector store http://127.0.0.1:{port}: nobody answers there" in result.stderr
        assert "Traceback" not in result.stderr


def test_the_doctor_says_what_is_wrong_with_a_server(
    server: LoopbackQdrant, tmp_path: Path
) -> None:
    """Before an ingestion finds out after an hour."""
    settings = {"grpc_port": server.grpc_port, "api_key": "key"}
    location = {"vector_store": server.url, "root": str(tmp_path / "root"), "qdrant": settings}
    workspace = Workspace(Config.model_validate(location))
    with workspace.vector_store() as store:
        store.ensure_collection("v1", CONFIG)
    server.is_ready = False
    found = {check.name: check for check in _check_vector_store(workspace)}
    assert found["vector store"].value == "v1: 0 points"
    assert "not ready" in found["collection v1"].value
    assert "without encryption" in found["qdrant.api_key"].value
