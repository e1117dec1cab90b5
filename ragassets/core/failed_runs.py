"""Which runs fail: the same job failing in the same way is one problem, however many partitions."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from ragassets.core.notification_settings import Topic
from ragassets.core.problems import Problem

KEPT = timedelta(days=7)
"""A failure that nothing followed for so long is forgotten: its partition may be gone."""

PARTITIONS_SHOWN = 8

RANGE = "…"
"""Between the first and the last partition of a run that takes several."""

OUTAGES: Mapping[str, Topic] = {"embedding_service_unavailable": "embedding_service"}
"""Reasons of failures that are told as another problem."""


class Failure(BaseModel):
    """Why a run failed, in words that may be shown."""

    model_config = ConfigDict(frozen=True)

    step: str = ""
    """The asset that failed; empty where the run failed as a whole."""
    reason: str
    """A short code, the same for the same cause."""
    text: str = ""
    covered_by: Topic | None = None


class RunEnd(BaseModel):
    """A run that is over."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    job: str
    """The job, or the assets where the job has no name."""
    partition: str = ""
    ended_at: datetime
    failure: Failure | None = None


class FailedPartition(BaseModel):
    """The last run of a job for a partition, which failed."""

    model_config = ConfigDict(frozen=True)

    job: str
    partition: str
    run_id: str
    ended_at: datetime
    failure: Failure


def fold_runs(failed: Iterable[FailedPartition], ends: Iterable[RunEnd]) -> list[FailedPartition]:
    """What fails after some runs have ended; runs that were folded before change nothing.

    Args:
        failed: What failed until now.
        ends: In any order.
    """
    last = {(entry.job, entry.partition): entry for entry in failed}
    for end in sorted(ends, key=lambda one: one.ended_at):
        key = end.job, end.partition
        if key in last and end.ended_at < last[key].ended_at:
            continue
        if end.failure is None:
            last = {
                known: entry
                for known, entry in last.items()
                if not (entry.job == end.job and _covers(end.partition, entry.partition))
            }
        else:
            last[key] = FailedPartition(
                job=end.job,
                partition=end.partition,
                run_id=end.run_id,
                ended_at=end.ended_at,
                failure=end.failure,
            )
    return list(last.values())


def _covers(whole: str, part: str) -> bool:
    """Whether a partition, or a range of them, holds another; their keys sort as they are counted.

    An unpartitioned run holds itself alone.
    """
    first, last = _ends(whole)
    part_first, part_last = _ends(part)
    return whole == part or bool(whole and part and first <= part_first and part_last <= last)


def _ends(partitions: str) -> tuple[str, str]:
    first, _, last = partitions.partition(RANGE)
    return first, last or first


def forget_old(failed: Iterable[FailedPartition], now: datetime) -> list[FailedPartition]:
    """Without what failed long ago."""
    return [entry for entry in failed if now - entry.ended_at < KEPT]


def run_problems(failed: Iterable[FailedPartition]) -> list[Problem]:
    """One problem for each job that fails in one way."""
    groups: dict[tuple[str, str, str], list[FailedPartition]] = {}
    for entry in failed:
        key = entry.job, entry.failure.step, entry.failure.reason
        groups.setdefault(key, []).append(entry)
    return [_problem(*key, entries) for key, entries in sorted(groups.items())]


def _problem(job: str, step: str, reason: str, entries: list[FailedPartition]) -> Problem:
    last = max(entries, key=lambda entry: entry.ended_at)
    partitions = sorted(entry.partition for entry in entries if entry.partition)
    where = f" in {step}" if step and step != job else ""
    count = f" for {len(partitions)} partitions" if len(partitions) > 1 else ""
    return Problem(
        key=f"run_failure/{job}/{step}/{reason}",
        topic="run_failure",
        severity="error",
        title=f"{job} failed{where}{count}: {reason}",
        details=tuple(
            line for line in (_shown("partition", partitions), last.failure.text) if line
        ),
        path=f"runs/{last.run_id}",
        magnitude=len(entries),
        covered_by=last.failure.covered_by or OUTAGES.get(reason),
    )


def _shown(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = len(names) - PARTITIONS_SHOWN
    listed = ", ".join(names[:PARTITIONS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"{what}{'s' if len(names) > 1 else ''} {listed}"
