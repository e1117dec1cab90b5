"""What `ragassets audit --repair` does: one mend for every finding, by the ordinary stages.

A finding is turned into doubt (`ragassets/stages/doubts.py`), then the stages run as in an
ingestion, without listing the sources. What they do keeps its promises: new points are verified
before old ones go, and the live version answers all the while. Killed anywhere, the next
repair or the next ingestion finishes it.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dagster import DagsterInstance

from ragassets.defs import jobs
from ragassets.defs.ingest import CommandRuns, check_before_work
from ragassets.defs.resources import WorkspaceResource, now
from ragassets.defs.runtime import Progress

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.queries.audit import Audit
    from ragassets.queries.audit_findings import Finding, Thing

POINT_FINDINGS = ("orphan_points", "missing_points", "stale_points", "wrong_vectors")

WAYS_OUT: Mapping[str, str] = {
    "missing_raw_bytes": "the bytes are in neither the landing zone nor the source. Put the file"
    " back, or let the next `ragassets ingest` notice that it is gone; until then the document"
    " stays searchable",
    "damaged_raw_bytes": "the source cannot give the bytes now. Put the file back and repair again;"
    " until then the document stays searchable",
    "unfinished_drops": "Finish it: `ragassets index drop` with its name",
    "retired_shards": "documents of a source that left the configuration are kept: `ragassets"
    " ingest SOURCE --confirm-deletions` removes them",
}
"""What a person can do about what no stage could mend."""

ANY_WAY_OUT = "Run `ragassets ingest`; if it stays, `ragassets why` tells the story of a document"

LEFT_OVER_VERSION = (
    "{names} is dropped or left the configuration, so that nothing can be written there. Remove"
    " what is left with `ragassets index drop`, or configure it again and build it"
)


@dataclass(frozen=True)
class Unmended:
    """A finding that a repair could not mend."""

    finding: "Finding"
    way_out: str


@dataclass(frozen=True)
class RepairReport:
    """What was found, what was mended, and what is still wrong."""

    before: "Audit"
    after: "Audit"
    n_runs: int
    index_versions: frozenset[str]
    """Those that a run may write."""

    @property
    def repaired(self) -> dict[str, int]:
        """By check, how many of the things that were found are in order now."""
        left = {entry.name: set(entry.things) for entry in self.after.findings}
        counts = {e.name: len(set(e.things) - left[e.name]) for e in self.before.findings}
        return {name: count for name, count in counts.items() if count}

    @property
    def unmended(self) -> tuple[Unmended, ...]:
        """What is wrong still, with the way out."""
        return tuple(
            Unmended(entry, _way_out(entry, self.index_versions)) for entry in self.after.damage
        )

    def as_json(self) -> dict[str, object]:
        """The shape of `ragassets audit --json`, of the audit afterwards, with what was done."""
        return {
            **self.after.as_json(),
            "found": {e.name: e.count for e in self.before.findings if e.count},
            "repaired": self.repaired,
            "unrepaired": [
                {
                    "finding": entry.finding.name,
                    "count": entry.finding.count,
                    "examples": list(entry.finding.examples),
                    "way_out": entry.way_out,
                }
                for entry in self.unmended
            ],
            "runs": self.n_runs,
        }


def _way_out(finding: "Finding", index_versions: frozenset[str]) -> str:
    if finding.name in (*POINT_FINDINGS, "leftover_intents"):
        names = {thing.under for thing in finding.things} - index_versions
        if names:
            return LEFT_OVER_VERSION.format(names=", ".join(sorted(names)))
    return WAYS_OUT.get(finding.name, ANY_WAY_OUT)


def audit_as_run(
    resource: WorkspaceResource, instance: DagsterInstance, *, repairs: bool, progress: Progress
) -> RepairReport:
    """Audit as a materialization of `audit`, so that the UI shows it; `repair` says the rest.

    Raises:
        RagAssetsError: Something of a run, not of a document, failed.
    """
    from ragassets.defs.assets.audit import REPORTS

    reports: list[RepairReport] = []
    run_id = str(uuid.uuid4())
    REPORTS[run_id] = reports.append
    try:
        CommandRuns(resource, instance, progress).execute(
            jobs.AUDIT, config={"ops": {"audit": {"config": {"repair": repairs}}}}, run_id=run_id
        )
    finally:
        del REPORTS[run_id]
    return reports[0]


def repair(
    resource: WorkspaceResource, instance: DagsterInstance, *, progress: Progress
) -> RepairReport:
    """Audit, mend, audit again.

    Args:
        resource: The configuration and what it opens.
        instance: Where the runs are recorded.
        progress: Told how far each stage is.

    Raises:
        RagAssetsError: Something of a run, not of a document, failed.
    """
    from ragassets.queries.audit import run_audit

    names = writable_versions(resource.workspace)
    before = run_audit(resource.workspace)
    if not any(entry.count for entry in before.findings):
        return RepairReport(before, before, 0, names)
    check_before_work(resource)
    doubt_findings(resource.workspace, before, now())
    n_runs = _run_stages(resource, instance, before, progress) if before.damage else 0
    _remove_unused_bytes(resource.workspace)
    return RepairReport(before, run_audit(resource.workspace), n_runs, names)


def _run_stages(
    resource: WorkspaceResource, instance: DagsterInstance, found: "Audit", progress: Progress
) -> int:
    """Every stage over all shards: what is in order costs a look."""
    from ragassets.stages.build_windows import current_versions

    writable = writable_versions(resource.workspace)
    named = {
        thing.under
        for entry in found.of(*POINT_FINDINGS, "leftover_intents")
        for thing in entry.things
    }
    wanted = {*current_versions(resource.workspace), *named}
    shards = resource.config.source_shards()
    span = (shards[0], shards[-1])
    runs = CommandRuns(resource, instance, progress)
    runs.execute(jobs.PROCESS_DOCUMENTS, partitions=span)
    runs.execute(jobs.DECIDE_DUPLICATES, partitions=span)
    runs.build([name for name in resource.config.index_versions if name in wanted & writable])
    runs.execute(jobs.MOVE_ALIASES)
    runs.execute(jobs.UPDATE_CATALOG, partitions=span)
    return runs.n_runs


def writable_versions(workspace: "Workspace") -> frozenset[str]:
    """The versions that a run may write: configured, and not dropped."""
    from ragassets.stages.dropped_versions import dropped_names

    return frozenset(workspace.config.index_versions) - dropped_names(workspace.tables)


def doubt_findings(workspace: "Workspace", found: "Audit", moment: datetime) -> None:
    """Make the next runs do again what was found to be wrong.

    Args:
        workspace: Where it was found.
        found: The findings.
        moment: Time of the repair, UTC.
    """
    _doubt_chunks(workspace, found)
    _doubt_vectors(workspace, found)
    _doubt_points(workspace, found)
    _doubt_bytes(workspace, found)
    _clear_catalog(workspace, found, moment)


def _things(found: "Audit", *names: str) -> "list[Thing]":
    return [thing for entry in found.of(*names) for thing in entry.things]


def _doubt_chunks(workspace: "Workspace", found: "Audit") -> None:
    """Chunks of one document are made together, so one that is lost means all of them.

    An embedding without chunk tells of a lost chunk where its document is still there; where it is
    not, there is no chunk to doubt, and the embedding goes.
    """
    import polars as pl

    from ragassets.core.asset_tables import CHUNKS
    from ragassets.stages.doubts import doubt_rows

    documents = {
        thing.document_id
        for thing in _things(
            found, "incomplete_chunks", "altered_chunks", "orphan_embeddings", "missing_chunks"
        )
    }
    if documents:
        doubt_rows(workspace, CHUNKS, pl.col("document_id").is_in(sorted(documents)))


def _doubt_vectors(workspace: "Workspace", found: "Audit") -> None:
    """Where a point and its embedding differ, either may be wrong: the ledger or the model says."""
    import polars as pl

    from ragassets.core.asset_tables import EMBEDDINGS
    from ragassets.core.indexing import chunk_of_point
    from ragassets.stages.doubts import doubt_rows

    unsound = {thing.label for thing in _things(found, "unsound_vectors")}
    wrong = {chunk_of_point(thing.key) for thing in _things(found, "wrong_vectors")}
    if unsound | wrong:
        doubt_rows(workspace, EMBEDDINGS, pl.col("chunk_id").is_in(sorted(unsound | wrong)))


def _doubt_points(workspace: "Workspace", found: "Audit") -> None:
    from ragassets.core.indexing import point_id
    from ragassets.stages.doubts import clear_left_over_version, doubt_points

    by_version: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for thing in _things(found, *POINT_FINDINGS):
        by_version[thing.under][thing.key] = thing.shard
    # A vector that is embedded anew under the same hash would not reach its point by itself.
    sets = {name: v.embedding_set for name, v in workspace.config.index_versions.items()}
    for thing in _things(found, "unsound_vectors"):
        for name in (name for name, embedding_set in sets.items() if embedding_set == thing.under):
            by_version[name][point_id(thing.label)] = thing.shard
    for name, points in by_version.items():
        doubt_points(workspace, name, points)
    intended = {thing.under for thing in _things(found, "leftover_intents")}
    for name in sorted((by_version.keys() | intended) - writable_versions(workspace)):
        clear_left_over_version(workspace, name)


def _doubt_bytes(workspace: "Workspace", found: "Audit") -> None:
    from ragassets.stages.doubts import doubt_raw_bytes

    lost = [thing.key for thing in _things(found, "missing_raw_bytes", "damaged_raw_bytes")]
    if lost:
        doubt_raw_bytes(workspace, lost)


def _clear_catalog(workspace: "Workspace", found: "Audit", moment: datetime) -> None:
    """Rows under shards that no partition covers; the others are written by the stage."""
    from ragassets.core.stages import RunContext
    from ragassets.stages.document_catalog import update_document_catalog

    configured = set(workspace.config.source_shards())
    shards = {thing.shard for thing in _things(found, "orphan_catalog_rows")} - configured
    if shards:
        update_document_catalog(workspace, sorted(shards), RunContext("repair", lambda: moment))


def _remove_unused_bytes(workspace: "Workspace") -> None:
    """Remove what no document has.

    Bytes that a run has fetched and not committed yet may go too: it then fetches them again.
    """
    from ragassets.queries.audit_storage import unused_raw_bytes

    with workspace.landing(*workspace.config.sources):
        for content_hash in unused_raw_bytes(workspace):
            workspace.landing_zone.delete(content_hash)
