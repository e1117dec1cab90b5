"""One owner at a time for a directory, and a note that says who it is."""

import dataclasses
import json
import os
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from ragassets.adapters.durable_files import replace_file
from ragassets.core.leases import Holder
from ragassets.errors import VectorStoreLockedError

POLL_SECONDS = 0.02
"""How soon a freed lock is noticed: short against the 0.5 s that opening a collection takes."""

COMMAND_CHARS = 80


class StoreLock:
    """An exclusive lock on a directory, held until `release` or the death of the process.

    The kernel frees the lock of a dead process at once; its note stays and is recognized as stale.
    """

    def __init__(self, directory: Path, *, timeout_seconds: float) -> None:
        """Prepare the lock; nothing is touched before `acquire`."""
        from filelock import FileLock

        self._directory = directory
        self._timeout_seconds = timeout_seconds
        self._note = directory / "holder.json"
        self._lock = FileLock(directory / ".lock", thread_local=False)
        # Whoever waits holds this one, so that a process that gives the lock back and wants it
        # again at once queues behind. Polling alone lets a loop of searches starve an ingestion.
        self._queue = FileLock(directory / ".queue", thread_local=False)

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock, waiting up to the time-out; nothing happens when it is held already.

        Raises:
            VectorStoreLockedError: somebody else holds it for longer.
        """
        from filelock import Timeout

        if self.is_held:
            return
        deadline = time.monotonic() + self._timeout_seconds
        try:
            with self._queue.acquire(timeout=self._timeout_seconds, poll_interval=POLL_SECONDS):
                remaining = max(0.0, deadline - time.monotonic())
                self._lock.acquire(timeout=remaining, poll_interval=POLL_SECONDS)
        except Timeout as error:
            raise VectorStoreLockedError(
                path=str(self._directory),
                holder=describe_holder(self._note),
                waited_seconds=self._timeout_seconds,
            ) from error
        try:
            replace_file(self._note, json.dumps(dataclasses.asdict(own_holder())))
        except BaseException:
            # A lock that its owner does not know of would be held until the process ends.
            self._lock.release()
            raise

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self.is_held:
            self._note.unlink(missing_ok=True)
            self._lock.release()


def describe_holder(note: Path) -> str:
    """Return who holds a lock, as far as its note tells."""
    try:
        content = cast("object", json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return "another process"
    if not isinstance(content, dict):
        return "another process"
    holder = cast("dict[str, object]", content)
    pid, host = holder.get("pid"), holder.get("host")
    if host == socket.gethostname() and isinstance(pid, int) and not _is_alive(pid):
        return "another process"
    return f"process {pid} on {host} ({holder.get('command')}) since {holder.get('since')}"


def own_holder() -> Holder:
    """Say who this process is, for whoever has to wait for it."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        command=_own_command(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _own_command() -> str:
    """Return the program and its first word only: later arguments may hold secrets."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return " ".join([program, *sys.argv[1:2]])[:COMMAND_CHARS]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
