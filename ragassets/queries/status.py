"""Where every source and every index version stands."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.config import SourceConfig
from ragassets.core.asset_tables import (
    DEAD_LETTERS,
    FORGOTTEN_DOCUMENTS,
    RAW_DOCUMENTS,
    SOURCE_LISTINGS,
    SOURCE_OBJECTS,
    STAGES,
    UNIQUE_DOCUMENTS,
)
from ragassets.core.incremental import MAX_TRANSIENT_ATTEMPTS
from ragassets.core.stages import Stage
from ragassets.errors import SourceUnavailableError
from ragassets.queries.index_versions import VersionStatus, list_index_versions
from ragassets.queries.json_values import json_value
from ragassets.stages.source_stream import count_behind


@dataclass(frozen=True)
class SourceStatus:
    """One source."""

    documents: int
    """That the source holds, as last listed."""
    unique_documents: int
    duplicates: int
    dead_letters: int
    """Documents with a dead letter at any stage."""
    pending: int
    """Documents that a run would still work on: new, changed, or failed for a passing reason."""
    last_listed_at: datetime | None
    listing_problem: str
    """What kept the last listing from being complete, or its deletions from being done."""
    newest_change_at: datetime | None
    """When a document was last seen to be new, changed or gone."""
    configured: bool
    tenant: str | None = None
    """Whose documents these are, as configured now."""
    forgotten: int = 0
    """Documents that were removed for good, and that no listing brings back."""
    messages_behind: int | None = None
    """Of a stream: messages that are there now and not recorded. None where it is no stream, or
    does not answer."""


@dataclass(frozen=True)
class Status:
    """All sources and index versions."""

    sources: Mapping[str, SourceStatus]
    index_versions: Mapping[str, VersionStatus]

    @property
    def is_ingested(self) -> bool:
        """Whether any source was ever listed."""
        return any(source.last_listed_at is not None for source in self.sources.values())

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets status --json`: fields may be added, none goes."""
        return {
            "sources": json_value(self.sources),
            "index_versions": {
                name: version.as_json() for name, version in self.index_versions.items()
            },
        }


def read_status(workspace: Workspace) -> Status:
    """Read where everything stands; nothing is computed or listed."""
    versions = {entry.index_version: entry for entry in list_index_versions(workspace)}
    sources = {
        name: replace(source, messages_behind=_messages_behind(workspace, name))
        if source.configured
        else source
        for name, source in _source_statuses(workspace).items()
    }
    return Status(sources, versions)


def _messages_behind(workspace: Workspace, name: str) -> int | None:
    """Asked now: what was noted last says nothing when nobody reads any more."""
    try:
        return count_behind(workspace, name)
    except SourceUnavailableError:
        return None


def _source_statuses(workspace: Workspace) -> dict[str, SourceStatus]:
    tables = workspace.tables
    objects = tables.read(
        SOURCE_OBJECTS, columns=["document_id", "source", "etag", "is_deleted", "changed_at"]
    )
    alive = objects.filter(~pl.col("is_deleted")).join(
        _progress(workspace), on="document_id", how="left"
    )
    listings = {row["source"]: row for row in tables.read(SOURCE_LISTINGS).iter_rows(named=True)}
    stones = Counter(tables.read(FORGOTTEN_DOCUMENTS, columns=["source"])["source"])
    configured = workspace.config.sources
    left_over = sorted(set(alive["source"]) - set(configured))
    return {
        name: _source_status(
            alive.filter(pl.col("source") == name),
            objects.filter(pl.col("source") == name),
            listings.get(name),
            configuration=configured.get(name),
            n_forgotten=stones[name],
        )
        for name in [*configured, *left_over]
    }


def _source_status(
    alive: pl.DataFrame,
    objects: pl.DataFrame,
    listing: Mapping[str, object] | None,
    *,
    configuration: SourceConfig | None,
    n_forgotten: int,
) -> SourceStatus:
    is_dead = pl.col("is_dead").fill_null(value=False)
    is_changed = (pl.col("raw_etag") != pl.col("etag")).fill_null(value=False)
    is_settled = pl.col("is_unique").is_not_null() | is_dead
    is_waiting = pl.col("is_retried").fill_null(value=False) | is_changed | ~is_settled
    counts = alive.select(
        unique=pl.col("is_unique").fill_null(value=False).sum(),
        duplicates=(~pl.col("is_unique")).fill_null(value=False).sum(),
        dead=is_dead.sum(),
        pending=is_waiting.sum(),
    ).row(0, named=True)
    return SourceStatus(
        documents=alive.height,
        unique_documents=int(counts["unique"]),
        duplicates=int(counts["duplicates"]),
        dead_letters=int(counts["dead"]),
        pending=int(counts["pending"]),
        last_listed_at=cast("datetime | None", listing and listing["listed_at"]),
        listing_problem=str(listing["message"] or "") if listing else "",
        newest_change_at=cast("datetime | None", objects["changed_at"].max()),
        configured=configuration is not None,
        tenant=configuration.tenant if configuration else None,
        forgotten=n_forgotten,
    )


def _progress(workspace: Workspace) -> pl.DataFrame:
    """How far every known document is, one row each."""
    tables = workspace.tables
    raw = tables.read(RAW_DOCUMENTS.outputs, columns=["document_id", "etag", "output_hash"])
    unique = tables.read(
        UNIQUE_DOCUMENTS.outputs, columns=["document_id", "duplicate_of", "output_hash"]
    )
    dead = tables.read(DEAD_LETTERS, columns=["document_id"])
    retried = pl.concat([_retried(workspace, stage) for stage in STAGES])
    frames = [
        raw.drop_nulls("output_hash").select("document_id", pl.col("etag").alias("raw_etag")),
        unique.drop_nulls("output_hash").select(
            "document_id", pl.col("duplicate_of").is_null().alias("is_unique")
        ),
        dead.select("document_id", pl.lit(value=True).alias("is_dead")),
        retried.select("document_id", pl.lit(value=True).alias("is_retried")),
    ]
    ids = pl.concat([frame.select("document_id") for frame in frames]).unique()
    for frame in frames:
        # A document that moves between shards may have a row in both for a moment.
        ids = ids.join(frame.unique("document_id", keep="any"), on="document_id", how="left")
    return ids


def _retried(workspace: Workspace, stage: Stage) -> pl.DataFrame:
    """Documents with a failure of this stage that the next run tries again."""
    spec = stage.outputs if stage.has_inline_failures else stage.failures
    return workspace.tables.read(
        spec,
        columns=["document_id"],
        where=pl.col("failed_input_hash").is_not_null()
        & pl.col("is_transient")
        & (pl.col("attempts") < MAX_TRANSIENT_ATTEMPTS),
    )
