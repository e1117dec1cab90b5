"""Folds the records of searches into tables, drops old ones, and takes feedback.

Searches leave small objects. Whoever materializes `live_index` or compares the arms of a canary
folds them into `_canary_searches` and `_canary_feedback`: rows first, then the objects go. Killed
in between, the next fold knows the rows by their ids; two folds at once add a row twice, which
reading mends.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.search_log import (
    FEEDBACK,
    SEARCHES,
    FeedbackRecord,
    Record,
    SearchRecord,
    decode_records,
    encode_records,
    hash_uri,
    records_frame,
)
from ragassets.core.tables import TableSpec
from ragassets.errors import ConcurrentWriteError, ConfigurationError

KEEP_DAYS = 90
"""Twice as long as a canary reasonably runs."""

MAX_FOLDED = 10_000
"""Objects of one commit: some 5 MB."""


def fold_search_log(workspace: Workspace, now: datetime) -> int:
    """Move the records of finished searches into their tables; how many objects went.

    Raises:
        StorageUnavailableError: The root cannot be read or written.
    """
    log = workspace.search_log
    n_folded = 0
    while names := log.names(MAX_FOLDED):
        records = [record for data in log.read(names) for record in decode_records(data)]
        searches = [record for record in records if isinstance(record, SearchRecord)]
        feedback = [record for record in records if isinstance(record, FeedbackRecord)]
        _append(workspace, SEARCHES, searches)
        _append(workspace, FEEDBACK, feedback)
        log.delete(names)
        n_folded += len(names)
    if n_folded:
        _expire(workspace, SEARCHES, "searched_at", now)
        _expire(workspace, FEEDBACK, "said_at", now)
    return n_folded


def _append(workspace: Workspace, spec: TableSpec, records: Sequence[Record]) -> None:
    """Add the records that the table does not have yet."""
    known = workspace.tables.read(spec, columns=[spec.key])
    rows = records_frame(spec, records).join(known, on=spec.key, how="anti")
    if rows.height:
        workspace.tables.append(spec, rows)


def _expire(workspace: Workspace, spec: TableSpec, moment: str, now: datetime) -> None:
    """Drop rows that are too old; where somebody else writes, the next fold does."""
    snapshot = workspace.tables.snapshot(spec)
    rows = workspace.tables.read_at(snapshot)
    is_kept = pl.col(moment) >= now - timedelta(days=KEEP_DAYS)
    aliases = rows.filter(~is_kept)["alias"].unique().sort().to_list()
    if not aliases:
        return
    kept = rows.filter(is_kept & pl.col("alias").is_in(aliases))
    try:
        workspace.tables.replace(snapshot, [{"alias": alias} for alias in aliases], kept)
    except ConcurrentWriteError:
        return


def record_feedback(
    workspace: Workspace, search_id: str, uri: str, now: datetime, *, is_relevant: bool = True
) -> FeedbackRecord:
    """Write down that a hit of a search was useful, or was not; the last word about a hit counts.

    Raises:
        ConfigurationError: There is no such search, or the document was none of its hits.
        StorageUnavailableError: The root cannot be read or written.
    """
    alias, hits = _find_search(workspace, search_id)
    hashed = hash_uri(uri)
    if hashed not in hits:
        raise ConfigurationError(
            key="URI",
            value=uri,
            problem=f"is none of the {len(hits)} hits of search {search_id!r}",
            fix="Give the `uri` of a hit as `ragassets search --json` wrote it",
        )
    name = workspace.search_log.new_name(now)
    record = FeedbackRecord(
        feedback_id=name,
        search_id=search_id,
        alias=alias,
        said_at=now.isoformat(),
        uri=hashed,
        rank=hits.index(hashed) + 1,
        is_relevant=is_relevant,
    )
    workspace.search_log.write(name, encode_records([record]))
    return record


def _find_search(workspace: Workspace, search_id: str) -> tuple[str, Sequence[str]]:
    """Alias and hashed hits of a search, folded or not."""
    name = search_id.rpartition(".")[0]
    if name.replace("-", "").isalnum():
        for data in workspace.search_log.read([name]):
            for record in decode_records(data):
                if isinstance(record, SearchRecord) and record.search_id == search_id:
                    return record.alias, record.hit_uris
    rows = workspace.tables.read(
        SEARCHES, columns=["alias", "hit_uris"], where=pl.col("search_id") == search_id
    )
    for alias, hits in rows.head(1).iter_rows():
        return alias, hits
    raise ConfigurationError(
        key="SEARCH_ID",
        value=search_id,
        problem="is no search of a canary that is still known",
        fix=f"Give the `search_id` that a search wrote, within {KEEP_DAYS} days",
    )
