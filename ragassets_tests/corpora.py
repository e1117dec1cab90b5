"""Where the shared corpora are; a test that needs an absent one is skipped, with a reason."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]


def corpora_root() -> Path:
    """Folder of all corpora: `RAGASSETS_CORPORA`, else `shared/corpora` beside the repository."""
    override = os.environ.get("RAGASSETS_CORPORA")
    return Path(override) if override else REPOSITORY_ROOT.parent / "shared" / "corpora"


def corpus(name: str) -> Path:
    """Folder of the corpus `name`; skips the calling test, with a reason, where it is absent."""
    path = corpora_root() / name
    if not path.exists():
        pytest.skip(f"corpus {name!r} is not on this machine (set RAGASSETS_CORPORA)")
    return path


def documents_manifest() -> list[dict[str, Any]]:
    """What is expected of every file of the documents corpus; empty where it is absent."""
    manifest = corpora_root() / "documents" / "manifest.jsonl"
    if not manifest.exists():
        return []
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
