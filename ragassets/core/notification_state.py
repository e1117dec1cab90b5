"""What is remembered from look to look: what was told, what failed, what waits for whom."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from ragassets.core.failed_checks import FailedCheck
from ragassets.core.failed_runs import FailedPartition
from ragassets.core.notification_delivery import Channel, enqueue, wants
from ragassets.core.notification_settings import NotificationsConfig
from ragassets.core.problems import Notice, Problem, Told
from ragassets.core.source_health import Health


class State(BaseModel):
    """All of it; written as one, so that what was seen and what waits never disagree."""

    model_config = ConfigDict(frozen=True)

    told: dict[str, Told] = {}
    """Open problems, by key."""
    failed_runs: tuple[FailedPartition, ...] = ()
    runs_until: datetime | None = None
    """Runs that ended before were seen."""
    failed_checks: tuple[FailedCheck, ...] = ()
    health: dict[str, Health] = {}
    """Of sources, by name."""
    letters: str = ""
    """Dead letters that were told; see `core/dead_letter_digest.py`."""
    letters_version: int | None = None
    """Of the table, when they were last looked at."""
    digest_at: datetime | None = None
    """When they were last looked at."""
    channels: dict[str, Channel] = {}

    @classmethod
    def parse(cls, text: str | None) -> "State":
        """A stored state; an unreadable one begins anew, which tells what is open once more."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()

    def channel(self, name: str) -> Channel:
        """The state of one channel."""
        return self.channels.get(name, Channel())

    def with_channels(self, changed: Mapping[str, Channel]) -> "State":
        """A copy in which these channels are as given."""
        return self.model_copy(update={"channels": {**self.channels, **changed}})

    def with_notices(self, notices: Iterable[Notice], settings: NotificationsConfig) -> "State":
        """A copy in which the notices wait for whoever wants them; other channels are dropped."""
        new = list(notices)
        channels = {
            name: enqueue(self.channel(name), [one for one in new if wants(config, one)])
            for name, config in settings.channels.items()
        }
        return self.model_copy(update={"channels": channels})

    def without(self, uris: Collection[str]) -> "State":
        """A copy that names none of these documents."""
        told = {
            key: entry.model_copy(update={"problem": _without(entry.problem, uris)})
            for key, entry in self.told.items()
        }
        channels = {
            name: channel.model_copy(
                update={
                    "waiting": tuple(
                        one.model_copy(update={"problem": _without(one.problem, uris)})
                        for one in channel.waiting
                    )
                }
            )
            for name, channel in self.channels.items()
        }
        failed = tuple(
            entry.model_copy(
                update={"failure": entry.failure.model_copy(update={"text": ""})}
                if _names(entry.failure.text, uris)
                else {}
            )
            for entry in self.failed_runs
        )
        changes = {"told": told, "channels": channels, "failed_runs": failed}
        return self.model_copy(update=changes)


def _without(problem: Problem, uris: Collection[str]) -> Problem:
    return problem.model_copy(
        update={
            "details": tuple(line for line in problem.details if not _names(line, uris)),
            "commands": tuple(line for line in problem.commands if not _names(line, uris)),
        }
    )


def _names(text: str, uris: Collection[str]) -> bool:
    return any(uri in text for uri in uris)
