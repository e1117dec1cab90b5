"""Embeds texts in this process with a sentence-transformers model, on a GPU when there is one."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.engine import EmbeddingEngine, Encoder
from ragassets.adapters.embedders.model_files import find_model, hash_model, read_max_tokens
from ragassets.adapters.embedders.token_batches import Prepare
from ragassets.adapters.embedders.torch_encoder import (
    Model,
    TextEncoder,
    TokenEncoder,
    count_tokens_of,
    limit_threads,
    token_ids_of,
)
from ragassets.core.embedding import truncate_vectors
from ragassets.core.fingerprints import fingerprint
from ragassets.core.settings import EmbeddingModelConfig
from ragassets.errors import ConfigurationError, MissingModelError

CODE_VERSION = 1
"""Raised when this module would give other vectors for the same model."""

CPU_BATCH_TOKENS = 2_048
"""The fastest of those measured (see `torch_encoder`): what lies between MiniLM's two largest
layers takes 12 MB and stays in the cache, with 8,192 tokens it takes 50 MB."""

GPU_BATCH_TOKENS = 65_536
"""Enough work to hide the launch of a forward pass (about 100 kernels) behind the one before. Not
measured on a GPU yet; a smaller one runs out of memory once, and goes on with half."""

CPU_WINDOW_TEXTS = 512
"""At 20 to 100 chunks/s on two cores, a killed run loses 5 to 25 s of work."""

GPU_WINDOW_TEXTS = 32_768
"""A few seconds of work for each GPU, and 50 MB of vectors at 384 dimensions."""

CPU_SLICE_TEXTS = 512
GPU_SLICE_TEXTS = 4_096
"""Texts that are sorted by their tokens together: about ten batches, for little padding."""

MAX_TOKENIZER_THREADS = 8
"""A GPU embeds small models faster than one core tokenizes; above eight threads the interpreter's
lock is what they wait for."""


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
        known = read_max_tokens(self._directory)
        if known is not None:
            return known
        config = self._config
        device = _devices(config.devices)[0]
        model = _load_model(config.model, self._directory, config.dtype, device)
        return int(model.max_seq_length or 512)

    @property
    def window_texts(self) -> int:
        """More on GPUs, which would spend their time on checkpoints otherwise."""
        devices = _devices(self._config.devices)
        n_gpus = sum(device.startswith("cuda") for device in devices)
        return GPU_WINDOW_TEXTS * n_gpus if n_gpus else CPU_WINDOW_TEXTS

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized."""
        return self._embed(texts, self._config.document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized."""
        return self._embed(texts, self._config.query_prompt)

    def _embed(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        engine = self._engine(prompt)
        if self.dim > engine.dim:
            raise ConfigurationError(
                key=f"embedding_models.{self.name}.dim",
                value=self.dim,
                problem=f"is more than the {engine.dim} dimensions of {self._config.model}",
                fix=f"Use {engine.dim}, or less to truncate the vectors",
            )
        return truncate_vectors(engine.embed(texts), dim=self.dim)

    def _engine(self, prompt: str) -> EmbeddingEngine:
        config = self._config
        return _open_engine(
            config.model,
            self._directory,
            config.dtype,
            _devices(config.devices),
            prompt,
            config.batch_tokens,
        )


def _devices(configured: tuple[str, ...]) -> tuple[str, ...]:
    """The configured devices, else every GPU, else the CPU."""
    import torch

    if configured:
        return configured
    return tuple(f"cuda:{n}" for n in range(torch.cuda.device_count())) or ("cpu",)


# Keeps the token budget that running out of memory has taught.
@lru_cache(maxsize=4)
def _open_engine(
    name: str,
    directory: Path,
    dtype: str,
    devices: tuple[str, ...],
    prompt: str,
    batch_tokens: int | None,
) -> EmbeddingEngine:
    models = [_load_model(name, directory, dtype, device) for device in devices]
    dim = models[0].get_embedding_dimension()
    if dim is None:
        raise MissingModelError(model=name, detail="it does not say its dimension")
    prepare, encoders = _encoders(models, devices, prompt)
    is_gpu = devices[0].startswith("cuda")
    return EmbeddingEngine(
        encoders,
        prepare,
        dim=dim,
        batch_tokens=batch_tokens or (GPU_BATCH_TOKENS if is_gpu else CPU_BATCH_TOKENS),
        slice_texts=GPU_SLICE_TEXTS * len(devices) if is_gpu else CPU_SLICE_TEXTS,
        n_threads=min(MAX_TOKENIZER_THREADS, len(os.sched_getaffinity(0))) if is_gpu else 1,
    )


def _encoders(
    models: list[Model], devices: tuple[str, ...], prompt: str
) -> tuple[Prepare, list[Encoder]]:
    """How texts are prepared for the model, and the model on each of its devices."""
    found = token_ids_of(models[0], prompt)
    pairs = list(zip(models, devices, strict=True))
    if found is None:
        texts: list[Encoder] = [TextEncoder(model, device, prompt) for model, device in pairs]
        return count_tokens_of(models[0], prompt), texts
    prepare, constants = found
    tokens: list[Encoder] = [TokenEncoder(model, device, constants) for model, device in pairs]
    return prepare, tokens


@lru_cache(maxsize=16)
def _load_model(name: str, directory: Path, dtype: str, device: str) -> Model:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    limit_threads()
    try:
        transformer = SentenceTransformer(
            str(directory),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first_line = str(error).partition("\n")[0]
        raise MissingModelError(model=name, detail=first_line or type(error).__name__) from error
    return cast("Model", transformer.eval())
