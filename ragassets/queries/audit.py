"""Compares tables, catalog, landing zone and collections in both directions; repairs nothing.

Points are scrolled, never held: memory grows with the ids of one index version's table (about
250 bytes a chunk), not with vectors or payloads.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import (
    CHUNKS,
    CLEAN_DOCUMENTS,
    DEAD_LETTERS,
    DOCUMENT_SIGNATURES,
    EMBEDDINGS,
    INDEX_INTENTS,
    INDEXED_CHUNKS,
    PARSED_DOCUMENTS,
    RAW_DOCUMENTS,
    SOURCE_OBJECTS,
    STAGES,
    UNIQUE_DOCUMENTS,
    VALID_DOCUMENTS,
)
from ragassets.core.stages import SHARD, Stage
from ragassets.stages.build_windows import current_versions
from ragassets.stages.dead_letters import gather_dead_letters
from ragassets.stages.dropped_versions import read_drops

MAX_EXAMPLES = 3

MEANINGS: dict[str, str] = {
    "orphan_points": "points in a collection that no table knows",
    "missing_points": "indexed chunks whose point is not in the collection",
    "stale_points": "points whose payload is not the one that was indexed",
    "orphan_indexed_chunks": "indexed chunks without embedding",
    "orphan_embeddings": "embeddings without chunk",
    "orphan_chunks": "chunks of documents that are gone or duplicates",
    "orphan_documents": "documents in a stage that the stage before no longer has",
    "orphan_dead_letters": "dead letters of documents that are gone or no longer fail",
    "missing_dead_letters": "failures that stand for good without a dead letter",
    "orphan_catalog_rows": "catalog rows of documents that are gone",
    "missing_catalog_rows": "documents without a catalog row",
    "missing_raw_bytes": "documents whose bytes are not in the landing zone",
    "retired_shards": "source shards in tables that the configuration no longer has",
    "leftover_intents": "points that a run was about to write when it died",
    "unfinished_drops": "index versions whose drop was interrupted: `ragassets index drop` again",
}
"""Every check, and what a finding of it is."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    count: int
    examples: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What is counted."""
        return MEANINGS[self.name]


@dataclass(frozen=True)
class Audit:
    """What all checks found."""

    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        """Whether no check found anything."""
        return not any(finding.count for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets audit --json`: fields may be added, none goes."""
        counts = {finding.name: finding.count for finding in self.findings}
        examples = {
            finding.name: list(finding.examples) for finding in self.findings if finding.count
        }
        return {"clean": self.is_clean, **counts, "examples": examples}


def run_audit(workspace: Workspace) -> Audit:
    """Run every check."""
    found: dict[str, Finding] = {name: Finding(name, 0, ()) for name in MEANINGS}
    checks: tuple[Callable[[Workspace], Iterator[Finding]], ...] = (
        _audit_points,
        _audit_chunks,
        _audit_documents,
        _audit_dead_letters,
        _audit_catalog,
        _audit_raw_bytes,
        _audit_leftovers,
    )
    for check in checks:
        found.update((finding.name, finding) for finding in check(workspace))
    return Audit(tuple(found.values()))


def _finding(name: str, things: Iterable[str]) -> Finding:
    ordered = sorted(things)
    return Finding(name, len(ordered), tuple(ordered[:MAX_EXAMPLES]))


# Collections


def _audit_points(workspace: Workspace) -> Iterator[Finding]:
    """Table against collection, for every version that either side has."""
    orphans, missing, stale = list[str](), list[str](), list[str]()
    indexed = workspace.tables.read(INDEXED_CHUNKS.outputs, columns=["index_version"])
    with workspace.vector_store() as store:
        collections = store.list_collections()
        for name in sorted({*collections, *indexed["index_version"].unique()}):
            expected = _indexed_points(workspace, name)
            for point in store.scroll(name) if name in collections else ():
                payload_hash = expected.pop(point.point_id, None)
                if payload_hash is None:
                    orphans.append(f"{name}/{point.point_id}")
                elif payload_hash != point.payload_hash:
                    stale.append(f"{name}/{point.point_id}")
            missing += [f"{name}/{point_id}" for point_id in expected]
    yield _finding("orphan_points", orphans)
    yield _finding("missing_points", missing)
    yield _finding("stale_points", stale)


def _indexed_points(workspace: Workspace, index_version: str) -> dict[str, str]:
    """Point id to payload hash, as the table has them."""
    rows = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{"index_version": index_version}],
        columns=["point_id", "payload_hash"],
    )
    return dict(rows.iter_rows())


# Tables


def _audit_chunks(workspace: Workspace) -> Iterator[Finding]:
    """Indexed chunks need embeddings, embeddings need chunks, chunks need a surviving document.

    Rows that serve only versions which an ingestion does not keep current are left out: they fall
    behind by design, until `ragassets index build` is run for them; `status` counts those. Old rows
    of a document whose new ones are still failing are kept on purpose.
    """
    survivors = _good(workspace, UNIQUE_DOCUMENTS, "document_id", "duplicate_of").filter(
        pl.col("duplicate_of").is_null()
    )
    chunks = _good(workspace, CHUNKS, "chunk_id", "document_id", "chunking")
    embedded = _good(workspace, EMBEDDINGS, "chunk_id", "document_id", "embedding_set")
    indexed = _good(workspace, INDEXED_CHUNKS, "chunk_id", "document_id", "index_version")
    versions = current_versions(workspace)
    chunking_of = {version.embedding_set: version.chunking for version in versions.values()}
    set_of = {name: version.embedding_set for name, version in versions.items()}
    current = chunks.filter(pl.col("chunking").is_in(sorted(set(chunking_of.values()))))
    pending = _pending(workspace)
    yield _finding(
        "orphan_chunks",
        _ids(_kept_out(current.join(survivors, on="document_id", how="anti"), pending)),
    )
    wanted = _under(embedded, "embedding_set", chunking_of, "chunking")
    yield _finding(
        "orphan_embeddings",
        _ids(_kept_out(wanted.join(chunks, on=["chunk_id", "chunking"], how="anti"), pending)),
    )
    wanted = _under(indexed, "index_version", set_of, "embedding_set")
    yield _finding(
        "orphan_indexed_chunks",
        _ids(
            _kept_out(wanted.join(embedded, on=["chunk_id", "embedding_set"], how="anti"), pending)
        ),
    )


def _good(workspace: Workspace, stage: Stage, *columns: str) -> pl.DataFrame:
    return workspace.tables.read(
        stage.outputs, columns=list(columns), where=pl.col("output_hash").is_not_null()
    )


def _under(rows: pl.DataFrame, column: str, mapping: dict[str, str], upstream: str) -> pl.DataFrame:
    """The rows of the mapped names only, with the upstream name that they hang on."""
    known = rows.filter(pl.col(column).is_in(list(mapping)))
    return known.with_columns(
        pl.col(column).replace_strict(mapping, return_dtype=pl.String).alias(upstream)
    )


def _pending(workspace: Workspace) -> pl.DataFrame:
    """Documents with a failure for a passing reason."""
    return pl.concat(
        workspace.tables.read(
            stage.outputs if stage.has_inline_failures else stage.failures,
            columns=["document_id"],
            where=pl.col("failed_input_hash").is_not_null() & pl.col("is_transient"),
        )
        for stage in STAGES
    )


def _kept_out(rows: pl.DataFrame, pending: pl.DataFrame) -> pl.DataFrame:
    return rows.join(pending, on="document_id", how="anti")


def _ids(rows: pl.DataFrame) -> list[str]:
    return rows["chunk_id"].to_list()


def _audit_documents(workspace: Workspace) -> Iterator[Finding]:
    """Every stage's documents are among those of the stage before."""
    orphans: list[str] = []
    upstream = _alive(workspace)
    pending = _pending(workspace)
    for stage in (
        RAW_DOCUMENTS,
        PARSED_DOCUMENTS,
        VALID_DOCUMENTS,
        CLEAN_DOCUMENTS,
        DOCUMENT_SIGNATURES,
        UNIQUE_DOCUMENTS,
    ):
        rows = workspace.tables.read(stage.outputs, columns=["document_id", SHARD, "output_hash"])
        astray = _kept_out(rows.join(upstream, on=["document_id", SHARD], how="anti"), pending)
        orphans += [f"{stage.name}/{name}" for name in astray["document_id"]]
        upstream = rows.drop_nulls("output_hash").select("document_id", SHARD)
    yield _finding("orphan_documents", orphans)


def _alive(workspace: Workspace) -> pl.DataFrame:
    return workspace.tables.read(
        SOURCE_OBJECTS, columns=["document_id", SHARD], where=~pl.col("is_deleted")
    )


def _audit_dead_letters(workspace: Workspace) -> Iterator[Finding]:
    """The dead letters are those that the stages' failures give, of living documents."""
    written = workspace.tables.read(DEAD_LETTERS, columns=["dead_letter_id", "document_id", SHARD])
    shards = sorted({*workspace.config.source_shards(), *written[SHARD].unique()})
    standing = gather_dead_letters(workspace.tables, shards).join(
        _alive(workspace), on="document_id", how="semi"
    )
    orphans = written.join(standing, on="dead_letter_id", how="anti")
    missing = standing.join(written, on="dead_letter_id", how="anti")
    yield _finding("orphan_dead_letters", orphans["dead_letter_id"])
    yield _finding("missing_dead_letters", missing["dead_letter_id"])


# Catalog, landing zone, leftovers


def _audit_catalog(workspace: Workspace) -> Iterator[Finding]:
    """One row for every living document, of its own shard."""
    alive = set(_alive(workspace)["document_id"])
    known = {row.document_id for row in workspace.catalog.documents()}
    yield _finding("orphan_catalog_rows", known - alive)
    yield _finding("missing_catalog_rows", alive - known)


def _audit_raw_bytes(workspace: Workspace) -> Iterator[Finding]:
    """The bytes of every fetched document are there; older ones may be there too."""
    fetched = _good(workspace, RAW_DOCUMENTS, "content_hash")["content_hash"].unique()
    stored = set(workspace.landing_zone.content_hashes()) if len(fetched) else set[str]()
    yield _finding("missing_raw_bytes", set(fetched) - stored)


def _audit_leftovers(workspace: Workspace) -> Iterator[Finding]:
    """What a smaller configuration or a dead run left behind."""
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
    yield _finding("retired_shards", retired)

    intents = workspace.tables.read(INDEX_INTENTS, columns=["index_version", "point_id"])
    yield _finding("leftover_intents", ("/".join(row) for row in intents.iter_rows()))
    drops = read_drops(workspace.tables).values()
    yield _finding("unfinished_drops", (d.index_version for d in drops if d.state == "dropping"))
