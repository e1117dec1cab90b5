"""What is wrong now, and which of it is worth telling: each problem once, until it changes or ends.

A problem is a state (a source is out of reach, runs of a job fail); news is an event (new dead
letters). Both become notices. Who gets a notice, and when, is `core/notification_delivery.py`'s
business.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ragassets.core.notification_settings import Severity, Topic

Kind = Literal["new", "changed", "ended", "news"]

GROWTH = 2
"""A problem is told again when it is twice as large as last told: a thousand shards that fail one
after the other make ten messages, not a thousand."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Frozen):
    """Something that is wrong, in words for people; never with text of a document."""

    key: str
    """Which problem it is, the same from look to look."""
    topic: Topic
    severity: Severity
    title: str
    """One line."""
    details: tuple[str, ...] = ()
    """A line each."""
    commands: tuple[str, ...] = ()
    """To look closer, or to mend it."""
    path: str = ""
    """In the Dagster UI: `runs/<id>`."""
    state: str = ""
    """Told again when it differs from what was told."""
    magnitude: int = 1
    """How large it is; told again when it has doubled."""
    covered_by: Topic | None = None
    """Another topic that tells the same to whoever wants it."""


class Notice(_Frozen):
    """One thing to tell."""

    problem: Problem
    kind: Kind
    at: datetime
    since: datetime
    """When the problem began."""


class Told(_Frozen):
    """A problem as it was last told."""

    problem: Problem
    since: datetime


def compare(
    told: Mapping[str, Told],
    problems: Iterable[Problem],
    *,
    looked_at: Collection[Topic],
    now: datetime,
) -> tuple[dict[str, Told], list[Notice]]:
    """What to tell, and what is told from then on.

    Nothing is told twice in the same state: `compare` of its own result and the same problems tells
    nothing. Problems of topics that could not be looked at stay as they are.

    Args:
        told: What was told, by key.
        problems: What is wrong now.
        looked_at: Topics whose problems are known to be all there are.
        now: The time, UTC.
    """
    found = {problem.key: problem for problem in problems}
    after: dict[str, Told] = {}
    notices: list[Notice] = []
    for key, problem in found.items():
        before = told.get(key)
        since = before.since if before else now
        if before is None or is_worse(before.problem, problem):
            kind: Kind = "changed" if before else "new"
            notices.append(Notice(problem=problem, kind=kind, at=now, since=since))
            after[key] = Told(problem=problem, since=since)
        else:
            after[key] = before
    for key, before in told.items():
        if key in found:
            continue
        if before.problem.topic not in looked_at:
            after[key] = before
        else:
            notices.append(Notice(problem=before.problem, kind="ended", at=now, since=before.since))
    return after, notices


def is_worse(before: Problem, after: Problem) -> bool:
    """Whether a known problem is worth telling again."""
    return (
        before.state != after.state
        or before.severity != after.severity
        or after.magnitude >= GROWTH * before.magnitude
    )


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 chunk`, `2 chunks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
