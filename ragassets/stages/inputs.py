"""What stages read of each other: the good rows of an upstream stage, narrow or wide."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from ragassets.core.incremental import with_input_hash
from ragassets.core.stages import SHARD, Stage
from ragassets.core.tables import Tables


def partitions_of(shards: Sequence[str], **dimensions: str) -> list[dict[str, str]]:
    """One partition a shard, with the other dimensions fixed."""
    return [{SHARD: shard, **dimensions} for shard in shards]


def good_rows(
    tables: Tables,
    stage: Stage,
    shards: Sequence[str],
    columns: Sequence[str],
    *,
    where: pl.Expr | None = None,
    **dimensions: str,
) -> pl.DataFrame:
    """Output rows of some shards, failed ones left out."""
    good = pl.col("output_hash").is_not_null()
    return tables.read(
        stage.outputs,
        partitions_of(shards, **dimensions),
        columns=list(dict.fromkeys([*columns, "output_hash"])),
        where=good if where is None else good & where,
    )


def with_source_input_hash(
    inputs: pl.DataFrame, fingerprints: Mapping[str, str], *columns: str
) -> pl.DataFrame:
    """Add `input_hash` where the fingerprint depends on the row's source.

    Args:
        inputs: Rows with `source` and the columns.
        fingerprints: Of every source that the rows may have.
        columns: Upstream fields that decide the output.
    """
    keyed = inputs.with_columns(
        pl.col("source").replace_strict(fingerprints, return_dtype=pl.String).alias("_fingerprint")
    )
    return with_input_hash(keyed, "", "_fingerprint", *columns).drop("_fingerprint")


def rows_in_batches(
    tables: Tables,
    stage: Stage,
    keys: Sequence[str],
    shards: Sequence[str],
    columns: Sequence[str],
    *,
    batch_size: int,
    **dimensions: str,
) -> Iterator[pl.DataFrame]:
    """The good rows of the given keys, read a shard at a time and cut into batches."""
    where = pl.col(stage.key).is_in(list(keys))
    for shard in shards:
        rows = good_rows(tables, stage, [shard], columns, where=where, **dimensions)
        yield from rows.iter_slices(batch_size)
