"""A running `dagster dev` on a project folder, and its GraphQL interface."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragassets_tests.browser import wait_until
from ragassets_tests.corpora import REPOSITORY_ROOT

READY_SECONDS = 180


class Dagster:
    """What a person sees, asked by GraphQL."""

    def __init__(self, address: str) -> None:
        """Talk to the web server at this address."""
        self.address = address

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        request = urllib.request.Request(
            f"{self.address}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = json.load(answer)
        assert "errors" not in body, body["errors"]
        return body["data"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs with job, status and tags, newest first."""
        found = self.ask(
            "{runsOrError {... on Runs {results {runId jobName status tags {key value}}}}}"
        )
        return [
            {**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
            for run in found["runsOrError"]["results"]
        ]

    def location_error(self) -> str | None:
        """Why the code location did not load; None while it has not answered or is fine."""
        found = self.ask(
            "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError"
            " {__typename ... on PythonError {message}}}}}}"
        )
        entries = found["workspaceOrError"]["locationEntries"]
        return next((e["locationOrLoadError"].get("message") for e in entries), None)

    def n_assets(self) -> int:
        """How many assets the UI lists."""
        return len(self.ask("{assetNodes {id}}")["assetNodes"])


def copy_instance_settings(folder: Path) -> None:
    """The repository's own `dagster.yaml` and `workspace.yaml`."""
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(REPOSITORY_ROOT / name, folder / name)


@contextmanager
def dagster_dev(folder: Path) -> Generator[Dagster]:
    """`dagster dev` as a person starts it: in the project's folder, without DAGSTER_HOME."""
    port = _free_port()
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    environment |= {"PYTHONPATH": str(REPOSITORY_ROOT), "OMP_NUM_THREADS": "1"}
    log = folder / "dagster-dev.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        dagster = Dagster(f"http://127.0.0.1:{port}")
        wait_until(
            lambda: process.poll() is not None or _is_ready(dagster),
            bool,
            seconds=READY_SECONDS,
            what=f"`dagster dev`, see {log}",
        )
        assert process.poll() is None, log.read_text()[-3000:]
        yield dagster
    finally:
        # Its own session: servers, daemon and runs go with it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def _is_ready(dagster: Dagster) -> bool:
    try:
        assert dagster.location_error() is None
        return dagster.n_assets() > 0
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
