"""A real Chroma server on loopback: the package carries it."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

START_SECONDS = 60


class ChromaServer:
    """A server process."""

    def __init__(self, folder: Path) -> None:
        """Start it and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        program = "import sys; from chromadb.cli.cli import app; sys.exit(app())"
        arguments = ["run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(self.port)]
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
            )
        self._wait(folder / "server.log")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=1).close()
            except OSError:
                has_ended = self.process.poll() is not None
                if has_ended or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(log.read_text(encoding="utf-8")[-2000:]) from None
                time.sleep(0.1)
            else:
                return


@contextmanager
def running_chroma(folder: Path) -> Iterator[ChromaServer]:
    """A server that lives as long as the block."""
    folder.mkdir()
    server = ChromaServer(folder)
    try:
        yield server
    finally:
        server.stop()


@cache
def shared_chroma() -> ChromaServer:
    """One server for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="chroma-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = ChromaServer(folder)
    atexit.register(server.stop)
    return server
