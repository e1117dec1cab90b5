"""What a person sees of a stage's partition in the UI: counts, totals, first rows and failures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs import metadata
from ragassets.defs.metadata import Metadata
from ragassets.defs.partitions import SHARD
from ragassets.defs.resources import WorkspaceResource

if TYPE_CHECKING:
    import polars as pl

    from ragassets.core.stages import Stage, StageReport

PREVIEW_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "raw_documents": ("uri", "size_bytes", "content_hash"),
    "parsed_documents": ("uri", "media_type", "parser", "n_pages", "title"),
    "valid_documents": ("uri", "language", "language_confidence", "n_words"),
    "clean_documents": ("uri", "title", "language", "n_chars", "n_removed"),
    "_document_signatures": ("uri", "n_shingles", "text_hash"),
    "unique_documents": ("uri", "duplicate_of", "similarity"),
    "chunks": ("uri", "page", "n_tokens", "text"),
    "embeddings": ("uri", "chunk_id"),
    "indexed_chunks": ("uri", "chunk_id", "point_id"),
}

TOTALS: Mapping[str, str] = {
    "size_bytes": "n_bytes",
    "n_pages": "n_pages",
    "n_words": "n_words",
    "n_chars": "n_chars",
    "n_tokens": "n_tokens",
}
"""Columns that are added up, and the metadata key of the sum."""

SHARDS_PER_READ = 32
"""One read a shard would make an idle run over 1,000 shards slow; all at once would fill memory."""


def stage_metadata(
    resource: WorkspaceResource,
    stage: "Stage",
    reports: Mapping[str, "StageReport"],
    dimension: Mapping[str, str],
    *,
    seconds: float,
) -> dict[str, Metadata]:
    """Metadata of a stage's partitions, by source shard.

    Args:
        resource: Opens the tables.
        stage: The stage.
        reports: What was done, by source shard.
        dimension: The other dimension of the partitions and its key, if there is one.
        seconds: How long all of it took.
    """
    made: dict[str, Metadata] = {}
    shards = list(reports)
    for start in range(0, len(shards), SHARDS_PER_READ):
        group = shards[start : start + SHARDS_PER_READ]
        rows = _rows(resource, stage, group, dimension)
        failures = _failures(resource, stage, group, dimension, reports)
        for shard in group:
            made[shard] = {
                **_counts(reports[shard]),
                **_totals(rows[shard]),
                metadata.SECONDS: round(seconds, 3),
                metadata.N_PARTITIONS: len(reports),
                metadata.TABLE: table_path(resource, stage.name),
                metadata.PREVIEW: metadata.markdown_table(
                    rows[shard].sort("uri").head(metadata.PREVIEW_ROWS).to_dicts()
                ),
                **_failure_table(failures[shard]),
            }
    return made


def table_path(resource: WorkspaceResource, name: str) -> dg.PathMetadataValue:
    """Where a table lies, for any reader of Delta tables."""
    return dg.PathMetadataValue(f"{resource.config.root}/tables/{name}")


def _counts(report: "StageReport") -> Metadata:
    return {
        metadata.N_INPUTS: report.n_inputs,
        metadata.N_COMPUTED: report.n_computed,
        metadata.N_REUSED: report.n_reused,
        metadata.N_REMOVED: report.n_removed,
        metadata.N_FAILED: report.n_failed,
        metadata.N_NEWLY_FAILED: report.n_newly_failed,
        metadata.ROW_COUNT: report.n_rows,
        metadata.N_NEW_ROWS: report.n_new_rows,
        **({metadata.N_TAKEN_OVER: report.n_taken_over} if report.n_taken_over else {}),
    }


def _totals(rows: "pl.DataFrame") -> Metadata:
    return {TOTALS[name]: int(rows[name].sum()) for name in rows.columns if name in TOTALS}


def _failure_table(failures: "pl.DataFrame") -> Metadata:
    if failures.is_empty():
        return {}
    return {metadata.FAILURES: metadata.markdown_table(failures.to_dicts())}


def _rows(
    resource: WorkspaceResource, stage: "Stage", shards: Sequence[str], dimension: Mapping[str, str]
) -> dict[str, "pl.DataFrame"]:
    """The good rows of each shard, in the columns of the preview."""
    import polars as pl

    columns = PREVIEW_COLUMNS[stage.name]
    rows = resource.workspace.tables.read(
        stage.outputs,
        _partitions(shards, dimension),
        columns=[SHARD, *columns],
        where=pl.col("output_hash").is_not_null(),
    )
    return _by_shard(rows, shards)


def _failures(
    resource: WorkspaceResource,
    stage: "Stage",
    shards: Sequence[str],
    dimension: Mapping[str, str],
    reports: Mapping[str, "StageReport"],
) -> dict[str, "pl.DataFrame"]:
    """What failed in each shard, and why."""
    import polars as pl

    failing = [shard for shard in shards if reports[shard].n_failed]
    rows = resource.workspace.tables.read(
        stage.outputs if stage.has_inline_failures else stage.failures,
        _partitions(failing, dimension),
        columns=[SHARD, "uri", "error_reason", "error_message"],
        where=pl.col("failed_input_hash").is_not_null(),
    )
    return _by_shard(rows, shards)


def _by_shard(rows: "pl.DataFrame", shards: Sequence[str]) -> dict[str, "pl.DataFrame"]:
    parts = {str(shard): part for (shard,), part in rows.partition_by(SHARD, as_dict=True).items()}
    return {shard: parts.get(shard, rows.clear()).drop(SHARD) for shard in shards}


def _partitions(shards: Sequence[str], dimension: Mapping[str, str]) -> list[dict[str, str]]:
    return [{SHARD: shard, **dimension} for shard in shards]
