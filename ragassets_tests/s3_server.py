"""An S3 server on loopback (moto) whose answers can be spoilt on demand."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "handbook"

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]


@dataclass
class Fault:
    """What happens to some requests instead of, or after, the real thing."""

    path: str
    """A piece of the request's path or query."""
    method: str = "GET"
    status: int | None = None
    """Answer with this status."""
    code: str = ""
    """The store's code for the error, in the body that S3 sends with it."""
    is_reset: bool = False
    """Close the connection without a word."""
    spoil: Callable[[bytes], bytes] | None = None
    """Send these bytes instead of the right ones, with the headers of the right ones."""
    n_times: int = 1_000_000

    def body(self) -> bytes:
        """Of an answer with `status`."""
        text = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>"
        return text.encode() if self.code else b""


@dataclass
class S3Server:
    """The server's address, its faults and the requests that it saw."""

    url: str
    faults: list[Fault] = field(default_factory=list[Fault])
    requests: list[str] = field(default_factory=list[str])
    """`GET /bucket/key?query` each."""

    def client(self) -> Any:
        """An SDK client with the environment's credentials."""
        import boto3

        return cast("Any", boto3).client("s3", endpoint_url=self.url, region_name="us-east-1")

    def put(self, key: str, body: bytes | str, **options: object) -> None:
        """Store an object."""
        data = body.encode() if isinstance(body, str) else body
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data, **options)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client().delete_object(Bucket=BUCKET, Key=key)

    def count(self, piece: str) -> int:
        """Requests whose line holds a piece of text."""
        return sum(piece in request for request in self.requests)


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        del type, message, args


class _Spoiler:
    """Between the client and moto."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        line = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        self._server.requests.append(f"{environ['REQUEST_METHOD']} {line}")
        fault = self._fault(environ["REQUEST_METHOD"], line)
        if fault and fault.is_reset:
            cast("socket.socket", environ["werkzeug.socket"]).shutdown(socket.SHUT_RDWR)
            return [b""]
        if fault and fault.status:
            body = fault.body()
            start_response(f"{fault.status} Fault", [("Content-Length", str(len(body)))])
            return [body]
        answer = self._app(environ, start_response)
        if fault and fault.spoil:
            return [fault.spoil(b"".join(answer))]
        return answer

    def _fault(self, method: str, line: str) -> Fault | None:
        for fault in self._server.faults:
            if fault.method == method and fault.path in line and fault.n_times > 0:
                fault.n_times -= 1
                return fault
        return None


@contextmanager
def running_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket, and the environment that leads every client to it."""
    server = S3Server("")
    listener = make_server(
        "127.0.0.1", 0, cast("Any", _Spoiler(server)), threaded=True, request_handler=_QuietHandler
    )
    server.url = f"http://127.0.0.1:{listener.server_port}"
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
        for service in ("s3", "sqs"):
            for account in cast("Any", get_backend(service)).values():
                for backend in account.values():
                    backend.reset()
