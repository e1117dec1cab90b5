"""Tables against catalog, dead letters and landing zone, and what a smaller configuration left."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl

from ragassets.adapters.catalog import comparable
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import DEAD_LETTERS, STAGES
from ragassets.core.stages import SHARD, RunContext
from ragassets.queries.audit_findings import Finding, Thing, finding, row_things
from ragassets.queries.audit_rows import alive_documents
from ragassets.stages.build_windows import current_versions
from ragassets.stages.dead_letters import gather_dead_letters
from ragassets.stages.document_catalog import catalog_rows
from ragassets.stages.dropped_versions import read_drops
from ragassets.stages.named_bytes import named_content_hashes

READ_THREADS = 8
"""Reading waits for a disk or a network, not for a core."""


def audit_dead_letters(workspace: Workspace) -> Iterator[Finding]:
    """The dead letters are those that the stages' failures give, of living documents."""
    columns = ["dead_letter_id", "document_id", SHARD]
    written = workspace.tables.read(DEAD_LETTERS, columns=columns)
    shards = sorted({*workspace.config.source_shards(), *written[SHARD].unique()})
    standing = gather_dead_letters(workspace.tables, shards).join(
        alive_documents(workspace), on="document_id", how="semi"
    )
    orphans = written.join(standing, on="dead_letter_id", how="anti")
    missing = standing.join(written, on="dead_letter_id", how="anti")
    yield finding("orphan_dead_letters", row_things(orphans, "dead_letter_id"))
    yield finding("missing_dead_letters", row_things(missing, "dead_letter_id"))


def audit_catalog(workspace: Workspace) -> Iterator[Finding]:
    """One row for every living document, which says what the tables say."""
    alive = {thing.label: thing for thing in row_things(alive_documents(workspace), "document_id")}
    known = {row.document_id: row for row in workspace.catalog.documents()}
    orphans = [known[name] for name in known.keys() - alive.keys()]
    yield finding(
        "orphan_catalog_rows",
        [Thing(o.document_id, document_id=o.document_id, shard=o.source_shard) for o in orphans],
    )
    yield finding("missing_catalog_rows", [alive[name] for name in alive.keys() - known.keys()])
    # Neither the clock nor the run is compared.
    context = RunContext("", lambda: datetime(1970, 1, 1, tzinfo=UTC))
    wanted = catalog_rows(workspace, workspace.config.source_shards(), context)
    wrong = [
        alive[row.document_id]
        for row in wanted
        if row.document_id in known and comparable(row) != comparable(known[row.document_id])
    ]
    yield finding("wrong_catalog_rows", wrong)


def audit_landing_zone(workspace: Workspace) -> Iterator[Finding]:
    """The bytes of every fetched document are there and are those that were fetched.

    Every object is read: a hash tells nothing of bytes that nobody looks at.
    """
    zone = workspace.landing_zone
    named, stored = named_content_hashes(workspace), set(zone.content_hashes())
    there = sorted(named & stored)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        is_whole = list(pool.map(zone.holds, there))
    damaged = [name for name, whole in zip(there, is_whole, strict=True) if not whole]
    yield finding("missing_raw_bytes", [Thing(name, name) for name in named - stored])
    yield finding("damaged_raw_bytes", [Thing(name, name) for name in damaged])
    yield finding("unused_raw_bytes", [Thing(name, name) for name in stored - named])


def unused_raw_bytes(workspace: Workspace) -> list[str]:
    """Hashes of the landing zone that no document has."""
    # First what is stored: bytes are stored before they are named.
    stored = set(workspace.landing_zone.content_hashes())
    return sorted(stored - named_content_hashes(workspace))


def audit_leftovers(workspace: Workspace) -> Iterator[Finding]:
    """What a smaller configuration or an interrupted drop left behind."""
    configured = set(workspace.config.source_shards())
    versions = current_versions(workspace)
    kept_current = {
        "chunking": sorted({version.chunking for version in versions.values()}),
        "embedding_set": sorted({version.embedding_set for version in versions.values()}),
        "index_version": sorted(versions),
    }
    retired: set[str] = set()
    for stage in STAGES:
        rows = workspace.tables.read(stage.outputs, columns=list(stage.partition_by))
        for dimension in set(stage.partition_by) - {SHARD}:
            rows = rows.filter(pl.col(dimension).is_in(kept_current[dimension]))
        retired.update(set(rows[SHARD]) - configured)
    yield finding("retired_shards", [Thing(shard, shard=shard) for shard in retired])
    drops = read_drops(workspace.tables).values()
    names = [drop.index_version for drop in drops if drop.state == "dropping"]
    yield finding("unfinished_drops", [Thing(name, under=name) for name in names])
