"""HTTP servers on loopback whose answers can be spoilt on demand."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

from werkzeug.serving import WSGIRequestHandler, make_server

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


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
    rewrite: Callable[[bytes], bytes] | None = None
    """Send these bytes instead of the right ones, with their own length."""
    n_times: int = 1_000_000

    def body(self) -> bytes:
        """Of an answer with `status`."""
        text = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>"
        return text.encode() if self.code else b""


@dataclass
class FaultyServer:
    """The server's address, its faults and the requests that it saw."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list[Fault])
    requests: list[str] = field(default_factory=list[str])
    """`GET /bucket/key?query` each."""

    def count(self, piece: str) -> int:
        """Requests whose line holds a piece of text."""
        return sum(piece in request for request in self.requests)


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        del type, message, args


class _Spoiler:
    """Between the client and an application."""

    def __init__(self, server: FaultyServer, application: Application) -> None:
        self._server, self._app = server, application

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
        if fault and fault.rewrite:
            return [self._rewritten(fault.rewrite, environ, start_response)]
        answer = self._app(environ, start_response)
        if fault and fault.spoil:
            return [fault.spoil(b"".join(answer))]
        return answer

    def _rewritten(
        self, rewrite: Callable[[bytes], bytes], environ: Environ, start_response: StartResponse
    ) -> bytes:
        begun: list[Any] = []

        def remember(*call: Any) -> Callable[[bytes], object]:
            begun[:] = call
            return begun.append

        data = rewrite(b"".join(self._app(environ, remember)))
        headers = [pair for pair in begun[1] if pair[0].lower() != "content-length"]
        start_response(begun[0], [*headers, ("Content-Length", str(len(data)))])
        return data

    def _fault(self, method: str, line: str) -> Fault | None:
        for fault in self._server.faults:
            if fault.method == method and fault.path in line and fault.n_times > 0:
                fault.n_times -= 1
                return fault
        return None


class Forwarder:
    """An application that asks another server of this machine, byte by byte."""

    def __init__(self, port: int) -> None:
        """Remember the other server's port."""
        self._port = port

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Send the request on as it came, its target still percent-encoded as it was."""
        headers = {
            name.removeprefix("HTTP_").replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        }
        headers["HOST"] = f"127.0.0.1:{self._port}"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        target = environ.get("RAW_URI") or quote(environ["PATH_INFO"])
        connection.request(environ["REQUEST_METHOD"], target, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        kept = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}
        ]
        length = answer.getheader("Content-Length") or str(len(data))
        start_response(f"{answer.status} {answer.reason}", [*kept, ("Content-Length", length)])
        connection.close()
        return [data]


@contextmanager
def serving(server: FaultyServer, application: Application) -> Iterator[None]:
    """Serve an application with the server's faults on a port of its own."""
    listener = make_server(
        "127.0.0.1",
        0,
        cast("Any", _Spoiler(server, application)),
        threaded=True,
        request_handler=_QuietHandler,
    )
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
