"""A sentence-transformers model on one device, fed with token ids instead of texts.

Measured with MiniLM on chunks of the bulk corpus (AVX2, torch 2.13, one thread, CPU seconds, median
of five interleaved rounds), against `SentenceTransformer.encode` with its defaults:

| tokens in a batch | 512 | 1,024 | 2,048 | 4,096 | 8,192 |
|---|---|---|---|---|---|
| times as fast | 1.47 | 1.55 | 1.58 | 1.51 | 1.21 |

Not used, and why:

- OpenVINO (2026.4, the traced model, float32, same vectors to 1e-6): 1.27 times as fast as this at
  126 tokens a text, 1.23 at 174, 1.12 at 253. Tracing takes seconds in every process and fixes
  branches that a model may need, which is more than that is worth.
- ONNX Runtime: the bundled model has no ONNX file, and an exporter would be two more libraries.
- `torch.compile` (dynamic shapes): 1.09 times as fast at 126 tokens a text, 1.02 at 170, after 39
  CPU seconds of compilation; and it wants a C++ compiler at run time.
- Eager attention: 0.88 and 0.77 times as fast as `sdpa`, which transformers chooses; it keeps all
  scores, (texts, heads, tokens, tokens). Flash attention is for float16 on a GPU: not measured.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.engine import Wait
from ragassets.adapters.embedders.token_batches import Prepare, PreparedText, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

PROBES = ["a", "", " two  Words ", "naïve Ünïcode 日本語", "a long text " * 4_000]
"""What a tokenizer may treat specially: case, white space, nothing, the unknown, length."""

CPU_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


class Model(Protocol):
    """The part of `SentenceTransformer` that is used: its own signatures are only partly typed."""

    max_seq_length: int | None
    tokenizer: Any

    def __call__(self, features: dict[str, Any]) -> dict[str, Any]:
        """Run all modules on features of `preprocess`."""
        ...

    def preprocess(self, inputs: list[str], *, prompt: str | None) -> Mapping[str, Any]:
        """Tokenize and pad."""
        ...

    def encode(
        self, inputs: list[str], *, prompt: str | None, batch_size: int, show_progress_bar: bool
    ) -> NDArray[np.float32]:
        """Texts to vectors (n_texts, dim)."""
        ...

    def get_embedding_dimension(self) -> int | None:
        """The dimension, if the model says it."""
        ...


class TokenEncoder:
    """Runs token ids through the model; implements `Encoder`.

    On a GPU nothing is waited for: ids go through pinned memory, vectors come back the same way,
    and an event tells when they are there.
    """

    def __init__(self, model: Model, device: str, constants: Mapping[str, Any]) -> None:
        """Use a model that is on the device already.

        Args:
            model: in evaluation mode.
            device: as torch names it.
            constants: what the model wants to be told besides token ids and mask.
        """
        tokenizer = model.tokenizer
        self._model = model
        self._device = device
        self._is_gpu = device.startswith("cuda")
        self._constants = dict(constants)
        self._pad_id = int(tokenizer.pad_token_id or 0)
        self._pads_left = tokenizer.padding_side == "left"
        self._has_types = "token_type_ids" in tokenizer.model_input_names

    def start(self, batch: TokenBatch) -> Wait:
        """Begin a forward pass."""
        import torch

        with torch.inference_mode():
            vectors = self.forward(self.features(batch))
            if not self._is_gpu:
                return vectors.numpy
            copied = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
            copied.copy_(vectors, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(vectors.device))

        def wait() -> NDArray[np.float32]:
            arrived.synchronize()
            return copied.numpy()

        return wait

    def features(self, batch: TokenBatch) -> dict[str, Any]:
        """What the model's modules read, on the device; int64 tensors (n_texts, longest)."""
        import torch

        padded = batch.pad(self._pad_id, on_the_left=self._pads_left)
        token_ids, mask = (torch.as_tensor(array) for array in padded)
        if self._is_gpu:
            token_ids, mask = (
                tensor.pin_memory().to(self._device, non_blocking=True)
                for tensor in (token_ids, mask)
            )
        types = {"token_type_ids": torch.zeros_like(token_ids)} if self._has_types else {}
        return {**self._constants, "input_ids": token_ids, "attention_mask": mask, **types}

    def forward(self, features: Mapping[str, Any]) -> "Tensor":
        """(n_texts, dim) float32 on the device. The modules add to a copy of the features."""
        return self._model(dict(features))["sentence_embedding"].float()

    def release_memory(self) -> None:
        """Empty the allocator's cache."""
        _empty_cache(self._device)


class TextEncoder:
    """Lets the model tokenize by itself, for models that want more than token ids."""

    def __init__(self, model: Model, device: str, prompt: str) -> None:
        """Use a model that is on the device already."""
        self._model = model
        self._device = device
        self._prompt = prompt

    def start(self, batch: TokenBatch) -> Wait:
        """Encode right away."""
        vectors = self._model.encode(
            [text.text for text in batch.texts],
            prompt=self._prompt or None,
            batch_size=len(batch.texts),
            show_progress_bar=False,
        )
        return lambda: vectors

    def release_memory(self) -> None:
        """Empty the allocator's cache."""
        _empty_cache(self._device)


def token_ids_of(model: Model, prompt: str) -> tuple[Prepare, dict[str, Any]] | None:
    """How to tokenize for the model, and the constants that it wants besides.

    None when the model does more to its texts than its fast tokenizer does: our ids are compared
    with the model's own on some probes, since models come with modules and templates of their own.
    """
    prepare = _fast_tokenizer(model, prompt)
    if prepare is None:
        return None
    features = dict(model.preprocess(list(PROBES), prompt=prompt or None))
    names = ("input_ids", "attention_mask", "token_type_ids")
    token_ids, mask, types = (features.pop(name, None) for name in names)
    if token_ids is None or mask is None or any(hasattr(v, "shape") for v in features.values()):
        return None
    theirs = [row[kept.bool()].tolist() for row, kept in zip(token_ids, mask, strict=True)]
    ours = [text.token_ids.tolist() for text in prepare(list(PROBES))]
    has_types = types is not None and bool(types.any())
    return (prepare, features) if theirs == ours and not has_types else None


def count_tokens_of(model: Model, prompt: str) -> Prepare:
    """Counts tokens only: the model tokenizes again, by itself."""
    limit = model.max_seq_length

    def prepare(texts: list[str]) -> list[PreparedText]:
        encoded = model.tokenizer(
            [prompt + text for text in texts], truncation=limit is not None, max_length=limit
        )
        return [
            PreparedText(text, max(1, len(ids)), np.empty(0, dtype=np.int64))
            for text, ids in zip(texts, encoded["input_ids"], strict=True)
        ]

    return prepare


def limit_threads() -> None:
    """Let torch use no more threads than the container may use cores.

    torch sees the cores of the machine, not the quota of a Kubernetes limit: 64 threads on two
    cores' worth of time wait for each other. Lowers only, so `OMP_NUM_THREADS` keeps its say.
    """
    import torch

    n_cores = quota_cores(CPU_QUOTA_FILE)
    if n_cores is not None and n_cores < torch.get_num_threads():
        torch.set_num_threads(n_cores)


def quota_cores(file: Path) -> int | None:
    """Whole cores that the cgroup's quota allows, at least 1; None without a quota.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max
    """
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or `max`
        return None


def _fast_tokenizer(model: Model, prompt: str) -> Prepare | None:
    from tokenizers import Tokenizer

    definition = getattr(model.tokenizer, "backend_tokenizer", None)
    if definition is None:
        return None
    # A copy: the model's own is switched between truncating and not by whoever calls it.
    tokenizer = cast("Any", Tokenizer.from_str(definition.to_str()))
    tokenizer.no_padding()
    if model.max_seq_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(model.max_seq_length, direction=model.tokenizer.truncation_side)
    encode = cast("Callable[[list[str]], list[Any]]", tokenizer.encode_batch_fast)

    def prepare(texts: list[str]) -> list[PreparedText]:
        encodings = encode([prompt + text for text in texts])
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        return [PreparedText(text, len(row), row) for text, row in zip(texts, ids, strict=True)]

    return prepare


def _empty_cache(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
