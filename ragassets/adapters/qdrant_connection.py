"""The connection to a Qdrant server: one client a process, retries by class, errors of ours.

qdrant-client raises four unrelated families of errors. What may pass by itself is tried again until
the time is up: lost connections, time-outs, 429 and 502 to 504. Everything that is sent here may be
sent twice: upserts and deletions name their points, creations and alias moves are looked up.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

from ragassets.adapters.service_calls import (
    DETAIL_CHARS,
    RETRIED_STATUSES,
    Failure,
    call_patiently,
    refuse_password,
)
from ragassets.core.settings import QdrantConfig
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    RagAssetsError,
    StorageUnavailableError,
    SystemResourceError,
)

if TYPE_CHECKING:
    import grpc
    from qdrant_client import QdrantClient

Answer = TypeVar("Answer")

GRPC_STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "ABORTED": 503,
    "CANCELLED": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""What a gRPC status means in HTTP's words, so that both ways are judged by one rule.

Source: google/rpc/code.proto; ABORTED and CANCELLED are what a connection that breaks leaves."""

GRPC_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2_000,
}
"""gRPC fails at once while it waits to connect again: a minute and more by its own choice."""


class QdrantConnection:
    """Calls to one server; cheap to make, because the process keeps the client."""

    def __init__(self, url: str, settings: QdrantConfig, *, timeout_seconds: float) -> None:
        """Describe the connection; nothing is sent yet.

        Args:
            url: of the REST interface.
            settings: the `qdrant` section of the configuration.
            timeout_seconds: for all attempts of one call together.

        Raises:
            ConfigurationError: the URL holds a password.
        """
        refuse_password(url, key="qdrant.api_key", variable="QDRANT_API_KEY")
        self.url = url.rstrip("/")
        self.settings = settings
        self._timeout_seconds = timeout_seconds

    def call(
        self,
        action: str,
        send: "Callable[[QdrantClient], Answer]",
        *,
        index_version: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Send a request that may be sent twice; try again what may pass.

        Args:
            action: what is attempted, for messages: `writing to 'v1'`.
            send: sends it.
            index_version: what it is about.
            timeout_seconds: for all attempts together, where that is not the connection's.

        Raises:
            StorageUnavailableError: the server cannot be reached, or cannot do it now.
            ConfigurationError: the server does not accept the key, or it is no Qdrant server.
            IndexVersionError: the server refuses the request itself.
        """
        patience = self._timeout_seconds
        if timeout_seconds is not None:
            patience = min(patience, timeout_seconds)
        return call_patiently(
            lambda: send(self._client()),
            read_failure,
            lambda failure: self._translated(failure, action, index_version),
            patience_seconds=patience,
        )

    def _client(self) -> "QdrantClient":
        settings, key = self.settings, self.settings.api_key
        return _shared_client(
            self.url,
            settings.grpc_port,
            settings.prefer_grpc,
            key.get_secret_value() if key else None,
            # An integer is all that it takes; 0.3 would become 0, which is for ever in gRPC.
            max(1, round(settings.timeout_seconds)),
        )

    def _translated(
        self, failure: Failure, action: str, index_version: str | None
    ) -> RagAssetsError:
        service = f"vector store {self.url}"
        detail = f"{action} failed ({failure.detail})"
        match failure.status:
            case 401 | 403:
                return ConfigurationError(
                    key="qdrant.api_key",
                    value="…" if self.settings.api_key else None,
                    problem=f"is not accepted by {self.url} for {action}",
                    fix="Set the key that the server was started with",
                )
            case 413:
                return ConfigurationError(
                    key="qdrant.batch_bytes",
                    value=self.settings.batch_bytes,
                    problem=f"is more than {self.url} takes in one request",
                    fix="Lower it, or raise max_request_size_mb of the server",
                )
            case 400 | 404 | 409 | 422 | 501:
                return IndexVersionError(
                    index_version=index_version or "all",
                    problem=f"cannot be served as asked by {self.url}: {detail}",
                    fix="See docs/vector-stores.md for the versions of Qdrant that can",
                )
            case 500 if "space" in failure.detail.lower() or "memory" in failure.detail.lower():
                return SystemResourceError(
                    resource=service, detail=detail, fix="Give the server more disk or memory"
                )
            case _ if failure.is_refused:
                return StorageUnavailableError(
                    service=service,
                    detail=f"nobody answers there ({failure.detail})",
                    fix="Start the Qdrant server, or mend vector_store and qdrant.grpc_port",
                )
            case _:
                return StorageUnavailableError(service=service, detail=detail)


def read_failure(error: BaseException) -> Failure | None:
    """Return what an error of the client says; None for one that is not the client's."""
    import grpc
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(error, grpc.RpcError):
        return _read_grpc_failure(cast("grpc.Call", error))
    if isinstance(error, ResourceExhaustedResponse):
        return Failure(429, error.message[:DETAIL_CHARS], True, float(error.retry_after_s))  # noqa: FBT003 - a tuple
    if isinstance(error, UnexpectedResponse):
        text = error.content.decode("utf-8", "replace").strip() or error.reason_phrase
        is_transient = error.status_code in RETRIED_STATUSES
        return Failure(
            error.status_code, f"{error.status_code} {text}"[:DETAIL_CHARS], is_transient
        )
    if isinstance(error, ResponseHandlingException):
        return _read_transport_failure(error.source)
    return None


def _read_grpc_failure(error: "grpc.Call") -> Failure:
    details = error.details() or ""
    name = error.code().name
    status = GRPC_STATUSES.get(name, 500)
    is_refused = name == "UNAVAILABLE" and (
        "connect" in details.lower() or "name resolution" in details.lower()
    )
    return Failure(
        None if is_refused else status,
        f"{name}: {details}"[:DETAIL_CHARS],
        is_transient=status in RETRIED_STATUSES,
        is_refused=is_refused,
    )


def _read_transport_failure(source: BaseException) -> Failure:
    """What httpx raised; or pydantic, where the answer is not one of Qdrant's."""
    import httpx

    is_transport = isinstance(source, httpx.TransportError)
    detail = str(source) or type(source).__name__
    if not is_transport:
        detail = "its answer is not one of a Qdrant server"
    return Failure(
        None,
        detail[:DETAIL_CHARS],
        is_transient=is_transport,
        is_refused=isinstance(source, httpx.ConnectError),
    )


@lru_cache(maxsize=8)
def _shared_client(
    url: str, grpc_port: int, prefer_grpc: bool, api_key: str | None, timeout_seconds: int
) -> "QdrantClient":
    """One client for all sessions of this process: making one takes 0.1 to 0.6 s (TLS context)."""
    from qdrant_client import QdrantClient

    with warnings.catch_warnings():
        # Inside a cluster a key over http is usual; `doctor` says so where it matters.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return QdrantClient(
            url=url,
            port=443 if url.startswith("https:") else 6333,
            grpc_port=grpc_port,
            prefer_grpc=prefer_grpc,
            api_key=api_key,
            timeout=timeout_seconds,
            grpc_options=dict(GRPC_OPTIONS),
            pool_size=1,
            check_compatibility=False,
        )
