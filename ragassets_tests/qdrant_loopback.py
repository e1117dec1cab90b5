"""A Qdrant server on loopback that speaks REST and gRPC, and fails on demand.

It stands in for a real server, which no package ships: sockets, messages and status codes are real,
`qdrant_engine.Engine` answers.
"""

import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import grpc
from pydantic import BaseModel, TypeAdapter
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http.models import QueryResponse

from ragassets_tests.qdrant_engine import Engine, EngineError

RESET = 0
"""A fault's status for a connection that breaks without an answer."""

GRPC_CODES = {
    RESET: grpc.StatusCode.UNAVAILABLE,
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True)
class Fault:
    """What happens to one request."""

    status: int | None = None
    """The status to answer with, RESET to break the connection; None answers as usual."""
    retry_after: int | None = None
    seconds: float = 0.0
    """Wait before anything else."""
    is_done_first: bool = False
    """Do the request, then fail: the answer is lost."""
    message: str = "injected"


def break_connection(connection: socket.socket) -> None:
    """End it by a reset: lingering for no time makes the kernel send one."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class LoopbackQdrant:
    """A running server."""

    def __init__(self, folder: Path, *, api_key: str | None = None) -> None:
        """Start it on free ports."""
        self.engine = Engine(folder)
        self.api_key = api_key
        self.update_status = models.UpdateStatus.COMPLETED
        self.is_ready = True
        self.calls: list[str] = []
        """Names of the operations, in the order of their arrival."""
        self.largest_request_bytes = 0
        self._faults: deque[tuple[str, Fault]] = deque()
        self._lock = threading.RLock()
        self._http = _HttpServer(("127.0.0.1", 0), _Handler)
        self._http.loopback = self
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(max_workers=8),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        messages.add_CollectionsServicer_to_server(_Collections(self), self._grpc)
        messages.add_PointsServicer_to_server(_Points(self), self._grpc)
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()

    @property
    def url(self) -> str:
        """Of the REST interface."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._grpc.stop(grace=0.5).wait()
        with self._lock:
            self.engine.close()

    def inject(self, operation: str, *faults: Fault) -> None:
        """Let the next requests of this operation fail, one fault each."""
        self._faults.extend((operation, fault) for fault in faults)

    def serve(self, operation: str, n_bytes: int, key: str | None, run: Callable[[], Any]) -> Any:
        """Do one request, or what was injected instead of it."""
        self.calls.append(operation)
        if operation == "upsert":
            self.largest_request_bytes = max(self.largest_request_bytes, n_bytes)
        if self.api_key is not None and key != self.api_key:
            raise EngineError(401, "Must provide an API key or an Authorization bearer token")
        fault = self._next_fault(operation)
        time.sleep(fault.seconds)
        with self._lock:
            answer = run() if fault.status is None or fault.is_done_first else None
        if fault.status is not None:
            raise InjectedError(fault)
        return answer

    def _next_fault(self, operation: str) -> Fault:
        with self._lock:
            for entry in self._faults:
                if entry[0] == operation:
                    self._faults.remove(entry)
                    return entry[1]
        return Fault()

    def updated(self) -> models.UpdateResult:
        """The answer to a write."""
        return models.UpdateResult(operation_id=0, status=self.update_status)


class InjectedError(EngineError):
    """A fault that somebody asked for."""

    def __init__(self, fault: Fault) -> None:
        """Keep the fault."""
        self.fault = fault
        super().__init__(fault.status or 0, fault.message)


@contextmanager
def loopback_qdrant(folder: Path, *, api_key: str | None = None) -> Iterator[LoopbackQdrant]:
    """A server that lives as long as the block."""
    server = LoopbackQdrant(folder, api_key=api_key)
    try:
        yield server
    finally:
        server.stop()


# REST


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    loopback: LoopbackQdrant

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that broke their connection."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _parse(model: Any, body: bytes) -> Any:
    return TypeAdapter(model).validate_json(body)


Run = Callable[[LoopbackQdrant, list[str], bytes], Any]


def _upsert(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    server.engine.upsert(names[0], _parse(models.PointsList, body).points)
    return server.updated()


def _delete(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    server.engine.delete(names[0], _parse(models.PointIdsList, body).points)
    return server.updated()


def _index(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    wanted = _parse(models.CreateFieldIndex, body)
    server.engine.create_index(names[0], wanted.field_name, wanted.field_schema)
    return server.updated()


def _scroll(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    r = _parse(models.ScrollRequest, body)
    records, following = server.engine.scroll(
        names[0], limit=r.limit, offset=r.offset, payload=r.with_payload
    )
    return models.ScrollResult(points=records, next_page_offset=following)


def _retrieve(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    r = _parse(models.PointRequest, body)
    return server.engine.retrieve(names[0], r.ids, r.with_payload, r.with_vector)


def _facet(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    r = _parse(models.FacetRequest, body)
    return models.FacetResponse(hits=server.engine.facet(names[0], r.key, r.limit or 10))


def _query(server: LoopbackQdrant, names: list[str], body: bytes) -> Any:
    searches = _parse(models.QueryRequestBatch, body).searches
    return [QueryResponse(points=server.engine.query(names[0], r)) for r in searches]


def _list(server: LoopbackQdrant, _names: list[str], _body: bytes) -> Any:
    names = server.engine.collections
    found = [models.CollectionDescription(name=name) for name in names]
    return models.CollectionsResponse(collections=found)


def _aliases(server: LoopbackQdrant, _names: list[str], _body: bytes) -> Any:
    found = [
        models.AliasDescription(alias_name=alias, collection_name=target)
        for alias, target in server.engine.alias_targets.items()
    ]
    return models.CollectionsAliasesResponse(aliases=found)


ROUTES: list[tuple[str, str, str, Run]] = [
    ("GET", r"/collections", "list", _list),
    ("GET", r"/aliases", "aliases", _aliases),
    (
        "POST",
        r"/collections/aliases",
        "change_aliases",
        lambda s, _n, b: s.engine.change_aliases(_parse(models.ChangeAliasesOperation, b)),
    ),
    (
        "GET",
        r"/collections/([^/]+)/exists",
        "exists",
        lambda s, n, _b: models.CollectionExistence(exists=n[0] in s.engine.collections),
    ),
    ("GET", r"/collections/([^/]+)", "get", lambda s, n, _b: s.engine.collection(n[0]).info()),
    (
        "PUT",
        r"/collections/([^/]+)",
        "create",
        lambda s, n, b: s.engine.create(n[0], _parse(models.CreateCollection, b)),
    ),
    (
        "PATCH",
        r"/collections/([^/]+)",
        "update",
        lambda s, n, b: s.engine.update(n[0], _parse(models.UpdateCollection, b)),
    ),
    ("DELETE", r"/collections/([^/]+)", "drop", lambda s, n, _b: s.engine.drop(n[0])),
    ("PUT", r"/collections/([^/]+)/index", "index", _index),
    ("PUT", r"/collections/([^/]+)/points", "upsert", _upsert),
    ("POST", r"/collections/([^/]+)/points", "retrieve", _retrieve),
    ("POST", r"/collections/([^/]+)/points/delete", "delete", _delete),
    ("POST", r"/collections/([^/]+)/points/scroll", "scroll", _scroll),
    (
        "POST",
        r"/collections/([^/]+)/points/count",
        "count",
        lambda s, n, b: models.CountResult(
            count=s.engine.count(n[0], _parse(models.CountRequest, b).filter)
        ),
    ),
    ("POST", r"/collections/([^/]+)/points/query/batch", "query", _query),
    ("POST", r"/collections/([^/]+)/facet", "facet", _facet),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay quiet."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        loopback = cast("_HttpServer", self.server).loopback
        if path in ("/readyz", "/"):
            self._answer(200 if loopback.is_ready else 503, b'"all shards are ready"')
            return
        route = self._route(path)
        if route is None:
            self._answer(404, b"{}")
            return
        operation, names, run = route
        assert parse_qs(urlsplit(self.path).query).get("wait", ["true"]) == ["true"]
        try:
            result = loopback.serve(
                operation,
                len(body),
                self.headers.get("api-key"),
                lambda: run(loopback, names, body),
            )
        except EngineError as error:
            self._refuse(error)
        else:
            content = {"result": _plain(result), "status": "ok", "time": 0.0}
            self._answer(200, json.dumps(content).encode())

    def _route(self, path: str) -> tuple[str, list[str], Run] | None:
        for method, pattern, operation, run in ROUTES:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                return operation, [*match.groups()], run
        return None

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base's names

    def _refuse(self, error: EngineError) -> None:
        if error.status == RESET:
            self.close_connection = True
            break_connection(self.connection)
            return
        headers = {}
        if isinstance(error, InjectedError) and error.fault.retry_after is not None:
            headers["Retry-After"] = str(error.fault.retry_after)
        content = {"status": {"error": error.message}, "time": 0.0}
        self._answer(error.status, json.dumps(content).encode(), headers)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has given up waiting


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


# gRPC


class _Servicer:
    def __init__(self, loopback: LoopbackQdrant) -> None:
        self._loopback = loopback
        self._engine = loopback.engine

    def _serve(self, operation: str, request: Any, context: Any, run: Callable[[], Any]) -> Any:
        key = dict(context.invocation_metadata()).get("api-key")
        try:
            return self._loopback.serve(operation, request.ByteSize(), key, run)
        except EngineError as error:
            if isinstance(error, InjectedError) and error.fault.retry_after is not None:
                context.set_trailing_metadata((("retry-after", str(error.fault.retry_after)),))
            context.abort(GRPC_CODES[error.status], error.message)

    def _updated(self, operation: str, request: Any, context: Any, run: Callable[[], Any]) -> Any:
        def write() -> Any:
            assert request.wait
            run()
            result = RestToGrpc.convert_update_result(self._loopback.updated())
            return messages.PointsOperationResponse(result=result)

        return self._serve(operation, request, context, write)


class _Collections(_Servicer, messages.CollectionsServicer):
    def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name
        def run() -> Any:
            names = self._engine.collections
            found = [messages.CollectionDescription(name=name) for name in names]
            return messages.ListCollectionsResponse(collections=found)

        return self._serve("list", request, context, run)

    def CollectionExists(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            is_there = request.collection_name in self._engine.collections
            found = messages.CollectionExists(exists=is_there)
            return messages.CollectionExistsResponse(result=found)

        return self._serve("exists", request, context, run)

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            info = self._engine.collection(request.collection_name).info()
            return messages.GetCollectionInfoResponse(
                result=RestToGrpc.convert_collection_info(info)
            )

        return self._serve("get", request, context, run)

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            made = self._engine.create(request.collection_name, _create_request(request))
            return messages.CollectionOperationResponse(result=made)

        return self._serve("create", request, context, run)

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            done = self._engine.update(request.collection_name, _update_request(request))
            return messages.CollectionOperationResponse(result=done)

        return self._serve("update", request, context, run)

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            gone = self._engine.drop(request.collection_name)
            return messages.CollectionOperationResponse(result=gone)

        return self._serve("drop", request, context, run)

    def UpdateAliases(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            actions = [GrpcToRest.convert_alias_operations(action) for action in request.actions]
            self._engine.change_aliases(models.ChangeAliasesOperation(actions=actions))
            return messages.CollectionOperationResponse(result=True)

        return self._serve("change_aliases", request, context, run)

    def ListAliases(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            found = [
                messages.AliasDescription(alias_name=alias, collection_name=target)
                for alias, target in self._engine.alias_targets.items()
            ]
            return messages.ListAliasesResponse(aliases=found)

        return self._serve("aliases", request, context, run)


def _create_request(request: Any) -> models.CreateCollection:
    return models.CreateCollection(
        vectors=GrpcToRest.convert_vectors_config(request.vectors_config),
        sparse_vectors=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)
        if request.HasField("sparse_vectors_config")
        else None,
        shard_number=request.shard_number or None,
        replication_factor=request.replication_factor or None,
        write_consistency_factor=request.write_consistency_factor or None,
        optimizers_config=GrpcToRest.convert_optimizers_config_diff(request.optimizers_config),
        metadata=GrpcToRest.convert_payload(request.metadata),
    )


def _update_request(request: Any) -> models.UpdateCollection:
    def converted(field: str, convert: Callable[[Any], Any]) -> Any:
        return convert(getattr(request, field)) if request.HasField(field) else None

    return models.UpdateCollection(
        params=converted("params", GrpcToRest.convert_collection_params_diff),
        vectors=converted("vectors_config", GrpcToRest.convert_vectors_config_diff),
        optimizers_config=converted("optimizers_config", GrpcToRest.convert_optimizers_config_diff),
        metadata=GrpcToRest.convert_payload(request.metadata),
    )


class _Points(_Servicer, messages.PointsServicer):
    def CreateFieldIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        name, field = request.collection_name, request.field_name
        schema = (
            GrpcToRest.convert_payload_schema_params(request.field_index_params)
            if request.HasField("field_index_params")
            else None
        )
        return self._updated(
            "index", request, context, lambda: self._engine.create_index(name, field, schema)
        )

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        return self._updated(
            "upsert", request, context, lambda: self._engine.upsert(request.collection_name, points)
        )

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        ids = [GrpcToRest.convert_point_id(point) for point in request.points.points.ids]
        return self._updated(
            "delete", request, context, lambda: self._engine.delete(request.collection_name, ids)
        )

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            ids = [GrpcToRest.convert_point_id(point) for point in request.ids]
            payload = GrpcToRest.convert_with_payload_selector(request.with_payload)
            vectors = list(request.with_vectors.include.names)
            found = self._engine.retrieve(request.collection_name, ids, payload, vectors)
            return messages.GetResponse(result=[RestToGrpc.convert_record(r) for r in found])

        return self._serve("retrieve", request, context, run)

    def Scroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            has_offset = request.HasField("offset")
            records, following = self._engine.scroll(
                request.collection_name,
                limit=request.limit,
                offset=GrpcToRest.convert_point_id(request.offset) if has_offset else None,
                payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            )
            return messages.ScrollResponse(
                result=[RestToGrpc.convert_record(record) for record in records],
                next_page_offset=following and RestToGrpc.convert_extended_point_id(following),
            )

        return self._serve("scroll", request, context, run)

    def Count(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            selection = (
                GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None
            )
            n_points = self._engine.count(request.collection_name, selection)
            return messages.CountResponse(result=messages.CountResult(count=n_points))

        return self._serve("count", request, context, run)

    def Facet(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            hits = self._engine.facet(request.collection_name, request.key, request.limit)
            return messages.FacetResponse(
                hits=[RestToGrpc.convert_facet_value_hit(h) for h in hits]
            )

        return self._serve("facet", request, context, run)

    def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        def run() -> Any:
            results = []
            for query in request.query_points:
                wanted = GrpcToRest.convert_query_points(query)
                points = self._engine.query(request.collection_name, wanted)
                results.append(
                    messages.BatchResult(
                        result=[RestToGrpc.convert_scored_point(p) for p in points]
                    )
                )
            return messages.QueryBatchResponse(result=results)

        return self._serve("query", request, context, run)
