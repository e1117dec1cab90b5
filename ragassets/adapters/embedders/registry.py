"""Picks the embedder that an entry of `embedding_models` asks for."""

from ragassets.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
from ragassets.core.embedding import Embedder
from ragassets.core.settings import EmbeddingModelConfig


def open_embedder(name: str, config: EmbeddingModelConfig) -> Embedder:
    """Return the embedder; its model is loaded, or its service asked, by the first text.

    Raises:
        MissingModelError: the model is nowhere to be found.
    """
    if config.provider == "openai":
        from ragassets.adapters.embedders.openai_compatible import OpenAICompatibleEmbedder

        return OpenAICompatibleEmbedder(name, config)
    return SentenceTransformersEmbedder(name, config)
