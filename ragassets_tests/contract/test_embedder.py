"""What every `Embedder` must do, on the fake, the bundled model and a service on loopback."""

from collections.abc import Iterator

import numpy as np
import pytest

from ragassets.adapters.embedders.registry import open_embedder
from ragassets.core.embedding import Embedder, validate_vectors
from ragassets.core.settings import EmbeddingModelConfig
from ragassets_tests.embedding_server import EmbeddingServer
from ragassets_tests.fakes import FakeEmbedder

TEXTS = ["a cat", "the vector index of a platform " * 30, "naïve Ünïcode 日本語", "a cat", "x\ny"]


@pytest.fixture(params=["fake", "sentence-transformers", "openai"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    """One embedder of each kind."""
    match request.param:
        case "fake":
            yield FakeEmbedder("any")
        case "openai":
            with EmbeddingServer() as server:
                config = EmbeddingModelConfig(
                    provider="openai", model="tiny", dim=8, base_url=server.url, batch_texts=2
                )
                yield open_embedder("any", config)
        case _:
            yield open_embedder("any", EmbeddingModelConfig(model="all-MiniLM-L6-v2", dim=384))


def test_vectors_are_sound_in_order_and_the_same_in_any_company(embedder: Embedder) -> None:
    """Chunks are embedded in whatever batch a run finds; the vectors must not show it."""
    together = embedder.embed_documents(TEXTS)
    assert together.shape == (5, embedder.dim)
    assert together.dtype == np.float32
    assert validate_vectors(together, dim=embedder.dim) == [None] * 5
    alone = np.concatenate([embedder.embed_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[::-1], embedder.embed_documents(TEXTS[::-1]), atol=1e-5)
    np.testing.assert_allclose(together[0], together[3], atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-2)


def test_queries_live_in_the_space_of_the_documents(embedder: Embedder) -> None:
    """Without prompts a text is its own best match."""
    queries = embedder.embed_queries(TEXTS)
    assert validate_vectors(queries, dim=embedder.dim) == [None] * 5
    np.testing.assert_allclose(queries, embedder.embed_documents(TEXTS), atol=1e-5)


def test_no_texts_give_an_empty_array_of_the_right_width(embedder: Embedder) -> None:
    """A batch may be empty after validation."""
    assert embedder.embed_documents([]).shape == (0, embedder.dim)
    assert embedder.embed_queries([]).shape == (0, embedder.dim)


def test_an_embedder_says_what_it_is(embedder: Embedder) -> None:
    """The name for messages, the fingerprint for input hashes, the tokens for the chunker."""
    assert embedder.name == "any"
    assert len(embedder.fingerprint) == 32
    assert embedder.max_tokens > 0
    assert embedder.window_texts > 0
