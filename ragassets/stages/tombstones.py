"""Tombstones of documents that were forgotten: written first, they outlive all that they are of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import FORGOTTEN_DOCUMENTS
from ragassets.core.stages import RunContext


@dataclass(frozen=True)
class Named:
    """A document that is to be forgotten, or taken in again."""

    document_id: str
    source: str


def forgotten_documents(workspace: Workspace, source: str | None = None) -> frozenset[str]:
    """Ids of forgotten documents, of one source or of all."""
    place = [{"source": source}] if source else None
    rows = workspace.tables.read(FORGOTTEN_DOCUMENTS, place, columns=["document_id"])
    return frozenset(rows["document_id"])


def write_tombstones(
    workspace: Workspace,
    documents: Sequence[Named],
    context: RunContext,
    *,
    actor: str,
    reason: str,
) -> None:
    """Refuse these documents from now on; what a tombstone says already, it keeps."""
    for source, named in _by_source(documents).items():
        snapshot = workspace.tables.snapshot(FORGOTTEN_DOCUMENTS)
        known = workspace.tables.read_at(snapshot, [{"source": source}])
        rows = [
            {
                "document_id": name,
                "source": source,
                "content_hash": None,
                "actor": actor,
                "reason": reason,
                "forgotten_at": context.now(),
                "run_id": context.run_id,
            }
            for name in sorted(named - set(known["document_id"]))
        ]
        if rows:
            new = pl.DataFrame(rows, schema=FORGOTTEN_DOCUMENTS.schema)
            workspace.tables.replace(snapshot, [{"source": source}], pl.concat([known, new]))


def note_content_hashes(workspace: Workspace, hashes: Mapping[str, str]) -> None:
    """Write the hash of the bytes into tombstones that have none yet.

    Args:
        workspace: Where the tombstones are.
        hashes: Document id to content hash.
    """
    snapshot = workspace.tables.snapshot(FORGOTTEN_DOCUMENTS)
    rows = workspace.tables.read_at(snapshot)
    new = pl.col("document_id").replace_strict(hashes, default=None, return_dtype=pl.String)
    changed = rows.with_columns(pl.coalesce("content_hash", new).alias("content_hash"))
    touched = rows.filter(pl.col("document_id").is_in(list(hashes)))["source"].unique().sort()
    if len(touched) and not changed.equals(rows):
        workspace.tables.replace(
            snapshot,
            [{"source": source} for source in touched],
            changed.filter(pl.col("source").is_in(touched.to_list())),
        )


def remove_tombstones(workspace: Workspace, documents: Sequence[Named]) -> int:
    """Let the next ingestion take these documents in again; how many were forgotten."""
    n_removed = 0
    for source, named in _by_source(documents).items():
        snapshot = workspace.tables.snapshot(FORGOTTEN_DOCUMENTS)
        known = workspace.tables.read_at(snapshot, [{"source": source}])
        kept = known.filter(~pl.col("document_id").is_in(sorted(named)))
        if kept.height < known.height:
            workspace.tables.replace(snapshot, [{"source": source}], kept)
            n_removed += known.height - kept.height
    return n_removed


def _by_source(documents: Collection[Named]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for document in documents:
        found.setdefault(document.source, set()).add(document.document_id)
    return found
