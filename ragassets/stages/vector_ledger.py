"""Upkeep of the vector ledger: what nobody needs goes after a while, and what must go goes now."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import EMBEDDINGS
from ragassets.core.incremental import input_hash
from ragassets.core.vector_ledger import LEDGER_UPKEEP, UNUSED_VECTORS, VECTOR_LEDGER

UPKEEP_INTERVAL = timedelta(days=1)
"""Looking for unused vectors reads every hash once: too much for each run, little for each day."""

RETENTION_HOURS = 24
"""Merged files stay for a lookup that began before the merge; lookups take seconds, not days."""

_PRUNE = "prune"


def forget_vectors(workspace: Workspace, text_hashes: Collection[str]) -> int:
    """Take the vectors of these texts out of the ledger, of all models; how many rows went.

    Killed in between, a second call takes out the rest. Only the newest version of the table is
    without them: files of earlier versions stay until `DeltaTables.maintain` deletes them, so
    whoever has to prove that they are gone maintains `VECTOR_LEDGER` (`compacts=False`) afterwards.

    Raises:
        ConcurrentWriteError: Others wrote to the same partitions all the while.
    """
    n_gone = workspace.ledger.forget(text_hashes)
    snapshot = workspace.tables.snapshot(UNUSED_VECTORS)
    rows = workspace.tables.read_at(snapshot)
    is_gone = pl.col("text_hash").is_in(list(text_hashes))
    models = rows.filter(is_gone)["model"].unique().sort()
    if len(models):
        kept = rows.filter(pl.col("model").is_in(models.to_list()) & ~is_gone)
        workspace.tables.replace(snapshot, [{"model": model} for model in models], kept)
    return n_gone


def keep_ledger_in_bounds(workspace: Workspace, now: datetime) -> int:
    """Once a day, drop the vectors that nothing had for `ledger.keep_days`; how many.

    A vector is unused from the first look that finds no embedding made from it. Killed anywhere,
    the next look starts again and ends the same, apart from when it saw a vector unused first.
    """
    snapshot = workspace.tables.snapshot(LEDGER_UPKEEP)
    done = workspace.tables.read_at(snapshot)["done_at"].max()
    if done is not None and now - cast("datetime", done) < UPKEEP_INTERVAL:
        return 0
    keep = timedelta(days=workspace.config.ledger.keep_days)
    n_dropped = sum(_prune(workspace, model, now, keep) for model in workspace.ledger.models())
    workspace.tables.maintain(VECTOR_LEDGER, retention_hours=RETENTION_HOURS, compacts=False)
    row = pl.DataFrame({"task": [_PRUNE], "done_at": [now]}, schema=LEDGER_UPKEEP.schema)
    workspace.tables.replace(snapshot, [{"task": _PRUNE}], row)
    return n_dropped


def _prune(workspace: Workspace, model: str, now: datetime, keep: timedelta) -> int:
    """Note since when vectors of a model are unused, and drop those that are so for too long."""
    place = {"model": model}
    snapshot = workspace.tables.snapshot(UNUSED_VECTORS)
    before = workspace.tables.read_at(snapshot, [place])
    since = (
        pl.concat([_unused(workspace, model), UNUSED_VECTORS.empty_frame(["text_hash"])])
        .unique()
        .join(before.drop("model"), on="text_hash", how="left")
        .with_columns(pl.col("unused_since").fill_null(now), pl.lit(model).alias("model"))
    )
    is_over = pl.col("unused_since") <= now - keep
    expired = since.filter(is_over)["text_hash"].to_list()
    n_dropped = workspace.ledger.forget(expired, model=model) if expired else 0
    staying = since.filter(~is_over).sort("text_hash")
    if staying.height or before.height:
        workspace.tables.replace(snapshot, [place], staying)
    return n_dropped


def _unused(workspace: Workspace, model: str) -> pl.DataFrame:
    """`text_hash` of the model's vectors that no row of `embeddings` is made from.

    Memory grows with the hashes of the embeddings, 100 bytes each, not with the vectors.
    """
    standing = workspace.tables.read(EMBEDDINGS.outputs, columns=["input_hash"]).unique()
    found = [pl.DataFrame(schema={"text_hash": pl.String})]
    for part in workspace.ledger.hashes(model):
        names = [input_hash(model, text) for text in part["text_hash"]]
        keyed = part.with_columns(pl.Series("input_hash", names, dtype=pl.String))
        found.append(keyed.join(standing, on="input_hash", how="anti").select("text_hash"))
    return pl.concat(found)
