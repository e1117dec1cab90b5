"""Calls that are not waited for beyond a deadline, whatever they hang on."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Outcome(Generic[Answer]):
    """How a call went: it gave something, or raised something, or was not over in time."""

    answer: Answer | None = None
    error: Exception | None = None
    is_late: bool = False


def call_within(
    calls: Mapping[str, Callable[[], Answer]], *, seconds: float
) -> dict[str, Outcome[Answer]]:
    """Call several at once, and leave those that are not over in time.

    A server may dribble for ever, and no time-out of a socket ends that. Each call has a thread of
    its own; one that is late goes on without anybody listening, and ends with the process.

    Args:
        calls: By name. They change nothing that anybody else looks at.
        seconds: For all of them together.

    Returns:
        The outcomes, in the order of the calls.
    """
    outcomes: dict[str, Outcome[Answer]] = {}

    def run(name: str, call: Callable[[], Answer]) -> None:
        try:
            outcomes[name] = Outcome(answer=call())
        except Exception as error:  # noqa: BLE001 - it would end in a thread that nobody watches
            outcomes[name] = Outcome(error=error)

    threads = [
        threading.Thread(target=run, args=(name, call), name=name, daemon=True)
        for name, call in calls.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    done = dict(outcomes)
    return {name: done.get(name, Outcome(is_late=True)) for name in calls}
