"""What makes documents arrive by themselves: sensors and schedules of the sources.

A source with `sensor: true` has a sensor that lists it, a source with a `schedule` has a schedule
that does. Both only record what the source holds. One more sensor asks for the shards whose
documents are not what the sources hold, whoever recorded it: so a crash between the two loses
nothing. What follows on the documents is `automation.py`'s business.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter

from ragassets.config import Config
from ragassets.core.source_settings import SensorConfig
from ragassets.defs import jobs
from ragassets.defs.assets.source_objects import NAME as SOURCE_OBJECTS
from ragassets.defs.assets.source_objects import SOURCES_TAG, shown_discovery
from ragassets.defs.automation import is_command_at_work
from ragassets.defs.events import DATA_VERSION_TAG
from ragassets.defs.resources import WorkspaceResource, now
from ragassets.errors import ConcurrentWriteError, ConfigurationError, SourceUnavailableError

if TYPE_CHECKING:
    from ragassets.stages.source_objects import SourceDiscovery
    from ragassets.stages.source_watch import WatchCursor

PROCESS_SENSOR = "process_changed_documents"

PROCESS_SECONDS = 10
"""Between two looks at the tables; over 100,000 documents one takes half a second."""

MAX_RUNS_PER_TICK = 25
"""A burst over a thousand shards is asked for in portions, so that what a person starts meanwhile
is not behind all of it in the queue."""

MAX_TRIES = 5
FIRST_RETRY = timedelta(minutes=1)
"""A run that failed as a whole is asked for again after 1, 4, 16 and 64 minutes; then it waits for
a change of its shard, or a person."""

RUN_KEY_TAG = "dagster/run_key"

RUN_TAGS = {
    # After what a command or a person starts, before builds of index versions.
    "dagster/priority": "-1"
}

UNFINISHED = frozenset(
    {
        DagsterRunStatus.QUEUED,
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    }
)


def build_source_sensors(config: Config) -> list[dg.SensorDefinition]:
    """One for every watched source, and the one that asks for changed shards."""
    watched = {
        name: watching
        for name, source in config.sources.items()
        if (watching := source.watching) is not None
    }
    sensors = [_watch(name, watching) for name, watching in watched.items()]
    return [*sensors, _process_changes(config)]


def build_source_schedules(config: Config) -> list[dg.ScheduleDefinition]:
    """One for every source that has a schedule, or a queue: what no event told is found nightly.

    Raises:
        ConfigurationError: A schedule is no cron expression.
    """
    return [
        _schedule(name, cron, source.timezone)
        for name, source in config.sources.items()
        if (cron := source.listing_schedule) is not None
    ]


def _watch(name: str, watching: SensorConfig) -> dg.SensorDefinition:
    @dg.sensor(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
        name=f"watch_{identifier(name)}",
        asset_selection=[SOURCE_OBJECTS],
        minimum_interval_seconds=watching.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Records what is new, changed or gone in the source {name!r}: "
        + (f"reads the events in {watching.queue}." if watching.queue else "lists it."),
    )
    def watch(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.SensorResult:
        from ragassets.stages.source_troubles import end_trouble, note_trouble

        try:
            found, cursor = _look(workspace, name, context.cursor)
        except (ConcurrentWriteError, SourceUnavailableError) as error:
            context.log.warning("%s: %s", name, error)
            if isinstance(error, SourceUnavailableError):
                note_trouble(workspace.workspace, name, str(error), now())
            return dg.SensorResult(skip_reason=f"The next tick goes on from here: {error}")
        end_trouble(workspace.workspace, name)
        for problem in dict.fromkeys(one.problem for one in found if one.problem):
            context.log.error("%s: %s", name, problem)
        return dg.SensorResult(
            skip_reason=_said(found, cursor),
            cursor=cursor.dump(),
            asset_events=list(_observations(found)),
        )

    return watch


def _look(
    resource: WorkspaceResource, name: str, cursor: str | None
) -> tuple[list["SourceDiscovery"], "WatchCursor"]:
    """Take the source's events, or list it where it has no queue or was never listed.

    A web site is left alone for some time after each crawl.
    """
    from ragassets.stages.source_watch import WatchCursor, look, take_events, was_listed

    workspace = resource.workspace
    queue = workspace.event_queue(name)
    if queue is not None and was_listed(workspace, name):
        return take_events(workspace, name, queue, now=now()), WatchCursor()
    before = WatchCursor.parse(cursor)
    if before.rests(now()):
        return [], before
    found, after = look(workspace, name, before, now=now())
    return [found], after.resting(workspace.config.source(name).rest_seconds, now())


def _said(found: Sequence["SourceDiscovery"], cursor: "WatchCursor") -> str:
    if not found and cursor.rests_until:
        return f"the next crawl begins at {cursor.rests_until}"
    n_new, n_changed, n_removed = (
        sum(getattr(one, field) for one in found) for field in ("n_new", "n_changed", "n_removed")
    )
    problems = [one.problem for one in found if one.problem]
    rest = ["the listing goes on in the next tick"] if cursor.pass_id else []
    counts = f"{n_new} new, {n_changed} changed, {n_removed} gone"
    behind = [f"{one.n_behind} messages behind" for one in found[-1:] if one.n_behind is not None]
    return "; ".join([counts, *behind, *rest, *problems[:1]])


def _observations(found: Sequence["SourceDiscovery"]) -> Iterator[dg.AssetObservation]:
    """One for each shard that changed, as the last listing that changed it left it."""
    last = {shard: one for one in found for shard in one.changed_shards}
    for shard, one in last.items():
        yield dg.AssetObservation(
            SOURCE_OBJECTS,
            partition=shard,
            metadata=dict(shown_discovery(one)),
            tags={DATA_VERSION_TAG: one.data_versions[shard]},
        )


def _process_changes(config: Config) -> dg.SensorDefinition:
    @dg.sensor(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
        name=PROCESS_SENSOR,
        job_name=jobs.PROCESS_DOCUMENTS,
        minimum_interval_seconds=PROCESS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for the shards whose documents are not what their source holds: one run"
        f" each, at most {MAX_RUNS_PER_TICK} a tick.",
    )
    def process_changed_documents(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.SensorResult:
        from ragassets.stages.raw_documents import shards_behind, state_of_shards

        if is_command_at_work(context.instance, now()):
            return dg.SensorResult(skip_reason="a command is at work")
        shards, settled = config.source_shards(), "everything is as its source holds it"
        state = state_of_shards(workspace.workspace, shards)
        if context.cursor == _settled_cursor(state):
            return dg.SensorResult(skip_reason=settled, cursor=context.cursor)
        behind = shards_behind(workspace.workspace, shards)
        if not behind:
            return dg.SensorResult(skip_reason=settled, cursor=_settled_cursor(state))
        asked = _read_cursor(context.cursor)
        wanted = _due(context.instance, behind, asked, now())
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    partition_key=shard,
                    run_key=request.run_key(shard),
                    tags=RUN_TAGS,
                )
                for shard, request in wanted.items()
            ],
            skip_reason=None if wanted else f"{len(behind)} shards are being processed",
            cursor=_write_cursor({**asked, **wanted}, behind),
        )

    return process_changed_documents


@dataclasses.dataclass(frozen=True)
class _Request:
    """What was asked for one shard."""

    version: str
    """Of what its source held."""
    n_tries: int

    def run_key(self, shard: str) -> str:
        """Names the request: the same one twice makes one run."""
        return f"{shard} {self.version} {self.n_tries}"


def _due(
    instance: dg.DagsterInstance,
    behind: Mapping[str, str],
    asked: Mapping[str, _Request],
    moment: datetime,
) -> dict[str, _Request]:
    """The shards to ask for now."""
    wanted: dict[str, _Request] = {}
    pending = {shard: one for shard, one in asked.items() if behind.get(shard) == one.version}
    runs = _runs(instance, [one.run_key(shard) for shard, one in pending.items()])
    for shard, version in behind.items():
        before = asked.get(shard)
        if before is None or before.version != version:
            wanted[shard] = _Request(version, 1)
        elif _has_failed(runs.get(before.run_key(shard)), before.n_tries, moment):
            wanted[shard] = _Request(version, before.n_tries + 1)
        if len(wanted) == MAX_RUNS_PER_TICK:
            break
    return wanted


def _runs(instance: dg.DagsterInstance, run_keys: Sequence[str]) -> dict[str, RunRecord]:
    """The runs that requests became, by run key: one question, however many shards wait."""
    if not run_keys:
        return {}
    records = instance.get_run_records(RunsFilter(tags={RUN_KEY_TAG: list(run_keys)}))
    return {record.dagster_run.tags[RUN_KEY_TAG]: record for record in records}


def _has_failed(record: RunRecord | None, n_tries: int, moment: datetime) -> bool:
    """Whether a request's run ended, its shard is behind nevertheless, and its time has come."""
    if record is None or n_tries >= MAX_TRIES or record.dagster_run.status in UNFINISHED:
        return False
    return moment - record.update_timestamp >= FIRST_RETRY * 4 ** (n_tries - 1)


def _settled_cursor(state: str) -> str:
    """What is kept while nothing is behind: then a tick looks at no row."""
    return json.dumps({"settled": state})


def _read_cursor(text: str | None) -> dict[str, _Request]:
    try:
        fields = json.loads(text or "{}")
        return (
            {} if "settled" in fields else {shard: _Request(*one) for shard, one in fields.items()}
        )
    except (ValueError, TypeError, AttributeError):
        # Asked for once more: the engine finds nothing to do where it was done.
        return {}


def _write_cursor(asked: Mapping[str, _Request], behind: Mapping[str, str]) -> str:
    return json.dumps(
        {
            shard: [request.version, request.n_tries]
            for shard, request in asked.items()
            if shard in behind
        }
    )


def _schedule(name: str, cron: str, timezone: str) -> dg.ScheduleDefinition:
    try:
        return dg.ScheduleDefinition(
            name=f"list_{identifier(name)}",
            job_name=jobs.OBSERVE_SOURCES,
            cron_schedule=cron,
            execution_timezone=timezone,
            tags={SOURCES_TAG: name},
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Lists the source {name!r} from beginning to end.",
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise ConfigurationError(
            key=f"sources.{name}.schedule",
            value=cron,
            problem="is no cron expression of five fields",
            fix="Write one such as '0 * * * *', which is every hour",
        ) from error


def identifier(name: str) -> str:
    """A name as Dagster takes it for a sensor or schedule."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)
