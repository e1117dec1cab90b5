"""What a channel can do, and how many channels are used at once without one holding up another."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from ragassets.adapters.deadlines import Outcome, call_within
from ragassets.core.notification_messages import Message
from ragassets.errors import NotificationError, RagAssetsError

TIMEOUT_SECONDS = 8.0
"""For each answer of a server. Slack answers within one."""

SEND_SECONDS = 20.0
"""For all channels together, of the 60 that a sensor has."""


class Notifier(Protocol):
    """Somewhere to send messages to."""

    def send(self, message: Message) -> None:
        """Send it.

        Raises:
            NotificationError: It may not have arrived.
        """
        ...

    def probe(self) -> str:
        """Ask whether it could be sent to, sending nothing; what is there, in words.

        Raises:
            NotificationError: It could not.
        """
        ...


def send_all(
    messages: Mapping[str, tuple[Notifier, Message]], *, seconds: float = SEND_SECONDS
) -> dict[str, RagAssetsError | None]:
    """Send to several channels at once; none holds up another.

    Args:
        messages: By channel.
        seconds: For all of them together. What takes longer counts as not sent.

    Returns:
        By channel, why its message may not have arrived; None where it did.
    """
    calls = {
        name: partial(notifier.send, message) for name, (notifier, message) in messages.items()
    }
    outcomes = call_within(calls, seconds=seconds)
    return {name: _failure(name, outcome, seconds) for name, outcome in outcomes.items()}


def _failure(channel: str, outcome: Outcome[None], seconds: float) -> RagAssetsError | None:
    if outcome.is_late:
        return NotificationError(channel=channel, detail=f"took longer than {seconds:g} s")
    error = outcome.error
    if error is None or isinstance(error, RagAssetsError):
        return error
    # A bug, or an error of a library that is not known here: its text may hold a secret.
    return NotificationError(channel=channel, detail=f"failed ({type(error).__name__})")
