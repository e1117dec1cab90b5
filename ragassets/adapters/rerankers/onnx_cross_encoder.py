"""Reranks with a cross-encoder in ONNX format, on the CPU.

One pair at a time. The usual ONNX files are quantized to 8 bits with scales that are taken from
each batch, so in a batch a text's score depends on its neighbours (by up to 0.3 in the bundled
model, as much as lies between two ranks). Alone it does not, and no padding is computed.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.model_files import hash_model
from ragassets.adapters.embedders.torch_encoder import CPU_QUOTA_FILE, quota_cores
from ragassets.adapters.rerankers.model_files import find_reranker, missing_reranker
from ragassets.core.fingerprints import fingerprint
from ragassets.core.settings import RerankerConfig
from ragassets.errors import MissingModelError

CODE_VERSION = 1
"""Raised when this module would give other scores for the same model."""

WEIGHTS = ("model.onnx", "onnx/model.onnx")
TOKENIZER = "tokenizer.json"

DECISIVE_SUFFIXES = frozenset({".onnx", ".onnx_data", ".json", ".txt"})

DEFAULT_MAX_TOKENS = 512
"""What BERT's kind reads at most."""


class _Loaded(NamedTuple):
    """A model that is ready."""

    session: Any
    tokenizer: Any
    inputs: frozenset[str]


class OnnxCrossEncoder:
    """Implements `Reranker`. The model is loaded by the first text, once a process."""

    def __init__(self, name: str, config: RerankerConfig) -> None:
        """Find the model's files.

        Raises:
            MissingModelError: they are not here.
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
        files = hash_model(self._directory, DECISIVE_SUFFIXES)
        limit = self._config.max_tokens
        return fingerprint({"onnx": files, "max_tokens": limit, "code": CODE_VERSION})

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts,) float32: the model's own logits."""
        if not texts:
            return np.zeros(0, dtype=np.float32)
        try:
            model = _load(self._directory, self._config.max_tokens or DEFAULT_MAX_TOKENS)
        except MissingModelError as error:
            raise missing_reranker(self._name, self._config, error.detail) from error
        pairs = model.tokenizer.encode_batch([(query, text) for text in texts])
        return np.array([self._score(model, pair) for pair in pairs], dtype=np.float32)

    def _score(self, model: _Loaded, pair: Any) -> float:
        columns = {
            "input_ids": pair.ids,
            "attention_mask": pair.attention_mask,
            "token_type_ids": pair.type_ids,
        }
        arrays = {
            name: np.array([column], dtype=np.int64)
            for name, column in columns.items()
            if name in model.inputs
        }
        (logits, *_) = model.session.run(None, arrays)
        if logits.size != 1:
            detail = f"it gives {logits.size} numbers for a pair, and one is a score"
            raise missing_reranker(self._name, self._config, detail)
        return float(logits.reshape(()))


@lru_cache(maxsize=4)
def _load(directory: Path, max_tokens: int) -> _Loaded:
    weights = next((file for file in WEIGHTS if (directory / file).is_file()), None)
    if weights is None or not (directory / TOKENIZER).is_file():
        detail = f"{directory} holds no {WEIGHTS[0]} with a {TOKENIZER}"
        raise MissingModelError(model=str(directory), detail=detail)
    try:
        import onnxruntime
        from tokenizers import Tokenizer

        runtime = cast("Any", onnxruntime)  # only partly typed
        options = runtime.SessionOptions()
        options.intra_op_num_threads = _n_threads()
        session = runtime.InferenceSession(
            directory / weights, options, providers=["CPUExecutionProvider"]
        )
        tokenizer = cast("Any", Tokenizer.from_file(str(directory / TOKENIZER)))
    except ImportError as error:
        detail = "onnxruntime is not installed: pip install 'ragassets[rerank]'"
        raise MissingModelError(model=str(directory), detail=detail) from error
    except Exception as error:  # both libraries raise their own kinds, and bare ones
        first_line = str(error).partition("\n")[0]
        raise MissingModelError(model=str(directory), detail=first_line) from error
    tokenizer.no_padding()
    # Takes from the longer of the two: that is the text, unless the query is an essay.
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    return _Loaded(session, tokenizer, frozenset(entry.name for entry in session.get_inputs()))


def _n_threads() -> int:
    """Cores that this process may use: the library would take all of the machine."""
    asked = int(os.environ.get("OMP_NUM_THREADS") or 0)
    cores = len(os.sched_getaffinity(0))
    return min(cores, quota_cores(CPU_QUOTA_FILE) or cores, asked or cores)
