"""Picks the embedder that an entry of `embedding_models` asks for."""

from ragassets.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
from ragassets.core.embedding import Embedder
from ragassets.core.settings import EmbeddingModelConfig
from ragassets.errors import ConfigurationError


def open_embedder(name: str, config: EmbeddingModelConfig) -> Embedder:
    """Return the embedder; its model is loaded by the first text.

    Raises:
        ConfigurationError: the provider is not supported.
        MissingModelError: the model is nowhere to be found.
    """
    if config.provider != "sentence-transformers":
        raise ConfigurationError(
            key=f"embedding_models.{name}.provider",
            value=config.provider,
            problem="is not supported yet",
            fix="Use sentence-transformers; embedding services come with a later release",
        )
    return SentenceTransformersEmbedder(name, config)
