"""Takes documents out of Dagster's own history: previews in the UI show rows of documents.

Dagster has no call for that, so the SQLite files of a local instance are changed in place: lines of
tables that name the document go, other texts that name it are replaced. Other storages are left
alone and named.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dagster import DagsterInstance

from ragassets.defs.metadata import URI_CHARS, escaped

REPLACEMENT = "(forgotten)"

BUSY_SECONDS = 30.0

LOG_SUFFIXES = (".out", ".err")


@dataclass(frozen=True)
class Scrubbed:
    """What was done to the history."""

    n_changed: int
    """Events and files that named a document."""
    note: str = ""
    """What could not be looked at, and what to do about it."""


def scrub_run_history(instance: DagsterInstance, uris: Iterable[str]) -> Scrubbed:
    """Take what names these documents out of events, and out of captured output.

    Args:
        instance: Whose history.
        uris: The documents' URIs; previews show their last characters.
    """
    needles = sorted({form for uri in uris for form in _forms(uri)})
    if not needles:
        return Scrubbed(0)
    storage = instance.event_log_storage
    folder = getattr(storage, "_base_dir", None)
    if not isinstance(folder, str):
        kind = type(storage).__name__
        if kind.startswith("InMemory") or ":memory:" in str(getattr(storage, "conn_string", "")):
            return Scrubbed(0)
        return Scrubbed(
            0,
            f"Dagster's history in {kind} may still show its URI and first words: delete the runs",
        )
    n_changed, busy = 0, list[str]()
    for file in sorted(Path(folder).rglob("*.db")):
        try:
            n_changed += _scrub_database(file, needles)
        except sqlite3.Error:
            busy.append(str(file))
    n_changed += _scrub_logs(Path(instance.storage_directory()), needles)
    note = (
        f"Dagster's history in {busy[0]} is in use: stop dagster and run it again" if busy else ""
    )
    return Scrubbed(n_changed, note)


def _forms(uri: str) -> Iterator[str]:
    """How previews and messages show a URI."""
    yield uri
    yield escaped(uri[-URI_CHARS:])


def _scrub_database(file: Path, needles: list[str]) -> int:
    n_changed = 0
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)) as database:
        database.execute("PRAGMA secure_delete = ON")
        names = [
            str(row[0])
            for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in names:
            columns = database.execute(f'PRAGMA table_info("{table}")').fetchall()
            for column in [str(row[1]) for row in columns]:
                n_changed += _scrub_column(database, table, column, needles)
        if n_changed:
            database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return n_changed


def _scrub_column(database: sqlite3.Connection, table: str, column: str, needles: list[str]) -> int:
    # The names come from the database itself.
    forms = [form for needle in needles for form in (needle, json.dumps(needle)[1:-1])]
    where = " OR ".join(f'instr("{column}", ?)' for _ in forms)
    found = database.execute(
        f'SELECT rowid, "{column}" FROM "{table}" WHERE {where}',  # noqa: S608
        forms,
    ).fetchall()
    changes = [(_scrub_text(str(text), needles), row) for row, text in found]
    database.executemany(
        f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?',  # noqa: S608
        changes,
    )
    return len(changes)


def _scrub_text(text: str, needles: list[str]) -> str:
    try:
        value = cast("object", json.loads(text))
    except ValueError:
        return _scrubbed(text, needles)
    return json.dumps(_scrub_value(value, needles))


def _scrub_value(value: object, needles: list[str]) -> object:
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {key: _scrub_value(entry, needles) for key, entry in items}
    if isinstance(value, list):
        return [_scrub_value(entry, needles) for entry in cast("list[object]", value)]
    return _scrubbed(value, needles) if isinstance(value, str) else value


def _scrubbed(text: str, needles: list[str]) -> str:
    """The text without its lines that name a document."""
    if not any(needle in text for needle in needles):
        return text
    lines = [line for line in text.split("\n") if not any(needle in line for needle in needles)]
    return "\n".join(lines) or REPLACEMENT


def _scrub_logs(folder: Path, needles: list[str]) -> int:
    """Lines of captured output."""
    n_changed = 0
    for file in folder.rglob("*"):
        if file.suffix not in LOG_SUFFIXES or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        if any(needle in text for needle in needles):
            file.write_text(_scrubbed(text, needles), encoding="utf-8", errors="surrogateescape")
            n_changed += 1
    return n_changed
