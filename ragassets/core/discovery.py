"""From a listing to what is known of a source: new, changed and vanished objects, and the guard.

No deletion follows from a listing that is not complete, nor from one that would remove more than
the configured share of a source, unless that was confirmed.
"""

import dataclasses
from collections import Counter
from datetime import datetime

import polars as pl

from ragassets.core.asset_tables import SOURCE_OBJECTS
from ragassets.core.fingerprints import document_id, shard_index
from ragassets.core.sources import Listing, SourceObject
from ragassets.core.stages import SHARD
from ragassets.errors import MassDeletionError


@dataclasses.dataclass(frozen=True)
class Discovery:
    """What a listing changes."""

    rows: pl.DataFrame
    """All rows of the source after the listing, in the columns of `SOURCE_OBJECTS`."""
    n_objects: int
    n_new: int
    n_changed: int
    n_removed: int
    refusal: MassDeletionError | None
    """Set when the guard kept vanished objects in place."""


def apply_listing(
    known: pl.DataFrame,
    listing: Listing,
    *,
    source: str,
    n_shards: int,
    now: datetime,
    max_delete_share: float,
    is_confirmed: bool = False,
    spared_since: datetime | None = None,
) -> Discovery:
    """Fold a listing into the known rows of its source.

    Args:
        known: The source's rows of `SOURCE_OBJECTS`, tombstones included.
        listing: What the source said.
        source: The source's name.
        n_shards: Shards of the source, which decide each row's partition.
        now: Time of the listing, UTC.
        max_delete_share: Share of the known, living objects that one listing may remove.
        is_confirmed: Somebody said that the deletions are meant.
        spared_since: Objects that appeared or changed since then do not count as vanished: the
            listing took a while, and passed their places before.
    """
    before = {row["document_id"]: row for row in known.iter_rows(named=True)}
    listed = {document_id(source, entry.uri): entry for entry in listing.objects}
    alive = {name for name, row in before.items() if not row["is_deleted"]}
    vanished = alive - listed.keys() if listing.is_complete else set[str]()
    if spared_since is not None:
        vanished = {name for name in vanished if before[name]["changed_at"] < spared_since}
    new = listed.keys() - alive
    # What came back under another name with the same ETag was moved; each arrival excuses one.
    left = Counter(str(before[name]["etag"]) for name in vanished)
    n_lost = (left - Counter(listed[name].etag for name in new)).total()
    refusal = None
    if not is_confirmed:
        refusal = _guard(
            source,
            n_lost=n_lost,
            n_known=len(alive),
            is_empty=not listed,
            max_delete_share=max_delete_share,
        )
    told = {document_id(source, uri) for uri in listing.deleted} & alive - listed.keys()
    removed = (set[str]() if refusal else vanished) | told
    changed = {name for name in listed.keys() & alive if listed[name].etag != before[name]["etag"]}
    rows = [
        _listed_row(entry, before.get(name), name, source, n_shards, now)
        for name, entry in listed.items()
    ]
    rows += [
        row | {SHARD: _shard(source, name, n_shards)} | _tombstone(now, is_removed=name in removed)
        for name, row in before.items()
        if name not in listed
    ]
    return Discovery(
        rows=pl.DataFrame(rows, schema=SOURCE_OBJECTS.schema, orient="row").sort("document_id"),
        n_objects=len(listed) if listing.is_complete else len(alive | listed.keys()),
        n_new=len(new),
        n_changed=len(changed),
        n_removed=len(removed),
        refusal=refusal,
    )


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


def _shard(source: str, name: str, n_shards: int) -> str:
    return f"{source}-{shard_index(name, n_shards):03d}"


def _listed_row(
    entry: SourceObject,
    before: dict[str, object] | None,
    name: str,
    source: str,
    n_shards: int,
    now: datetime,
) -> dict[str, object]:
    is_same = before is not None and before["etag"] == entry.etag and not before["is_deleted"]
    return {
        "document_id": name,
        "uri": entry.uri,
        "source": source,
        SHARD: _shard(source, name, n_shards),
        "etag": entry.etag,
        "size_bytes": entry.size_bytes,
        "modified_at": entry.modified_at,
        "is_deleted": False,
        "first_seen_at": before["first_seen_at"] if before else now,
        "changed_at": before["changed_at"] if before and is_same else now,
    }


def _tombstone(now: datetime, *, is_removed: bool) -> dict[str, object]:
    return {"is_deleted": True, "changed_at": now} if is_removed else {}
