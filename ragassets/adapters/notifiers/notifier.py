"""What a channel can do, and how many channels are used at once without one holding up another."""

import threading
import time
from collections.abc import Mapping
from typing import Protocol

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
    """Send to several channels at once.

    A server may dribble for ever, and no time-out of a socket ends that. So each channel has a
    thread that is not waited for beyond the deadline: its message counts as not sent then.

    Args:
        messages: By channel.
        seconds: For all of them together.

    Returns:
        By channel, why its message may not have arrived; None where it did.
    """
    outcomes: dict[str, RagAssetsError | None] = {}

    def send(channel: str, notifier: Notifier, message: Message) -> None:
        try:
            notifier.send(message)
            outcome = None
        except RagAssetsError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - one broken channel would stop the others
            outcome = NotificationError(channel=channel, detail=f"failed ({type(error).__name__})")
        outcomes[channel] = outcome

    threads = [
        threading.Thread(target=send, args=(name, *each), name=f"notify {name}", daemon=True)
        for name, each in messages.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    done = dict(outcomes)
    late = {
        name: NotificationError(channel=name, detail=f"took longer than {seconds:g} s")
        for name in messages
    }
    return {name: done.get(name, late[name]) for name in messages}
