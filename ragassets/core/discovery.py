"""From a listing to what is known of a source: new, changed and vanished objects, and the guard.

No deletion follows from a listing that is not complete, nor from one that would remove more than
the configured share of a source, unless that was confirmed.

A source may hold 100,000 objects and is looked at every 30 s, mostly for nothing: all comparisons
are joins of narrow frames, and whole rows are needed only of the shards that change.
"""

import dataclasses
from collections.abc import Collection, Iterable
from datetime import datetime

import polars as pl

from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.fingerprints import document_id
from ragassets.core.incremental import TIMESTAMP
from ragassets.core.sources import Listing, SourceObject
from ragassets.core.stages import SHARD
from ragassets.core.versions import PIPELINE_VERSION
from ragassets.errors import MassDeletionError

ID = "document_id"

KNOWN_COLUMNS = (ID, SHARD, "etag", "is_deleted", "changed_at")
"""What a listing is compared with."""

SHARD_DIGITS = 12
"""Of a document's id, which decide its shard: see `shard_index`."""

LISTED = pl.Schema(
    {
        ID: pl.String(),
        "uri": pl.String(),
        "etag": pl.String(),
        "size_bytes": pl.Int64(),
        "modified_at": TIMESTAMP,
    }
)


LISTED_COLUMNS = tuple(LISTED)


@dataclasses.dataclass(frozen=True)
class Known:
    """What is recorded of a source."""

    rows: pl.DataFrame
    """In `KNOWN_COLUMNS`, tombstones included. Of a listing that is not complete those that it is
    about suffice."""
    n_alive: int
    """Living objects of the source, whether or not `rows` has them."""
    forgotten: Collection[str] = ()
    """Ids of documents that are not taken in, whatever the source says."""


@dataclasses.dataclass(frozen=True)
class EarlierLooks:
    """What was seen of a pass before its last look."""

    spared_since: datetime
    """Objects that appeared or changed since then do not count as vanished: somebody else may have
    recorded them when the pass had gone by their places."""
    seen: pl.Series
    """Ids of the documents that were listed. That they were there is all that counts: what was
    recorded of them meanwhile is newer."""


@dataclasses.dataclass(frozen=True)
class Discovery:
    """What a listing changes."""

    n_objects: int
    n_new: int
    n_changed: int
    n_removed: int
    refusal: MassDeletionError | None
    """Set when the guard kept vanished objects in place."""
    changed_shards: tuple[str, ...]
    """Where a row changes, appears, goes, or moves from or to; sorted."""
    listed: pl.DataFrame
    """New and changed objects, in the columns of `LISTED`."""
    removed: pl.Series
    """Ids of the documents that become tombstones."""
    dropped: pl.Series
    """Ids of the documents that leave no row."""
    misplaced: pl.Series
    """Ids of the documents that lie in a shard of another time."""
    source: str
    n_shards: int
    now: datetime

    def rows_after(self, before: pl.DataFrame) -> pl.DataFrame:
        """The rows of the changed shards, sorted by id.

        Args:
            before: The whole rows of the changed shards, in the columns of `SOURCE_OBJECTS`.
        """
        is_touched = pl.col(ID).is_in(self.listed[ID].implode())
        is_removed = pl.col(ID).is_in(self.removed.implode())
        kept = before.filter(~is_touched & ~pl.col(ID).is_in(self.dropped.implode())).with_columns(
            (pl.col("is_deleted") | is_removed).alias("is_deleted"),
            pl.when(is_removed).then(self._now()).otherwise("changed_at").alias("changed_at"),
            pl.when(is_removed)
            .then(pl.lit(PIPELINE_VERSION))
            .otherwise("pipeline_version")
            .alias("pipeline_version"),
            pl.when(pl.col(ID).is_in(self.misplaced.implode()))
            .then(_shard_of(self.source, self.n_shards))
            .otherwise(SHARD)
            .alias(SHARD),
        )
        first_seen = before.select(ID, "first_seen_at")
        written = self.listed.join(first_seen, on=ID, how="left").with_columns(
            _shard_of(self.source, self.n_shards).alias(SHARD),
            pl.lit(self.source).alias("source"),
            pl.lit(value=False).alias("is_deleted"),
            pl.col("first_seen_at").fill_null(self._now()),
            self._now().alias("changed_at"),
            pl.lit(PIPELINE_VERSION).alias("pipeline_version"),
        )
        columns = list(SOURCE_OBJECTS.schema)
        return pl.concat([kept.select(columns), written.select(columns)]).sort(ID)

    def _now(self) -> pl.Expr:
        return pl.lit(self.now, dtype=TIMESTAMP)


def listed_objects(source: str, objects: Iterable[SourceObject]) -> pl.DataFrame:
    """Objects of a source in the columns of `LISTED`; of several with one name, the last."""
    rows = [
        (document_id(source, entry.uri), entry.uri, entry.etag, entry.size_bytes, entry.modified_at)
        for entry in objects
    ]
    frame = pl.DataFrame(rows, schema=LISTED, orient="row")
    return frame.unique(ID, keep="last", maintain_order=True)


def apply_listing(
    known: Known,
    listing: Listing,
    *,
    source: str,
    n_shards: int,
    now: datetime,
    max_delete_share: float,
    is_confirmed: bool = False,
    earlier: EarlierLooks | None = None,
) -> Discovery:
    """Compare a listing with the known rows of its source.

    Args:
        known: What is recorded.
        listing: What the source said.
        source: The source's name.
        n_shards: Shards of the source, which decide each row's partition.
        now: Time of the listing, UTC.
        max_delete_share: Share of the known, living objects that one listing may remove.
        is_confirmed: Somebody said that the deletions are meant.
        earlier: What earlier looks of the same pass saw.
    """
    is_forgotten = pl.col(ID).is_in(_ids(known.forgotten).implode())
    dropped, rows = known.rows.filter(is_forgotten), known.rows.filter(~is_forgotten)
    listed = listed_objects(source, listing.objects).filter(~is_forgotten)
    alive = rows.filter(~pl.col("is_deleted"))
    seen = earlier.seen.unique() if earlier else _ids(())
    new, changed = listed.join(alive, on=ID, how="anti"), _changed(listed, alive)
    vanished = _vanished(alive, listed, seen, earlier) if listing.is_complete else alive.clear()
    refusal = None
    if not is_confirmed:
        refusal = _guard(
            source,
            n_lost=_n_lost(vanished, _arrived(alive, new, seen, earlier)),
            n_known=known.n_alive,
            is_empty=listed.is_empty() and seen.is_empty(),
            max_delete_share=max_delete_share,
        )
    told = _ids(document_id(source, uri) for uri in listing.deleted).to_frame()
    told_gone = alive.join(told, on=ID, how="semi").join(listed, on=ID, how="anti")
    removed = (told_gone if refusal else pl.concat([told_gone, vanished]))[ID].unique()
    shard = _shard_of(source, n_shards)
    misplaced = rows.filter(pl.col(SHARD) != shard)[ID]
    written = pl.concat([new, changed])
    touched = pl.concat([written[ID], removed, misplaced]).unique().to_frame()
    places = (touched.select(shard.alias(SHARD)), rows.join(touched, on=ID, how="semi"), dropped)
    n_seen = pl.concat([listed[ID], seen]).n_unique()
    return Discovery(
        n_objects=n_seen if listing.is_complete else known.n_alive + new.height - removed.len(),
        n_new=new.height,
        n_changed=changed.height,
        n_removed=removed.len(),
        refusal=refusal,
        changed_shards=tuple(sorted({name for frame in places for name in frame[SHARD]})),
        listed=written,
        removed=removed,
        dropped=dropped[ID],
        misplaced=misplaced,
        source=source,
        n_shards=n_shards,
        now=now,
    )


def _ids(names: Iterable[str]) -> pl.Series:
    return pl.Series(ID, sorted(names), dtype=pl.String)


def _changed(listed: pl.DataFrame, alive: pl.DataFrame) -> pl.DataFrame:
    before = alive.select(ID, pl.col("etag").alias("etag_before"))
    both = listed.join(before, on=ID, how="inner")
    return both.filter(pl.col("etag").ne_missing(pl.col("etag_before"))).select(LISTED_COLUMNS)


def _vanished(
    alive: pl.DataFrame, listed: pl.DataFrame, seen: pl.Series, earlier: EarlierLooks | None
) -> pl.DataFrame:
    gone = alive.join(listed, on=ID, how="anti").join(seen.to_frame(ID), on=ID, how="anti")
    return gone if earlier is None else gone.filter(pl.col("changed_at") < earlier.spared_since)


def _arrived(
    alive: pl.DataFrame, new: pl.DataFrame, seen: pl.Series, earlier: EarlierLooks | None
) -> pl.Series:
    """ETags of the objects that this pass found; what earlier looks found is recorded already."""
    if earlier is None:
        return new["etag"]
    recent = alive.filter(pl.col("changed_at") >= earlier.spared_since)
    return pl.concat([new["etag"], recent.join(seen.to_frame(ID), on=ID, how="semi")["etag"]])


def _n_lost(vanished: pl.DataFrame, arrived: pl.Series) -> int:
    """Vanished objects that were not moved.

    What came back under another name with the same ETag was moved; each arrival excuses one.
    """
    left = vanished.group_by("etag").len("n_left")
    excused = arrived.to_frame("etag").group_by("etag").len("n_arrived")
    both = left.join(excused, on="etag", how="left", nulls_equal=True)
    n_each = pl.col("n_left").cast(pl.Int64) - pl.col("n_arrived").fill_null(0).cast(pl.Int64)
    return int(both.select(n_each.clip(lower_bound=0).sum()).item())


def _shard_of(source: str, n_shards: int) -> pl.Expr:
    """`shard_index` of the ids of a frame, as the name of the partition."""
    digits = pl.col(ID).str.head(SHARD_DIGITS).str.to_integer(base=16)
    return pl.format("{}-{}", pl.lit(source), (digits % n_shards).cast(pl.String).str.zfill(3))


def describe_listing_problem(source: str, problem: str) -> str:
    """What kept a listing from being complete, or its deletions from being done, in one line."""
    name = f"source {source!r}: "
    return f"{name}{problem.removeprefix(name)}"


def _guard(
    source: str, *, n_lost: int, n_known: int, is_empty: bool, max_delete_share: float
) -> MassDeletionError | None:
    """The refusal, if the lost objects are too many.

    One single object may always go, unless it is the last: in a source of three files a share says
    nothing.
    """
    is_single = n_lost == 1 and not is_empty
    if is_single or n_lost <= max_delete_share * n_known:
        return None
    return MassDeletionError(
        source=source, n_removed=n_lost, n_known=n_known, max_share=max_delete_share
    )
