"""What Dagster's own history says that people may have to be told: failed runs, failed checks.

Runs are read from the run storage, not by a `run_failure_sensor`: that one moves on whether or not
its message arrived, takes five runs a tick, and makes a message of each.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter

# What a failure holds has no public name, nor has the tag of runs that are tried again.
from dagster._core.events import JobFailureData
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster_shared.error import SerializableErrorInfo

from ragassets import errors
from ragassets.core.failed_checks import CheckResult
from ragassets.core.failed_runs import RANGE, Failure, RunEnd
from ragassets.defs.automation import COMMAND_TAG

OVERLAP = timedelta(minutes=2)
"""Read again each time: two machines' clocks differ by less, and so does a slow commit."""

RUNS_AT_ONCE = 500
READ_SECONDS = 10.0
"""For one tick; the next one goes on."""

RESULTS_READ = 25
"""The last ones of each check: between two ticks a check has hardly more."""

TEXT_CHARS = 400

PARTITION_TAG = "dagster/partition"
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")

EVALUATION = dg.DagsterEventType.ASSET_CHECK_EVALUATION

FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]


def read_run_ends(
    instance: DagsterInstance, since: datetime, *, location: str | None
) -> tuple[list[RunEnd], datetime]:
    """Runs that ended since then, oldest first, and up to when they were read.

    Runs that a command computes are left out where they failed: somebody saw it. So are failed runs
    that Dagster starts again by itself.

    Args:
        instance: Whose runs.
        since: What ended a little earlier comes again.
        location: The code location whose runs count; None for all.
    """
    deadline = time.monotonic() + READ_SECONDS
    ends: list[RunEnd] = []
    until, after = since, since - OVERLAP
    while time.monotonic() < deadline:
        page = instance.get_run_records(
            RunsFilter(statuses=FINISHED, updated_after=after),
            limit=RUNS_AT_ONCE,
            order_by="update_timestamp",
            ascending=True,
        )
        ends += [_run_end(instance, record) for record in page if _counts(record, location)]
        if page:
            after = _utc(page[-1].update_timestamp)
            until = max(until, after)
        if len(page) < RUNS_AT_ONCE:
            break
    return ends, until


def _counts(record: RunRecord, location: str | None) -> bool:
    run = record.dagster_run
    origin = run.remote_job_origin
    if location is not None and origin is not None and origin.location_name != location:
        return False
    is_seen = COMMAND_TAG in run.tags or run.tags.get(WILL_RETRY_TAG) == "true"
    return run.status == DagsterRunStatus.SUCCESS or not is_seen


def _run_end(instance: DagsterInstance, record: RunRecord) -> RunEnd:
    run = record.dagster_run
    has_failed = run.status == DagsterRunStatus.FAILURE
    return RunEnd(
        run_id=run.run_id,
        job=_job(run),
        partition=_partition(run),
        ended_at=datetime.fromtimestamp(record.end_time, UTC)
        if record.end_time
        else _utc(record.update_timestamp),
        failure=describe_failure(instance, run.run_id) if has_failed else None,
    )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _job(run: DagsterRun) -> str:
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    is_nameless = run.job_name.startswith("__")
    return ", ".join(assets) if is_nameless and assets else run.job_name


def _partition(run: DagsterRun) -> str:
    first, last = (run.tags.get(tag, "") for tag in RANGE_TAGS)
    whole = f"{first}{RANGE}{last}" if first != last else first
    return run.tags.get(PARTITION_TAG) or whole


def describe_failure(instance: DagsterInstance, run_id: str) -> Failure:
    """Why a run failed, in our own words; of foreign errors the type only, whatever they say."""
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [
        entry.dagster_event
        for entry in instance.all_logs(run_id, of_type=wanted)
        if entry.dagster_event is not None
    ]
    for event in events:
        if event.is_step_failure:
            return _step_failure(event)
    for event in events:
        data = event.event_specific_data
        if isinstance(data, JobFailureData) and data.error is not None:
            return _of_error(data.error, "")
        # What Dagster's daemon says of runs whose worker is gone, or that took too long.
        return Failure(reason="run_failed", text=_cut(event.message or ""))
    return Failure(reason="run_failed")


def _step_failure(event: dg.DagsterEvent) -> Failure:
    data, step = event.step_failure_data, (event.step_key or "").split("[")[0]
    said = data.user_failure_data
    if said is not None and "reason" in said.metadata:
        # A `StepFailure` of ours: its texts are ours, too.
        reason = str(said.metadata["reason"].value)
        return Failure(step=step, reason=reason, text=_cut(said.description or ""))
    if data.error is None:
        return Failure(step=step, reason="step_failed")
    return _of_error(data.error, step)


def _of_error(error: SerializableErrorInfo, step: str) -> Failure:
    last = error
    for link in _chain(error):
        last = link
        kind = getattr(errors, link.cls_name or "", None)
        prefix = f"ragassets.errors.{link.cls_name}: "
        if kind is not None and link.message.startswith(prefix):
            text = link.message.removeprefix(prefix).strip().split("\n")[0]
            return Failure(step=step, reason=str(kind.reason), text=_cut(text))
        if link.cls_name == "DagsterAssetCheckFailedError":
            return Failure(step=step, reason="failed_check", covered_by="failed_check")
    name = last.cls_name or "unknown error"
    return Failure(step=step, reason=name, text="See the run for its message")


def _chain(error: SerializableErrorInfo) -> Iterator[SerializableErrorInfo]:
    link: SerializableErrorInfo | None = error
    while link is not None:
        yield link
        link = link.cause


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARS else f"{line[: TEXT_CHARS - 1]}…"


def read_check_results(
    instance: DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> list[CheckResult]:
    """The last results of these checks; those that are under way are left out."""
    results: list[CheckResult] = []
    for key in keys:
        history = instance.event_log_storage.get_asset_check_execution_history(key, RESULTS_READ)
        for record in history:
            entry = record.event
            event = entry.dagster_event if entry else None
            if entry is None or event is None or event.event_type != EVALUATION:
                continue
            found = event.asset_check_evaluation_data
            is_warning = found.severity == dg.AssetCheckSeverity.WARN
            results.append(
                CheckResult(
                    asset=key.asset_key.to_user_string(),
                    check=key.name,
                    partition=record.partition or "",
                    at=datetime.fromtimestamp(entry.timestamp, UTC),
                    run_id=record.run_id,
                    passed=found.passed,
                    is_attended=not found.passed and _is_attended(instance, record.run_id),
                    severity="warning" if is_warning else "error",
                    is_blocking=bool(found.blocking) and not is_warning,
                    text=_cut(found.description or ""),
                )
            )
    return results


def _is_attended(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and COMMAND_TAG in run.tags
