"""A project of seven small documents, ingested once a session by the command itself.

Tests that damage something work on a copy.
"""

import itertools
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from typer.testing import CliRunner, Result

from ragassets.adapters.workspace import Workspace
from ragassets.cli import app
from ragassets.config import load_config
from ragassets.core.fingerprints import document_id, shard_index
from ragassets.defs.instance import open_instance

DOCUMENTS = {
    "leave policy.md": "# Annual leave\n\nEverybody has thirty days of annual leave a year. Ask"
    " your manager two weeks before you go, and note the days in the calendar of your team.\n",
    "expenses.txt": "Travel expenses are paid back within ten days. Keep the receipt of every hotel"
    " and every train ticket, and send them to the finance team with the form for expenses.\n",
    "größe/übersicht.html": "<html><head><title>Sensors</title></head><body><h1>Sensors</h1><p>The"
    " humidity sensor XK-4711 measures between ten and ninety percent and has to be calibrated by"
    " the workshop once a year.</p></body></html>\n",
    "security.md": "# Security\n\nNever share your password. When a laptop is stolen, call the"
    " security team at once, whatever the hour; they lock the accounts and wipe the disk.\n",
    "broken.pdf": "%PDF-1.4 this is not a PDF any more",
    "empty.md": "",
    "drafts/secret.md": "# Draft\n\nThis one is excluded by the configuration of its source.\n",
}
"""Name to text. `copy of security.md` is added: the same bytes as `security.md`."""

CONFIGURATION = """\
root: .ragassets
vector_store_timeout_seconds: 0.3
workers: 1
sources:
  office:
    uri: {documents}
    exclude: ["drafts/**"]
    shards: 2
    metadata: {{team: people, year: 2026}}
    acl: ["group:staff"]
index_versions:
  v1: {{chunking: recursive-256, embedding_model: minilm}}
  v2: {{chunking: recursive-256, embedding_model: minilm, sparse: null, backfill: manual}}
"""


@dataclass(frozen=True)
class SmallProject:
    """Where the project is, and what its first ingestion said."""

    folder: Path
    documents: Path
    ingestion: Result

    def path(self, name: str) -> str:
        """The path of a document."""
        return str(self.documents / name)

    def uri(self, name: str) -> str:
        """The URI of a document."""
        return (self.documents / name).as_uri()

    def run(self, *arguments: str) -> Result:
        """Run the command on this project."""
        return run("--config", str(self.folder / "ragassets.yaml"), *arguments)

    def json(self, *arguments: str) -> dict:
        """What the command writes with --json; it must succeed."""
        result = self.run("--json", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def workspace(self) -> Workspace:
        """A fresh workspace."""
        return Workspace(load_config(self.folder / "ragassets.yaml"))

    def n_runs(self) -> int:
        """How many runs the UI lists."""
        with open_instance(self.folder) as instance:
            return instance.get_runs_count()

    def copy(self, target: Path) -> "SmallProject":
        """A copy that may be damaged; its documents stay where they are."""
        shutil.copytree(self.folder, target)
        return SmallProject(target, self.documents, self.ingestion)


def run(*arguments: str) -> Result:
    """Run the command with these arguments."""
    return CliRunner().invoke(app, list(arguments))


@cache
def small_project(base: Path) -> SmallProject:
    """The ingested project, made once below the session's temporary folder."""
    home = _home_with_both_shards_in_use(base)
    documents = home / "documents"
    for name, text in DOCUMENTS.items():
        path = documents / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(documents / "security.md", documents / "copy of security.md")
    folder = home / "project"
    folder.mkdir()
    (folder / "ragassets.yaml").write_text(
        CONFIGURATION.format(documents=documents), encoding="utf-8"
    )
    result = run("ingest", "--config", str(folder / "ragassets.yaml"), "--json")
    return SmallProject(folder, documents, result)


def _home_with_both_shards_in_use(base: Path) -> Path:
    """A folder whose documents do not all lie in one shard: shards follow from absolute paths."""
    names = ("leave policy.md", "expenses.txt", "größe/übersicht.html")
    for number in itertools.count():
        home = base / f"small-{number}"
        uris = [(home / "documents" / name).as_uri() for name in names]
        if {shard_index(document_id("office", uri), 2) for uri in uris} == {0, 1}:
            return home
    raise AssertionError
