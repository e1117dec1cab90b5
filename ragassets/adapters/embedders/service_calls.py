"""What the requests of one call to an embedding service share, and the ways in which they fail.

The errors here stay inside the adapter: `openai_compatible.py` turns each into vectors, a failed
text, or one of ours.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class Timing:
    """Time and chance, so that tests need neither."""

    sleep: Callable[[float], None] | None = None
    """None waits, and stops waiting when the call is over."""
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random: Callable[[], float] = random.random


@dataclass
class Call:
    """What one call to the embedder shares between its threads."""

    client: "httpx.Client"
    timing: Timing
    is_over: threading.Event = field(default_factory=threading.Event)

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the end of the call."""
        if self.timing.sleep is not None:
            self.timing.sleep(seconds)
        elif not self.is_over.is_set():
            self.is_over.wait(seconds)
        if self.is_over.is_set():
            raise CallOverError


class CallOverError(Exception):
    """Another thread has ended the call; nobody waits for this one."""


class TryAgainError(Exception):
    """One try failed in a way that another may not."""

    def __init__(
        self, *, problem: str, blames_texts: bool, retry_after: float | None = None
    ) -> None:
        super().__init__(problem)
        self.problem, self.retry_after = problem, retry_after
        self.blames_texts = blames_texts
        """It may be these texts that the service cannot bear: it was reached, and broke."""


class TextsRefusedError(Exception):
    """The service says that these texts are wrong."""

    def __init__(self, *, status: int, code: str | None) -> None:
        self.problem = f"HTTP {status}" + (f", {code}" if code else "")
        super().__init__(self.problem)


class EndpointDownError(Exception):
    """All tries failed, or the circuit is open."""

    def __init__(self, *, problem: str, blames_texts: bool) -> None:
        super().__init__(problem)
        self.problem, self.blames_texts = problem, blames_texts
