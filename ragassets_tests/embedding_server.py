"""An OpenAI-compatible embedding service on loopback that misbehaves on demand."""

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np

from ragassets_tests.fakes import FakeEmbedder

Request = dict[str, Any]
"""The JSON body of a request."""


@dataclass(frozen=True)
class Reply:
    """What to answer instead of vectors."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hangs_seconds: float = 0.0
    is_reset: bool = False
    """The connection breaks instead."""


def failing(status: int, code: str | None = None, **headers: str) -> Reply:
    """An error answer, such as `failing(429, retry_after="1")`."""
    body = {"error": {"message": "you said: a secret text", "type": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), named)


class EmbeddingServer:
    """Serves hash vectors. `script` holds the replies of the next requests; None is a sound one."""

    def __init__(
        self,
        *,
        dim: int = 8,
        model: str = "tiny",
        script: Sequence[Reply | None] = (),
        rule: Callable[[Request], Reply | None] = lambda _request: None,
        change: Callable[[dict[str, Any]], object] = lambda answer: answer,
    ) -> None:
        """Prepare a service.

        Args:
            dim: Of its vectors.
            model: The name that it answers with; its vectors depend on it.
            script: Replies of the first requests.
            rule: Chooses the reply by the request, once the script is over.
            change: Applied to every sound answer before it is sent; may change it in place.
        """
        self.model, self.script, self.rule, self.change = model, list(script), rule, change
        self.embedder = FakeEmbedder(dim=dim, seed=model)
        self.requests: list[Request] = []
        self.sound: list[Request] = []
        """Those of the requests that were answered with vectors."""
        self.keys: list[str | None] = []
        self.n_at_once = self.most_at_once = 0
        self.busy_seconds = 0.0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def texts(self) -> list[str]:
        """All texts that were sent, in the order in which they came."""
        return [text for request in self.requests for text in request["input"]]

    def __enter__(self) -> Self:
        """Start to listen."""
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Request) -> dict[str, Any]:
        """A sound answer, as OpenAI words it."""
        vectors = self.embedder.embed_documents(request["input"])
        if "dimensions" in request:
            vectors = vectors[:, : request["dimensions"]]
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        is_base64 = request.get("encoding_format") == "base64"
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                    if is_base64
                    else vector.tolist(),
                }
                for index, vector in enumerate(vectors)
            ],
            "model": self.model,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }

    def reply(self, request: Request) -> Reply:
        """What this request gets."""
        with self._lock:
            self.requests.append(request)
            scripted = self.script.pop(0) if self.script else self.rule(request)
            if scripted is None:
                self.sound.append(request)
        if scripted is not None:
            return scripted
        answer = self.answer(request)
        return Reply(body=json.dumps(self.change(answer) or answer).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/embeddings"
                with server._lock:
                    server.keys.append(self.headers["Authorization"])
                    server.n_at_once += 1
                    server.most_at_once = max(server.most_at_once, server.n_at_once)
                time.sleep(server.busy_seconds)
                try:
                    self._send(server.reply(request))
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up waiting
                finally:
                    with server._lock:
                        server.n_at_once -= 1

            def _send(self, reply: Reply) -> None:
                if reply.is_reset:
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                time.sleep(reply.hangs_seconds)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        return Handler
