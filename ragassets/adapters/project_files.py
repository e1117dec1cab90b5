"""The files of a new project: configuration, Dagster's two files, sample corpus, golden queries."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import cast

from ragassets.errors import ConfigurationError

TEMPLATES = ("ragassets.yaml", "workspace.yaml", "dagster.yaml")
DOCUMENTS = "documents"
"""The folder that the template of `ragassets.yaml` names as its source."""
GOLDEN_QUERIES = "golden.jsonl"


@dataclass(frozen=True)
class CreatedProject:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    """Relative to the folder, in order."""


def create_project(directory: Path) -> CreatedProject:
    """Write a new project; nothing is overwritten, and nothing written when something is there.

    Raises:
        ConfigurationError: A file is there already, or the folder cannot be written.
    """
    try:
        # As `Path.cwd` spells it later: the golden queries name documents by their whole URI.
        folder = directory.expanduser().resolve()
        contents = dict(_contents(folder))
        _refuse_existing(folder, list(contents))
        for name, data in contents.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(
            key="directory",
            value=str(directory),
            problem=f"cannot be written ({error.strerror or type(error).__name__})",
            fix="Name a folder that this user may create and write",
        ) from error
    return CreatedProject(folder, tuple(contents))


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    templates = files("ragassets.templates")
    for name in TEMPLATES:
        yield name, (templates / name).read_bytes()
    demo = files("ragassets.demo")
    golden = (demo / GOLDEN_QUERIES).read_text(encoding="utf-8")
    yield GOLDEN_QUERIES, _with_absolute_uris(golden, folder / DOCUMENTS).encode()
    yield from _tree(demo / "corpus", DOCUMENTS)


def _tree(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            yield from _tree(entry, name)
        else:
            yield name, entry.read_bytes()


def _with_absolute_uris(golden: str, documents: Path) -> str:
    """Golden queries whose paths, relative in the package, became URIs of the written corpus."""
    lines: list[str] = []
    for line in golden.splitlines():
        query = cast("dict[str, object]", json.loads(line))
        relevant = cast("dict[str, float]", query["relevant"])
        query["relevant"] = {(documents / path).as_uri(): g for path, g in relevant.items()}
        lines.append(json.dumps(query, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _refuse_existing(folder: Path, names: list[str]) -> None:
    """Refuse when a top-level entry that would be written is there."""
    entries = list(dict.fromkeys(name.partition("/")[0] for name in names))
    existing = [name for name in entries if (folder / name).exists()]
    if existing:
        raise ConfigurationError(
            key="directory",
            value=str(folder),
            problem=f"already has {', '.join(existing)}; nothing was written",
            fix="Name another folder, or move them away",
        )
