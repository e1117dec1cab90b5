"""Chroma in the process and on a server: what it does beside the contract of all stores."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ragassets.adapters import chroma_server_store
from ragassets.adapters.table_aliases import TableAliases
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.vector_store import StoreSettings, open_vector_store
from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.indexing import VectorStore
from ragassets.core.searching import SearchRequest
from ragassets.core.settings import ChromaConfig
from ragassets.errors import (
    ConcurrentWriteError,
    ConfigurationError,
    IndexVersionError,
    StorageUnavailableError,
)
from ragassets.queries.doctor import _check_vector_store
from ragassets_tests.chroma_server import ChromaServer, running_chroma
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.points import points_of

CONFIG = CollectionConfig(dim=8, sparse=None)
EMBEDDER = FakeEmbedder(dim=8)

OpenServer = Callable[..., VectorStore]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    """A real server."""
    with running_chroma(tmp_path_factory.mktemp("chroma") / "server") as running:
        yield running


@pytest.fixture
def opened(server: ChromaServer, tmp_path: Path) -> OpenServer:
    """Opens a store on the server, under a prefix of the test's own."""

    def open_store(
        *, url: str = server.url, prefix: str = f"{tmp_path.name}-", **options: Any
    ) -> VectorStore:
        settings = ChromaConfig(collection_prefix=prefix, **options)
        return open_vector_store(
            f"chroma+{url}",
            timeout_seconds=1,
            settings=StoreSettings(chroma=settings),
            aliases=TableAliases(lambda: DeltaTables(str(tmp_path / "tables")), url),
        )

    return open_store


def test_nothing_is_sent_but_to_the_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma sends telemetry and downloads a model, where nobody says no."""
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    with open_vector_store(f"chroma:{tmp_path / 'store'}", timeout_seconds=1) as store:
        store.ensure_collection("v1", CONFIG)
        store.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert store.count("v1") == 1
    assert asked == []


@pytest.mark.slow
def test_most_of_the_nearest_are_found_and_a_sample_can_be_compared_exactly(tmp_path: Path) -> None:
    """Chroma's own search is approximate from the first point on; the gate on recall asks both."""
    texts = [f"text {number}" for number in range(3_000)]
    with open_vector_store(f"chroma:{tmp_path / 'store'}", timeout_seconds=1) as store:
        store.ensure_collection("v1", CONFIG)
        points = points_of(EMBEDDER, texts)
        store.upsert("v1", points)
        n_found = 0
        for number in range(10):
            asked = EMBEDDER.embed_queries([f"question {number}"])[0]
            nearest = np.argsort(-(points.vectors @ asked), kind="stable")[:10]
            exact = store.search("v1", SearchRequest("dense", 10, asked, exact=True))
            usual = store.search("v1", SearchRequest("dense", 10, asked))
            assert [hit.payload["text"] for hit in exact] == [texts[place] for place in nearest]
            n_found += len({hit.point_id for hit in exact} & {hit.point_id for hit in usual})
        assert n_found >= 98


def test_two_projects_on_one_server_do_not_see_each_other(opened: OpenServer) -> None:
    """Another prefix for each; the same version name in both."""
    with opened(prefix="one-") as one, opened(prefix="two-") as two:
        one.ensure_collection("v1", CONFIG)
        one.upsert("v1", points_of(EMBEDDER, ["one"]))
        assert two.list_collections() == []
        two.ensure_collection("v1", CONFIG)
        assert two.count("v1") == 0
        two.drop_collection("v1")
        assert one.count("v1") == 1


def test_a_collection_of_somebody_else_is_not_taken(
    opened: OpenServer, server: ChromaServer
) -> None:
    """It has our prefix by accident, and nothing that says what it holds."""
    client = chroma_server_store._shared_client(
        server.url, None, "default_tenant", "default_database", 30.0
    )
    client.create_collection("foreign-v1", embedding_function=None)
    with opened(prefix="foreign-") as store:
        assert store.list_collections() == []
        with pytest.raises(IndexVersionError, match=r"somebody else: foreign-v1.*prefix"):
            store.ensure_collection("v1", CONFIG)
        store.drop_collection("v1")
    assert client.get_collection("foreign-v1", embedding_function=None).count() == 0


def test_of_two_moves_of_an_alias_one_loses(opened: OpenServer) -> None:
    """Chroma has no aliases; the table's own conflict check decides."""
    with opened() as store, opened() as other:
        store.ensure_collection("v1", CONFIG)
        store.ensure_collection("v2", CONFIG)
        store.switch_alias("documents", "v1", expected=None)
        other.switch_alias("documents", "v2", expected="v1")
        with pytest.raises(ConcurrentWriteError):
            store.switch_alias("documents", "v1", expected="v1")
        assert store.aliases() == {"documents": "v2"}


def test_an_address_that_nobody_answers_is_said_so(opened: OpenServer) -> None:
    """Within a few seconds, with what to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        opened(url=f"http://127.0.0.1:{port}") as store,
        pytest.raises(StorageUnavailableError, match=rf"{port}: nobody answers.*vector_store"),
    ):
        store.list_collections()


def test_a_password_in_the_address_is_refused_and_not_shown(opened: OpenServer) -> None:
    """Addresses are logged."""
    with pytest.raises(ConfigurationError, match="CHROMA_API_KEY") as caught:
        opened(url="http://me:secret@host")
    assert "secret" not in str(caught.value)


@pytest.fixture
def answers(server: ChromaServer, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Response]:
    """What the server is made to answer next, before it answers by itself again."""
    client = chroma_server_store._shared_client(
        server.url, None, "default_tenant", "default_database", 30.0
    )
    session = client._server._session
    planned: list[httpx.Response] = []
    usual = session.request

    def request(method: str, url: str, **options: Any) -> httpx.Response:
        if not planned:
            return usual(method, url, **options)
        answer = planned.pop(0)
        answer.request = httpx.Request(method, url)
        return answer

    monkeypatch.setattr(session, "request", request)
    return planned


def test_what_may_pass_is_tried_again(opened: OpenServer, answers: list[httpx.Response]) -> None:
    """A proxy that restarts, a server that is busy."""
    with opened() as store:
        answers += [httpx.Response(503, text="busy"), httpx.Response(429, text="slow down")]
        assert store.list_collections() == []
        assert answers == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (403, ConfigurationError, r"^chroma\.api_key.* is not accepted by "),
        (422, IndexVersionError, "cannot be served as asked by .*422"),
        (500, StorageUnavailableError, "listing collections failed .500 "),
        (503, StorageUnavailableError, "listing collections failed .503 "),
    ],
)
def test_other_answers_are_errors_of_their_class(
    opened: OpenServer,
    answers: list[httpx.Response],
    status: int,
    error: type[Exception],
    message: str,
) -> None:
    """Whether a run is tried again depends on it."""
    answers += [httpx.Response(status, text="no") for _ in range(50)]
    with opened() as store, pytest.raises(error, match=message):
        store.list_collections()


def test_a_server_that_hangs_is_given_up(opened: OpenServer) -> None:
    """The client's own requests wait for ever."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            opened(url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.3) as store,
            pytest.raises(StorageUnavailableError, match="listing collections failed"),
        ):
            store.list_collections()


def test_the_doctor_says_that_a_key_is_sent_in_the_clear(
    server: ChromaServer, tmp_path: Path
) -> None:
    """Beside what the server holds."""
    settings = {"api_key": "key", "collection_prefix": "doctor-"}
    location = {"vector_store": f"chroma+{server.url}", "root": str(tmp_path), "chroma": settings}
    found = {c.name: c for c in _check_vector_store(Workspace(Config.model_validate(location)))}
    assert found["vector store"].value == "no collection yet"
    assert found["chroma.api_key"].outcome == "warn"
