"""Pinecone on loopback: the REST interface as the SDK calls it, that lags and fails on demand.

It stands in for the service, of which there is no package. Sockets, addresses, messages and status
codes are real; the data are in dictionaries. One port is the control plane, every index has a port
of its own, as every real one has a host.

Source: requests and answers of pinecone 10.2 (API version 2026-07);
https://docs.pinecone.io/reference/api
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ragassets.adapters.pinecone_connection import close_clients
from ragassets_tests.qdrant_loopback import RESET, Fault, break_connection

MAX_BODY_BYTES, MAX_POINTS, MAX_METADATA_BYTES, PAGE = 2 * 1024**2, 1_000, 40 * 1024, 100


class RefusedError(Exception):
    """A request that Pinecone refuses."""

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None = None
    ) -> None:
        """Keep what the answer says."""
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after
        super().__init__(message)


class Index:
    """The vectors of one index; what is written is seen a while later."""

    def __init__(self, service: "LoopbackPinecone", request: dict[str, Any]) -> None:
        """Create it from the body of a creation; it becomes ready later."""
        self.service = service
        self.name: str = request["name"]
        self.tags: dict[str, str] = request.get("tags") or {}
        self.schema: dict[str, Any] = request["schema"]
        self.deployment: dict[str, Any] = request["deployment"]
        (field,) = self.schema["fields"].values()
        self.dim, self.metric = field["dimension"], field["metric"]
        self.ready_at = time.monotonic() + service.ready_seconds
        self.namespaces: dict[str, dict[str, dict[str, Any]]] = {}
        self._pending: deque[tuple[float, Callable[[], None]]] = deque()
        self.server = _serve(service, self)

    def model(self) -> dict[str, Any]:
        """The index as the control plane shows it."""
        is_ready = time.monotonic() >= self.ready_at
        return {
            "name": self.name,
            "host": _url(self.server) if is_ready else None,
            "status": {"ready": is_ready, "state": "Ready" if is_ready else "Initializing"},
            "schema": self.schema,
            "deployment": self.deployment,
            "deletion_protection": "disabled",
            "tags": self.tags or None,
        }

    def upsert(self, body: dict[str, Any]) -> dict[str, Any]:
        """Write all vectors of a request or none."""
        vectors = body["vectors"]
        if len(vectors) > MAX_POINTS:
            raise RefusedError(400, "INVALID_ARGUMENT", f"Batch size exceeds {MAX_POINTS}")
        for vector in vectors:
            if len(vector["values"]) != self.dim:
                detail = f"Vector dimension {len(vector['values'])} does not match {self.dim}"
                raise RefusedError(400, "INVALID_ARGUMENT", detail)
            if len(json.dumps(vector["metadata"], ensure_ascii=False)) > MAX_METADATA_BYTES:
                raise RefusedError(400, "INVALID_ARGUMENT", "Metadata size is above 40960 bytes")
        points = self._points(body)
        self._later(lambda: points.update({v["id"]: v for v in vectors}))
        return {"upsertedCount": len(vectors)}

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Remove vectors by id."""
        points = self._points(body)
        self._later(lambda: [points.pop(i, None) for i in body["ids"]])
        return {}

    def fetch(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Vectors by id."""
        body = {"namespace": query.get("namespace", [""])[0]}
        points = self._points(body)
        return {**body, "vectors": {i: points[i] for i in query.get("ids", []) if i in points}}

    def list_ids(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """A page of ids."""
        limit = int(query.get("limit", [str(PAGE)])[0])
        if limit > PAGE:
            raise RefusedError(400, "INVALID_ARGUMENT", f"limit must be at most {PAGE}")
        body = {
            "namespace": query.get("namespace", [""])[0],
            "limit": limit,
            "paginationToken": query.get("paginationToken", [None])[0],
        }
        ids, pagination = self._page(sorted(self._points(body)), body)
        return {"vectors": [{"id": i} for i in ids], **pagination}

    def fetch_by_metadata(self, body: dict[str, Any]) -> dict[str, Any]:
        """A page of the vectors that match a filter."""
        points = self._points(body)
        found = [i for i in sorted(points) if _matches(points[i]["metadata"], body["filter"])]
        ids, pagination = self._page(found, body)
        return {"vectors": {i: points[i] for i in ids}, "namespace": "", **pagination}

    def query(self, body: dict[str, Any]) -> dict[str, Any]:
        """The nearest vectors."""
        points = self._points(body)
        asked = np.array(body["vector"], np.float32)
        scored = [
            (i, self._score(asked, np.array(point["values"], np.float32)))
            for i, point in points.items()
            if _matches(point["metadata"], body.get("filter"))
        ]
        is_distance = self.metric == "euclidean"
        scored.sort(key=lambda hit: hit[1] if is_distance else -hit[1])
        has_metadata = body.get("includeMetadata")
        return {
            "matches": [
                {
                    "id": i,
                    "score": score,
                    "values": [],
                    **({"metadata": points[i]["metadata"]} if has_metadata else {}),
                }
                for i, score in scored[: body["topK"]]
            ],
            "namespace": body.get("namespace", ""),
            "usage": {"readUnits": 1},
        }

    def _score(self, one: Any, other: Any) -> float:
        match self.metric:
            case "cosine":
                return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
            case "dotproduct":
                return float(one @ other)
            case _:
                return float(((one - other) ** 2).sum())

    def _points(self, body: dict[str, Any]) -> dict[str, dict[str, Any]]:
        now = time.monotonic()
        while self._pending and self._pending[0][0] <= now:
            self._pending.popleft()[1]()
        return self.namespaces.setdefault(body.get("namespace", ""), {})

    def _later(self, change: Callable[[], object]) -> None:
        moment = time.monotonic() + self.service.lag_seconds
        self._pending.append((moment, cast("Callable[[], None]", change)))

    def _page(self, ids: list[str], body: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        start, limit = int(body.get("paginationToken") or 0), int(body.get("limit") or PAGE)
        is_last = start + limit >= len(ids)
        return ids[start : start + limit], (
            {} if is_last else {"pagination": {"next": str(start + limit)}}
        )


def _matches(metadata: dict[str, Any], selection: dict[str, Any] | None) -> bool:
    if not selection:
        return True
    if "$and" in selection:
        return all(_matches(metadata, part) for part in selection["$and"])
    ((key, condition),) = selection.items()
    ((operator, wanted),) = condition.items()
    assert operator == "$in"
    return not set(metadata.get(key, [])).isdisjoint(wanted)


class LoopbackPinecone:
    """The control plane, and all indexes."""

    def __init__(self) -> None:
        """Start it."""
        self.api_key = "pcsk-loopback"
        self.lag_seconds = 0.0
        """How long a write is accepted and not seen."""
        self.ready_seconds = 0.0
        """How long a new index is not ready."""
        self.indexes: dict[str, Index] = {}
        self.calls: list[str] = []
        self.largest_body_bytes = 0
        self._faults: deque[tuple[str, Fault]] = deque()
        self.lock = threading.RLock()
        self.servers: list[_Server] = []
        self.server = _serve(self, None)

    @property
    def url(self) -> str:
        """Of the control plane."""
        return _url(self.server)

    def stop(self) -> None:
        """Refuse connections from now on."""
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def inject(self, operation: str, *faults: Fault) -> None:
        """Let the next requests of this operation fail, one fault each."""
        self._faults.extend((operation, fault) for fault in faults)

    def next_fault(self, operation: str) -> Fault:
        """What happens to a request that has come."""
        with self.lock:
            self.calls.append(operation)
            for entry in self._faults:
                if entry[0] == operation:
                    self._faults.remove(entry)
                    return entry[1]
        return Fault()

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create an index."""
        if body["name"] in self.indexes:
            raise RefusedError(409, "ALREADY_EXISTS", "Resource already exists")
        self.indexes[body["name"]] = Index(self, body)
        return self.indexes[body["name"]].model()

    def drop(self, name: str) -> None:
        """Delete an index."""
        self.index(name)
        del self.indexes[name]

    def index(self, name: str) -> Index:
        """An index that has to be there."""
        if name not in self.indexes:
            raise RefusedError(404, "NOT_FOUND", f"Resource {name} not found")
        return self.indexes[name]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: LoopbackPinecone
    index: Index | None


def _serve(service: LoopbackPinecone, index: Index | None) -> _Server:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.service, server.index = service, index
    service.servers.append(server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def _url(server: _Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        """Read."""
        self._answer()

    def do_POST(self) -> None:
        """Write, or ask with a body."""
        self._answer()

    def do_DELETE(self) -> None:
        """Drop."""
        self._answer()

    def _answer(self) -> None:
        server = cast("_Server", self.server)
        service = server.service
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        operation, run = self._operation(server, raw)
        fault = service.next_fault(operation)
        time.sleep(fault.seconds)
        try:
            if self.headers.get("Api-Key") != service.api_key:
                raise RefusedError(401, "UNAUTHENTICATED", "Invalid API Key")
            if operation == "upsert":
                service.largest_body_bytes = max(service.largest_body_bytes, len(raw))
                if len(raw) > MAX_BODY_BYTES:
                    raise RefusedError(413, "PAYLOAD_TOO_LARGE", "Request is too large")
            with service.lock:
                answer = run() if fault.status is None or fault.is_done_first else None
            if fault.status == RESET:
                break_connection(self.connection)
                self.close_connection = True
                return
            if fault.status is not None:
                raise RefusedError(fault.status, "INJECTED", fault.message, fault.retry_after)
            self._send(202 if operation == "drop" else 200, answer)
        except RefusedError as error:
            body = {"error": {"code": error.code, "message": error.message}, "status": error.status}
            self._send(error.status, body, error.retry_after)

    def _operation(self, server: _Server, raw: bytes) -> tuple[str, Callable[[], Any]]:
        parts = urlsplit(self.path)
        body, query = json.loads(raw or b"{}"), parse_qs(parts.query)
        index, service = server.index, server.service
        if index is not None:
            return {
                "/vectors/upsert": ("upsert", lambda: index.upsert(body)),
                "/vectors/delete": ("delete", lambda: index.delete(body)),
                "/vectors/fetch": ("fetch", lambda: index.fetch(query)),
                "/vectors/list": ("list", lambda: index.list_ids(query)),
                "/vectors/fetch_by_metadata": (
                    "fetch_by_metadata",
                    lambda: index.fetch_by_metadata(body),
                ),
                "/query": ("query", lambda: index.query(body)),
            }[parts.path]
        name = parts.path.removeprefix("/indexes").lstrip("/")
        if self.command == "POST":
            return "create", lambda: service.create(body)
        if self.command == "DELETE":
            return "drop", lambda: service.drop(name)
        if name:
            return "describe", lambda: service.index(name).model()
        return "list_indexes", lambda: {"indexes": [i.model() for i in service.indexes.values()]}

    def _send(self, status: int, answer: Any, retry_after: int | None = None) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if retry_after is not None:
                self.send_header("Retry-After", str(retry_after))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has given up waiting


@contextmanager
def loopback_pinecone() -> Iterator[LoopbackPinecone]:
    """A service that lives as long as the block."""
    service = LoopbackPinecone()
    try:
        yield service
    finally:
        close_clients()
        service.stop()
