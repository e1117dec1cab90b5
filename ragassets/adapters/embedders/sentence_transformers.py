"""Embeds texts in this process with a sentence-transformers model, on a GPU when there is one."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.model_files import find_model, hash_model, read_max_tokens
from ragassets.core.embedding import batch_by_tokens, truncate_vectors
from ragassets.core.fingerprints import fingerprint
from ragassets.core.settings import EmbeddingModelConfig
from ragassets.errors import ConfigurationError, MissingModelError, SystemResourceError

CODE_VERSION = 1
"""Raised when this module would give other vectors for the same model."""

Encode = Callable[[list[str]], NDArray[np.float32]]


class _Model(Protocol):
    """The part of `SentenceTransformer` that is used: its own signatures are only partly typed."""

    max_seq_length: int | None
    tokenizer: Callable[..., dict[str, list[list[int]]]]

    def encode(
        self, inputs: list[str], *, prompt: str | None, batch_size: int, show_progress_bar: bool
    ) -> NDArray[np.float32]: ...

    def get_embedding_dimension(self) -> int | None: ...


class SentenceTransformersEmbedder:
    """Implements `Embedder`. The model is loaded by the first text, once a process."""

    def __init__(self, name: str, config: EmbeddingModelConfig) -> None:
        """Find the model's files.

        Raises:
            MissingModelError: they are not here and cannot be fetched.
        """
        self._name = name
        self._config = config
        self._directory = find_model(config.model, config.revision)

    @property
    def name(self) -> str:
        """The model's name in the configuration."""
        return self._name

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._config.dim

    @property
    def fingerprint(self) -> str:
        """Hash of the model's files and the settings that decide the vectors."""
        settings = self._config.model_dump(
            include={"provider", "dim", "dtype", "document_prompt", "query_prompt"}
        )
        files = hash_model(self._directory)
        return fingerprint({**settings, "files": files, "normalized": True, "code": CODE_VERSION})

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that count; read from the model's files where they say so."""
        return read_max_tokens(self._directory) or int(self._model().max_seq_length or 512)

    @property
    def window_texts(self) -> int:
        """At 20 to 100 chunks/s on two cores, a killed run loses 5 to 25 s of work."""
        return 512

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized."""
        return self._embed(texts, self._config.document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized."""
        return self._embed(texts, self._config.query_prompt)

    def _embed(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return vectors
        model = self._model()

        def encode(batch: list[str]) -> NDArray[np.float32]:
            return model.encode(
                batch, prompt=prompt or None, batch_size=len(batch), show_progress_bar=False
            )

        n_tokens = _count_tokens(model, [prompt + text for text in texts])
        for batch in batch_by_tokens(n_tokens, batch_tokens=self._config.batch_tokens):
            encoded = encode_within_memory(encode, [texts[position] for position in batch])
            vectors[batch] = truncate_vectors(encoded, dim=self.dim)
        return vectors

    def _model(self) -> _Model:
        model, model_dim = _load_model(self._config.model, self._directory, self._config.dtype)
        if self.dim > model_dim:
            raise ConfigurationError(
                key=f"embedding_models.{self.name}.dim",
                value=self.dim,
                problem=f"is more than the {model_dim} dimensions of {self._config.model}",
                fix=f"Use {model_dim}, or less to truncate the vectors",
            )
        return model


def encode_within_memory(encode: Encode, texts: list[str]) -> NDArray[np.float32]:
    """Return `encode(texts)`, halving the batch for as long as memory does not suffice.

    Raises:
        SystemResourceError: not even one text fits, or the GPU is lost.
    """
    import torch

    try:
        return encode(texts)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            if "CUDA" not in str(error):
                raise
            raise SystemResourceError(
                resource="GPU",
                detail=f"it failed while embedding ({type(error).__name__})",
                fix="Run again in a new process",
            ) from error
        if len(texts) == 1:
            raise SystemResourceError(
                resource="memory",
                detail="one text does not fit into it while embedding",
                fix="Use a machine with more memory, a smaller model or dtype float16",
            ) from error
    # Outside of the handler: the error's traceback keeps the failed batch's tensors alive.
    torch.cuda.empty_cache()
    middle = len(texts) // 2
    halves = [encode_within_memory(encode, half) for half in (texts[:middle], texts[middle:])]
    return np.concatenate(halves)


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # The CPU allocator raises a plain RuntimeError.
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


def _count_tokens(model: _Model, texts: list[str]) -> list[int]:
    limit = model.max_seq_length
    encoded = model.tokenizer(texts, truncation=limit is not None, max_length=limit)
    return [len(ids) for ids in encoded["input_ids"]]


@lru_cache(maxsize=2)
def _load_model(model: str, directory: Path, dtype: str) -> tuple[_Model, int]:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        transformer = SentenceTransformer(
            str(directory),
            device="cuda" if torch.cuda.is_available() else "cpu",
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first_line = str(error).partition("\n")[0]
        raise MissingModelError(model=model, detail=first_line or type(error).__name__) from error
    loaded = cast("_Model", transformer.eval())
    dim = loaded.get_embedding_dimension()
    if dim is None:
        raise MissingModelError(model=model, detail="it does not say its dimension")
    return loaded, dim
