"""What the names in the configuration stood for when they were built first.

A chunking, an embedding model or an index version whose settings change under its name would mix
two kinds of rows, and turn a version that was judged and is served into another one. So the first
build records the settings, and from then on the name means them, as long as anything is stored
under it. Rules of document types and of sources are no part of it: those change in place, and what
depends on them is computed again.
"""

import json
from collections.abc import Mapping
from typing import Literal, cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import (
    CHUNKS,
    EMBEDDINGS,
    INDEXED_CHUNKS,
    RECORDED_SETTINGS,
)
from ragassets.core.stages import SHARD, RunContext
from ragassets.core.tables import Tables
from ragassets.errors import ConfigurationError

Section = Literal["chunkings", "embedding_models", "index_versions"]

DECISIVE: Mapping[Section, tuple[str, ...]] = {
    "chunkings": ("strategy", "max_tokens", "overlap_tokens", "tokenizer"),
    "embedding_models": (
        "provider",
        "model",
        "dim",
        "revision",
        "dtype",
        "document_prompt",
        "query_prompt",
    ),
    "index_versions": ("chunking", "embedding_model", "distance", "sparse", "quantization"),
}
"""The keys that decide what is stored. Batch sizes, addresses and secrets may change."""


def record_settings(workspace: Workspace, section: Section, name: str, context: RunContext) -> None:
    """Record what a name stands for, before anything is stored under it for the first time.

    Raises:
        ConfigurationError: It stood for something else.
    """
    snapshot = workspace.tables.snapshot(RECORDED_SETTINGS)
    partition = {"section": section, "name": name}
    known = workspace.tables.read_at(snapshot, [partition])
    settings = json.dumps(_decisive_settings(workspace.config, section, name))
    if known.height and known["settings"][0] == settings:
        return
    _refuse_changes(workspace, known)
    row = {
        **partition,
        "settings": settings,
        "recorded_at": context.now(),
        "run_id": context.run_id,
    }
    frame = pl.DataFrame([row], schema=RECORDED_SETTINGS.schema)
    workspace.tables.replace(snapshot, [partition], frame)


def check_recorded_settings(workspace: Workspace) -> None:
    """Compare the whole configuration with what was built, before anything is computed.

    Raises:
        ConfigurationError: A name stood for something else.
    """
    _refuse_changes(workspace, workspace.tables.read(RECORDED_SETTINGS))


def _decisive_settings(config: Config, section: Section, name: str) -> dict[str, object]:
    values = getattr(config, section)[name].model_dump(mode="json")
    return {key: values[key] for key in DECISIVE[section]}


def _refuse_changes(workspace: Workspace, known: pl.DataFrame) -> None:
    """Compare records with the configuration; a key that one of them lacks is no difference."""
    rows = known.sort("section", "name").select("section", "name", "settings")
    for section, name, recorded in rows.iter_rows():
        if name not in getattr(workspace.config, section):
            continue
        now = _decisive_settings(workspace.config, section, name)
        before = cast("dict[str, object]", json.loads(recorded))
        for key, value in now.items():
            if key in before and before[key] != value and _is_stored(workspace, section, name):
                raise _changed(section, name, key, old=before[key], new=value)


def _is_stored(workspace: Workspace, section: Section, name: str) -> bool:
    """Whether any row was made under the name: a slip that never worked may be mended."""
    stage, where = {
        "chunkings": (CHUNKS, pl.col("chunking") == name),
        "embedding_models": (EMBEDDINGS, pl.col("embedding_set").str.ends_with(f".{name}")),
        "index_versions": (INDEXED_CHUNKS, pl.col("index_version") == name),
    }[section]
    return workspace.tables.read(stage.outputs, columns=[SHARD], where=where).height > 0


def _changed(section: str, name: str, key: str, *, old: object, new: object) -> ConfigurationError:
    return ConfigurationError(
        key=f"{section}.{name}.{key}",
        value=new,
        problem=f"was {old!r} when {name!r} was built",
        fix=f"Put {old!r} back, and give the new settings a new name: they are then built beside"
        " what is served, and can be compared and promoted",
    )


def recorded_composition(tables: Tables) -> dict[str, tuple[str, str]]:
    """Chunking and embedding set of every version that was begun, configured or not."""
    rows = tables.read(RECORDED_SETTINGS, [{"section": "index_versions"}])
    found: dict[str, tuple[str, str]] = {}
    for name, recorded in rows.select("name", "settings").iter_rows():
        settings = cast("dict[str, str]", json.loads(recorded))
        chunking, model = settings["chunking"], settings["embedding_model"]
        found[name] = (chunking, f"{chunking}.{model}")
    return found
