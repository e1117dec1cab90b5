"""Which asset checks fail now."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from ragassets.core.notification_settings import Severity
from ragassets.core.problems import Problem

WARNING_PATIENCE = timedelta(minutes=15)
"""A warning is told when it lasts: while documents arrive an index version is incomplete all the
time, and its check says so until the rest is there."""


class CheckResult(BaseModel):
    """What a check said of a partition."""

    model_config = ConfigDict(frozen=True)

    asset: str
    check: str
    partition: str = ""
    at: datetime
    run_id: str
    passed: bool
    is_attended: bool = False
    """Somebody waited for the run, and was told."""
    severity: Severity = "error"
    is_blocking: bool = False
    text: str = ""

    @property
    def key(self) -> str:
        """What it is a result of."""
        return f"{self.asset}/{self.check}/{self.partition}"


class FailedCheck(BaseModel):
    """A check that fails, and since when."""

    model_config = ConfigDict(frozen=True)

    last: CheckResult
    since: datetime


def fold_checks(failed: Iterable[FailedCheck], results: Iterable[CheckResult]) -> list[FailedCheck]:
    """What fails after some results; results that were folded before change nothing."""
    open_ones: dict[str, FailedCheck] = {entry.last.key: entry for entry in failed}
    for result in sorted(results, key=lambda one: one.at):
        before = open_ones.get(result.key)
        if before is not None and result.at < before.last.at:
            continue
        if result.passed or result.is_attended:
            open_ones.pop(result.key, None)
        else:
            since = before.since if before else result.at
            open_ones[result.key] = FailedCheck(last=result, since=since)
    return list(open_ones.values())


def check_problems(failed: Iterable[FailedCheck], now: datetime) -> list[Problem]:
    """Failed checks that are worth telling."""
    return [
        _problem(entry.last)
        for entry in sorted(failed, key=lambda one: one.last.key)
        if entry.last.severity == "error" or now - entry.since >= WARNING_PATIENCE
    ]


def _problem(last: CheckResult) -> Problem:
    what = f"{last.asset} {last.partition}".rstrip()
    consequence = "It blocks: nothing downstream of it goes on, and no alias moves."
    return Problem(
        key=f"failed_check/{last.key}",
        topic="failed_check",
        severity=last.severity,
        title=f"check {last.check} of {what} failed",
        details=tuple(line for line in (last.text, last.is_blocking and consequence) if line),
        commands=_commands(last),
        path=f"runs/{last.run_id}",
    )


COMMANDS: Mapping[str, str] = {
    "audit": "ragassets audit",
    "dead_letters": "ragassets dead-letters list",
    "index_versions": "ragassets index list",
}


def _commands(last: CheckResult) -> tuple[str, ...]:
    command = COMMANDS.get(last.asset)
    return (command,) if command else ()
