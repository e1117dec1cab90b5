"""Picks the reranker that an entry of `rerankers` asks for."""

from ragassets.adapters.rerankers.onnx_cross_encoder import OnnxCrossEncoder
from ragassets.adapters.rerankers.torch_cross_encoder import TorchCrossEncoder
from ragassets.core.reranking import Reranker
from ragassets.core.settings import RerankerConfig


def open_reranker(name: str, config: RerankerConfig) -> Reranker:
    """Return the reranker; its model is loaded by the first query.

    Raises:
        MissingModelError: the model's files are nowhere to be found.
    """
    if config.provider == "onnx":
        return OnnxCrossEncoder(name, config)
    return TorchCrossEncoder(name, config)
