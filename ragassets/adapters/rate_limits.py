"""Requests and tokens a minute, kept by whoever sends them.

The counting is pyrate-limiter's generic cell rate algorithm: constant memory, whatever the limit,
where a window keeps an entry for every token. Its clock is ours, and so is the waiting.
"""

import threading
from collections.abc import Callable

MINUTE_SECONDS = 60


class RateLimit:
    """So many units a minute, evenly: after a pause, one second's worth may go at once.

    Shared by threads. In any minute at most the limit and that one burst are spent.
    """

    def __init__(self, per_minute: int, *, largest: int = 1, clock: Callable[[], float]) -> None:
        """Start with a full burst.

        Args:
            per_minute: Units that the service grants.
            largest: The most units that one request may need; the burst is no smaller, so that it
                can ever be sent.
            clock: Seconds, never going backwards.
        """
        from pyrate_limiter import GCRA, Duration, Rate, StateBucket

        self._burst = min(per_minute, max(largest, per_minute // MINUTE_SECONDS, 1))
        self._bucket = StateBucket([Rate(per_minute, Duration.MINUTE, self._burst)], GCRA())
        self._clock, self._lock = clock, threading.Lock()

    def acquire(self, n_units: int, sleep: Callable[[float], None]) -> None:
        """Return when the units may be spent; more than the burst count as the burst."""
        while delay := self._try(min(n_units, self._burst)):
            sleep(delay)

    def _try(self, n_units: int) -> float:
        """Spend the units and return 0, or spend nothing and return the seconds to wait."""
        from pyrate_limiter import Decision, RateItem

        with self._lock:
            item = RateItem("units", int(self._clock() * 1000), n_units)
            decision = self._bucket.put_decision(item)
        assert isinstance(decision, Decision)  # noqa: S101 - an awaitable of asynchronous stores
        # A millisecond is the resolution of the library.
        return 0.0 if decision.allowed else max(1, decision.retry_after_ms or 1) / 1000
