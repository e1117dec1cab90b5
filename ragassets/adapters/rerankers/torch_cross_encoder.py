"""Reranks in this process with a sentence-transformers cross-encoder, on a GPU if there is one."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.model_files import hash_model
from ragassets.adapters.embedders.torch_encoder import limit_threads
from ragassets.adapters.rerankers.model_files import find_reranker, missing_reranker
from ragassets.core.embedding import batch_by_tokens
from ragassets.core.fingerprints import fingerprint
from ragassets.core.settings import RerankerConfig
from ragassets.errors import MissingModelError

CODE_VERSION = 1
"""Raised when this module would give other scores for the same model."""

BATCH_TOKENS = 8_192
"""Padding included: 16 pairs of 512 tokens. A query has 50 pairs or so: a larger batch would pad
more than it fills."""


class TorchCrossEncoder:
    """Implements `Reranker`. The model is loaded by the first text, once a process."""

    def __init__(self, name: str, config: RerankerConfig) -> None:
        """Find the model's files.

        Raises:
            MissingModelError: they are not here and cannot be fetched.
        """
        self._name, self._config = name, config
        self._directory = find_reranker(name, config)

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of the model's files and of how much of a pair it reads."""
        files = hash_model(self._directory)
        limit = self._config.max_tokens
        return fingerprint({"torch": files, "max_tokens": limit, "code": CODE_VERSION})

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts,) float32, through the activation that the model was saved with.

        The batches follow from the texts, so a second call gives the same bytes; in another batch
        a score differs by less than 1e-5.
        """
        scores = np.zeros(len(texts), dtype=np.float32)
        if not texts:
            return scores
        model = self._model()
        lengths = _pair_lengths(model, query, texts)
        for batch in batch_by_tokens(lengths, batch_tokens=BATCH_TOKENS):
            pairs = [(query, texts[i]) for i in batch]
            scores[batch] = model.predict(pairs, batch_size=len(batch), show_progress_bar=False)
        return scores

    def _model(self) -> Any:
        try:
            model = _load(self._directory, self._config.max_tokens)
        except MissingModelError as error:
            raise missing_reranker(self._name, self._config, error.detail) from error
        if model.num_labels != 1:
            detail = f"it gives {model.num_labels} numbers for a pair, and one is a score"
            raise missing_reranker(self._name, self._config, detail)
        return model


def _pair_lengths(model: Any, query: str, texts: Sequence[str]) -> list[int]:
    """Tokens of each pair, as far as the model reads it."""
    tokenize = cast("Callable[..., dict[str, list[list[int]]]]", model.tokenizer)
    limit = cast("int | None", model.max_seq_length)
    encoded = tokenize(
        [query] * len(texts), list(texts), truncation=limit is not None, max_length=limit
    )
    return [len(ids) for ids in encoded["input_ids"]]


@lru_cache(maxsize=4)
def _load(directory: Path, max_tokens: int | None) -> Any:
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    logging.disable_progress_bar()
    limit_threads()
    try:
        model = CrossEncoder(str(directory), local_files_only=True, max_length=max_tokens)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first_line = str(error).partition("\n")[0]
        detail = first_line or type(error).__name__
        raise MissingModelError(model=str(directory), detail=detail) from error
    return model.eval()
