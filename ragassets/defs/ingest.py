"""An ingestion, a build or a move of an alias as Dagster runs in this process.

The runs go to the project's instance, so the UI shows them with their partitions and metadata.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

import dagster as dg
from dagster import DagsterInstance, ExecuteInProcessResult

# What a failed blocking check raises has no public name.
from dagster._core.errors import DagsterAssetCheckFailedError

from ragassets.core.periods import Window
from ragassets.defs import drop_job, jobs, metadata, replay_job
from ragassets.defs.assets.source_objects import CONFIRM_DELETIONS_TAG, SOURCES_TAG
from ragassets.defs.failures import StepFailure
from ragassets.defs.graph import build_definitions
from ragassets.defs.instance import fail_abandoned_runs, worker_tags
from ragassets.defs.resources import WorkspaceResource, now
from ragassets.defs.runtime import PROGRESS, Progress

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

DOCUMENT_STAGES = (
    *jobs.PHASES[jobs.PROCESS_DOCUMENTS].assets,
    *jobs.PHASES[jobs.DECIDE_DUPLICATES].assets,
)

_QUIET: Mapping[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The UI has the log of every event; a terminal gets progress bars instead."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion did, in the numbers of its materializations."""

    n_runs: int
    n_discovered: int
    counts: Mapping[str, Mapping[str, int]]
    """Asset to count to number, summed over the partitions."""
    n_tried: int
    """Documents that the busiest document stage computed or failed."""
    n_new_dead_letters: int
    """Documents with a dead letter that was not there before."""
    n_dead_letters: int
    """Documents with a dead letter."""
    seconds: float
    problems: tuple[str, ...] = field(default=())
    """What needs attention: refused deletions, sources out of reach, versions not sealed."""
    planned: tuple[str, ...] = field(default=())
    """Versions that are built from recent documents only, as was asked for."""
    n_replayed: int = 0
    """Documents of the window that was asked for: they were fetched again."""
    n_waiting: int = 0
    """Documents that could not be fetched, because their source gives nothing now."""

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets ingest --json`: fields may be added, none goes."""
        count = self._count
        indexed = "indexed_chunks"
        n_new_chunks = count("chunks", metadata.N_NEW_ROWS)
        return {
            "runs": self.n_runs,
            "documents": {
                "discovered": self.n_discovered,
                "computed": max(0, self.n_tried - self.n_new_dead_letters - self.n_waiting),
                "reused": self.n_discovered - min(self.n_discovered, self.n_tried),
                "removed": count("raw_documents", metadata.N_REMOVED),
                "dead_lettered": self.n_new_dead_letters,
                "dead_letters": self.n_dead_letters,
                "replayed": self.n_replayed,
                "waiting": self.n_waiting,
            },
            "chunks": {
                "computed": n_new_chunks,
                "reused": count("chunks", metadata.ROW_COUNT) - n_new_chunks,
                "documents_computed": count("chunks", metadata.N_COMPUTED),
                "documents_reused": count("chunks", metadata.N_REUSED),
                "failed": count("chunks", metadata.N_FAILED),
            },
            "embeddings": {
                "computed": count("embeddings", metadata.N_COMPUTED),
                "reused": count("embeddings", metadata.N_REUSED),
                "removed": count("embeddings", metadata.N_REMOVED),
                "failed": count("embeddings", metadata.N_FAILED),
            },
            "indexed_chunks": {
                "upserted": count(indexed, metadata.N_COMPUTED),
                "reused": count(indexed, metadata.N_REUSED),
                "deleted": count(indexed, metadata.N_REMOVED),
            },
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
            "planned": list(self.planned),
        }

    def _count(self, asset: str, name: str) -> int:
        return self.counts.get(asset, {}).get(name, 0)


def ingest(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    sources: Sequence[str],
    *,
    confirmed: Sequence[str] = (),
    index_versions: Sequence[str] | None = None,
    window: Window | None = None,
    progress: Progress,
) -> IngestReport:
    """Discover, then run every stage up to the index versions.

    Args:
        resource: The configuration and what it opens.
        instance: Where the runs are recorded.
        sources: Sources to ingest; all of them where none is named.
        confirmed: Sources whose deletions are meant, however many.
        index_versions: Versions to bring up to date; when None, those with `backfill: auto`, those
            that an alias serves and those that were begun.
        window: The documents of the sources that changed in this time are fetched again.
        progress: Told how far each stage is.

    Raises:
        RagAssetsError: Something of the run, not of a document, failed.
    """
    config = resource.config
    names = _configured(resource, sources, confirmed)
    check_before_work(resource)
    runs = CommandRuns(resource, instance, progress)
    if window is None:
        runs.execute(
            jobs.OBSERVE_SOURCES,
            tags={
                SOURCES_TAG: ",".join(names),
                **({CONFIRM_DELETIONS_TAG: ",".join(confirmed)} if confirmed else {}),
            },
        )
    else:
        runs.replay(names, window, confirmed)
    # One run takes neighbouring partitions: all of them, or those of one source.
    groups = [names] if len(names) == len(config.sources) else [[name] for name in names]
    for group in groups:
        shards = config.source_shards(*group)
        runs.execute(jobs.PROCESS_DOCUMENTS, partitions=(shards[0], shards[-1]))
    shards = config.source_shards()
    runs.execute(jobs.DECIDE_DUPLICATES, partitions=(shards[0], shards[-1]))
    versions = _versions(resource, index_versions)
    runs.build(versions)
    runs.execute(jobs.MOVE_ALIASES)
    runs.execute(jobs.UPDATE_CATALOG, partitions=(shards[0], shards[-1]))
    return runs.report(names, versions)


def build(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    index_version: str,
    *,
    since: datetime | None = None,
    progress: Progress,
) -> IngestReport:
    """Chunk, embed, index and seal one version from the documents that are there.

    A version that was dropped begins anew.

    Args:
        resource: The configuration and what it opens.
        instance: Where the runs are recorded.
        index_version: Which one.
        since: Only documents modified since then; the others stay planned. None for all.
        progress: Told how far each stage is.

    Raises:
        RagAssetsError: Something of the run, not of a document, failed.
    """
    from ragassets.core.stages import RunContext
    from ragassets.stages.build_windows import begin_version
    from ragassets.stages.dropping import begin_anew

    resource.config.index_version(index_version)
    check_before_work(resource)
    begin_anew(resource.workspace, index_version, RunContext("begun anew", now))
    begin_version(resource.workspace, index_version, now(), since=since)
    runs = CommandRuns(resource, instance, progress)
    runs.build([index_version])
    runs.execute(jobs.MOVE_ALIASES)
    shards = resource.config.source_shards()
    runs.execute(jobs.UPDATE_CATALOG, partitions=(shards[0], shards[-1]))
    return runs.report(list(resource.config.sources), [index_version])


def move_alias(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    *,
    alias: str,
    action: str,
    to_version: str,
    actor: str,
    reason: str,
    is_forced: bool = False,
) -> bool:
    """Promote a version or roll back, as a materialization of `live_index`.

    A move that is refused, or that has nothing to do, starts no run.

    Returns:
        Whether the alias was moved; False where it served that version already.

    Raises:
        ConfigurationError: The move is forced without a reason.
        IndexVersionError: The move is not allowed.
        UnknownNameError: There is no such alias, version or action.
    """
    from ragassets.stages.live_index import plan_move

    move = {
        "alias": alias,
        "action": action,
        "to_version": to_version,
        "actor": actor,
        "reason": reason,
    }
    if plan_move(resource.workspace, **move, is_forced=is_forced) is None:
        return False
    _change_alias(resource, instance, {**move, "is_forced": is_forced})
    return True


def change_canary(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    *,
    alias: str,
    index_version: str,
    share: float | None,
    actor: str,
    reason: str,
    is_forced: bool = False,
) -> bool:
    """Begin, change or end (`share` None) a canary, as a materialization of `live_index`.

    A change that is refused, or that has nothing to do, starts no run. See
    `stages.canaries.change_canary` for the rules and the errors.

    Returns:
        Whether anything was changed.
    """
    from ragassets.stages.canaries import plan_canary

    asked = {"alias": alias, "actor": actor, "reason": reason, "is_forced": is_forced}
    planned = plan_canary(
        resource.workspace,
        alias=alias,
        index_version=index_version,
        share=share,
        actor=actor,
        reason=reason,
        is_forced=is_forced,
    )
    if planned is None:
        return False
    asked |= {"action": planned.action, "to_version": index_version, "share": share or 0.0}
    _change_alias(resource, instance, asked)
    return True


def _change_alias(
    resource: WorkspaceResource, instance: DagsterInstance, asked: Mapping[str, object]
) -> None:
    runs = CommandRuns(resource, instance, lambda _stage, _done, _total: None)
    runs.execute(jobs.MOVE_ALIASES, config={"ops": {"live_index": {"config": dict(asked)}}})


def drop_versions(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    index_versions: Sequence[str],
    *,
    actor: str,
    reason: str,
    is_now: bool = False,
) -> None:
    """Drop versions now; a drop that is refused starts no run.

    Args:
        resource: The configuration and what it opens.
        instance: Where the run is recorded.
        index_versions: Which ones; they need not be configured any more.
        actor: Who asks.
        reason: Why; has to be said with `is_now`.
        is_now: Also those within their retention.

    Raises:
        ConfigurationError: `is_now` without a reason.
        IndexVersionError: An alias uses one of them, or served it within the retention time.
        UnknownNameError: Nothing is known of one of them.
    """
    from ragassets.stages.dropping import check_droppable

    for name in index_versions:
        check_droppable(resource.workspace, name, now(), is_now=is_now, reason=reason)
    if not index_versions:
        return
    runs = CommandRuns(resource, instance, lambda _stage, _done, _total: None)
    request = drop_job.DropRequest(
        index_versions=list(index_versions), actor=actor, reason=reason, is_now=is_now
    )
    runs.execute(drop_job.DROP_INDEX_VERSIONS, config=drop_job.run_config(request))


class CommandRuns:
    """Executes the jobs of one command and adds up what they report."""

    def __init__(
        self, resource: WorkspaceResource, instance: DagsterInstance, progress: Progress
    ) -> None:
        self.resource, self.instance, self.progress = resource, instance, progress
        self.definitions = build_definitions(resource.config)
        self.started = time.monotonic()
        self.n_runs = 0
        self.has_listed = False
        self.n_replayed = 0
        self.counts: dict[str, dict[str, int]] = {}
        self.tried_by_shard: dict[str, dict[str, int]] = {}
        fail_abandoned_runs(instance)

    def replay(self, sources: Sequence[str], window: Window, confirmed: Sequence[str]) -> None:
        """List the sources, and have their documents of a window fetched again by what follows."""
        from ragassets.stages.replay import documents_in_window

        request = replay_job.ReplayRequest(
            since=window.since.isoformat(),
            until=window.until.isoformat() if window.until else "",
            sources=list(sources),
            confirm_deletions=list(confirmed),
        )
        self.execute(replay_job.REPLAY_WINDOW, config=replay_job.run_config(request))
        self.n_replayed = len(documents_in_window(self.resource.workspace, sources, window))

    def build(self, versions: Sequence[str]) -> None:
        """Bring index versions up to date, from chunks to the seal; shared steps run once."""
        config = self.resource.config
        shards = config.source_shards()
        wanted = [config.index_version(name) for name in versions]

        def span(dimension: str, key: str) -> tuple[str, str]:
            first, last = (
                dg.MultiPartitionKey({"source_shard": shard, dimension: key})
                for shard in (shards[0], shards[-1])
            )
            return first, last

        for chunking in dict.fromkeys(version.chunking for version in wanted):
            self.execute(jobs.CHUNK_DOCUMENTS, partitions=span("chunking", chunking))
        for name in dict.fromkeys(version.embedding_set for version in wanted):
            self.execute(jobs.EMBED_CHUNKS, partitions=span("embedding_set", name))
        for name in versions:
            self.execute(jobs.INDEX_CHUNKS, partitions=span("index_version", name))
            self.execute(jobs.SEAL_INDEX_VERSIONS, partitions=(name, name))

    def execute(
        self,
        job: str,
        *,
        partitions: tuple[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, object] | None = None,
        run_id: str | None = None,
    ) -> None:
        """Run one job over a range of partitions and count what it did.

        Raises:
            RagAssetsError: What stopped a step.
        """
        key, span = None, dict[str, str]()
        if partitions is not None and job == jobs.SEAL_INDEX_VERSIONS:
            key = partitions[0]  # asset checks know their partition only where a run has one
        elif partitions is not None:
            span = {RANGE_START_TAG: partitions[0], RANGE_END_TAG: partitions[1]}
        run_id = run_id or str(uuid.uuid4())
        PROGRESS[run_id] = self.progress
        try:
            result = self.definitions.resolve_job_def(job).execute_in_process(
                run_config={**_QUIET, **(config or {})},
                instance=self.instance,
                run_id=run_id,
                partition_key=key,
                tags={**worker_tags(), **span, **(tags or {})},
            )
        except StepFailure as failure:
            raise failure.error from failure
        except DagsterAssetCheckFailedError:
            # A version that is not sealed: its row says why, and the others go on.
            self.n_runs += 1
            return
        finally:
            del PROGRESS[run_id]
        self.n_runs += 1
        self.has_listed |= job in (jobs.OBSERVE_SOURCES, replay_job.REPLAY_WINDOW)
        self._count(result)

    def _count(self, result: ExecuteInProcessResult) -> None:
        for event in result.all_events:
            if not event.is_step_materialization:
                continue
            made = event.step_materialization_data.materialization
            asset = made.asset_key.to_user_string()
            counts = self.counts.setdefault(asset, {})
            values = {
                name: value.value
                for name, value in made.metadata.items()
                if isinstance(value, dg.IntMetadataValue) and value.value is not None
            }
            for name, value in values.items():
                counts[name] = counts.get(name, 0) + value
            if asset in DOCUMENT_STAGES and made.partition:
                tried = values.get(metadata.N_COMPUTED, 0) + values.get(metadata.N_NEWLY_FAILED, 0)
                self.tried_by_shard.setdefault(made.partition, {})[asset] = tried

    def report(self, sources: Sequence[str], versions: Sequence[str]) -> IngestReport:
        """Add up, and ask the tables what needs attention."""
        from ragassets.core.asset_tables import SOURCE_LISTINGS, SOURCE_OBJECTS
        from ragassets.core.discovery import describe_listing_problem
        from ragassets.stages.source_witness import waiting_documents

        tables = self.resource.workspace.tables
        objects = tables.read(SOURCE_OBJECTS, columns=["source", "is_deleted"])
        alive = objects.filter(~objects["is_deleted"] & objects["source"].is_in(list(sources)))
        listings = tables.read(SOURCE_LISTINGS, [{"source": name} for name in sources])
        letters = self.counts.get("dead_letters", {})
        problems = [
            describe_listing_problem(source, message)
            for source, message in listings.select("source", "message").iter_rows()
            if message
        ]
        waiting = waiting_documents(tables, sources)
        problems += map(str, waiting)
        return IngestReport(
            n_runs=self.n_runs,
            n_discovered=int(listings["n_objects"].sum()) if self.has_listed else alive.height,
            counts=self.counts,
            n_tried=sum(max(tried.values()) for tried in self.tried_by_shard.values()),
            n_new_dead_letters=letters.get(metadata.N_NEW_DOCUMENTS, 0),
            n_dead_letters=letters.get(metadata.N_DOCUMENTS, 0),
            n_replayed=self.n_replayed,
            n_waiting=sum(one.n_documents for one in waiting),
            seconds=time.monotonic() - self.started,
            problems=(*problems, *_removed(self.resource), *_unsealed(self.resource, versions)),
            planned=tuple(_planned(self.resource, versions).values()),
        )


def _configured(
    resource: WorkspaceResource, sources: Sequence[str], confirmed: Sequence[str]
) -> list[str]:
    """The named sources, all where none is named; one that left the configuration may be confirmed.

    Raises:
        UnknownNameError: There is no source of that name.
    """
    from ragassets.stages.retired_shards import removed_sources

    configured = resource.config.sources
    if unknown := [name for name in (*sources, *confirmed) if name not in configured]:
        removed = removed_sources(resource.workspace)
        for name in unknown:
            if name not in removed or name not in confirmed:
                resource.config.source(name)
    named = [name for name in dict.fromkeys(sources) if name in configured]
    return named if named and len(named) < len(configured) else list(configured)


def check_before_work(resource: WorkspaceResource) -> None:
    """Find what is wrong now, not after an hour of embedding.

    Raises:
        ConfigurationError: A file of golden queries cannot be used, or a name in the configuration
            stands for something else than what was built under it.
    """
    from ragassets.stages.golden_queries import check_golden_queries
    from ragassets.stages.recorded_settings import check_recorded_settings

    check_recorded_settings(resource.workspace)
    check_golden_queries(resource.workspace)


def _versions(resource: WorkspaceResource, named: Sequence[str] | None) -> list[str]:
    """The named versions, else all that are kept current; `auto` ones with all documents."""
    from ragassets.stages.build_windows import begin_version, current_versions

    if named is not None:
        return list(named)
    current = current_versions(resource.workspace)
    for name, version in current.items():
        if version.backfill == "auto":
            begin_version(resource.workspace, name, now())
    return list(current)


def _removed(resource: WorkspaceResource) -> list[str]:
    """A line for every source that left the configuration and whose documents are still kept."""
    from ragassets.stages.retired_shards import describe_removed_source, removed_sources

    return [describe_removed_source(*item) for item in removed_sources(resource.workspace).items()]


def _unsealed(resource: WorkspaceResource, versions: Iterable[str]) -> list[str]:
    """A line for every version that could not be sealed."""
    from ragassets.stages.index_versions import FAILED_GATES, SEALED
    from ragassets.stages.judgement import last_seal

    meant = _planned(resource, versions)
    seals = {name: last_seal(resource.workspace, name) for name in versions if name not in meant}
    lines: list[str] = []
    for name, seal in seals.items():
        if seal is None or seal["state"] == SEALED:
            continue
        is_whole = seal["state"] == FAILED_GATES
        found = cast("list[object]", seal["failed_gates" if is_whole else "problems"] or [])
        verdict = "failed its gates" if is_whole else "is incomplete"
        lines.append(f"index version {name!r} {verdict}: {'; '.join(map(str, found))}")
    return lines


def _planned(resource: WorkspaceResource, versions: Iterable[str]) -> dict[str, str]:
    """A line for every version that holds the documents of a window only, as somebody asked."""
    from ragassets.stages.build_windows import begun_versions

    windows = begun_versions(resource.workspace)
    starts = {name: windows[name].since for name in versions if name in windows}
    return {
        name: f"index version {name!r} holds the documents since {since:%Y-%m-%d %H:%M} UTC; the"
        f" others are planned: `ragassets index build {name}`"
        for name, since in starts.items()
        if since is not None
    }
