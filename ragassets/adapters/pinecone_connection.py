"""The connection to Pinecone: its indexes, retries by class, errors of ours.

The SDK tries again by itself three times; what still fails and may pass is tried again here, until
the time is up. Everything that is sent may be sent twice.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from ragassets.adapters.extras import import_untyped
from ragassets.adapters.service_calls import (
    DETAIL_CHARS,
    RETRIED_STATUSES,
    Failure,
    call_patiently,
)
from ragassets.core.settings import PineconeConfig
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    RagAssetsError,
    StorageUnavailableError,
)

Answer = TypeVar("Answer")


class PineconeConnection:
    """Calls to the control plane and to the indexes of one account."""

    def __init__(self, settings: PineconeConfig, *, timeout_seconds: float) -> None:
        """Describe the connection; nothing is sent yet.

        Raises:
            ConfigurationError: there is no key.
        """
        if settings.api_key is None:
            raise ConfigurationError(
                key="pinecone.api_key",
                value=None,
                problem="is needed for a vector_store at Pinecone",
                fix="Set it to ${PINECONE_API_KEY}",
            )
        self.settings = settings
        self._api_key = settings.api_key.get_secret_value()
        self._timeout_seconds = timeout_seconds

    def control(
        self, action: str, send: Callable[[Any], Answer], *, index_version: str = "all"
    ) -> Answer:
        """Ask the control plane: `send` gets the SDK's `indexes`.

        Raises:
            StorageUnavailableError: Pinecone cannot be reached, or cannot do it now.
            ConfigurationError: the key is not accepted.
            IndexVersionError: the request itself is refused.
        """
        return self._ask(action, index_version, lambda: send(self._client().indexes))

    def data(self, action: str, name: str, host: str, send: Callable[[Any], Answer]) -> Answer:
        """Ask an index at its host: `send` gets the SDK's `Index`; errors as of `control`."""
        return self._ask(f"{action} {name!r}", name, lambda: send(self._index(host)))

    def _client(self) -> Any:
        return _shared_client(self._api_key, self.settings.host, self.settings.timeout_seconds)

    def _index(self, host: str) -> Any:
        return _shared_index(self._api_key, self.settings.host, self.settings.timeout_seconds, host)

    def _ask(self, action: str, index_version: str, send: Callable[[], Answer]) -> Answer:
        return call_patiently(
            send,
            read_failure,
            lambda failure: self._translated(failure, action, index_version),
            patience_seconds=self._timeout_seconds,
        )

    def _translated(self, failure: Failure, action: str, index_version: str) -> RagAssetsError:
        detail = f"{action} failed ({failure.detail})"
        match failure.status:
            case 401 | 402 | 403:
                return ConfigurationError(
                    key="pinecone.api_key",
                    value="…",
                    problem=f"does not allow it: {detail}",
                    fix="Set a key of the right project, with the rights and the quota for it",
                )
            case 400 | 404 | 409 | 412 | 413 | 422:
                return IndexVersionError(
                    index_version=index_version,
                    problem=f"cannot be served as asked by Pinecone: {detail}",
                    fix="See docs/vector-stores.md for what Pinecone can hold",
                )
            case _ if failure.is_refused:
                return StorageUnavailableError(
                    service="vector store Pinecone",
                    detail=f"nobody answers at {self.settings.host or 'api.pinecone.io'}",
                    fix="Mend the network, or pinecone.host",
                )
            case _:
                return StorageUnavailableError(service="vector store Pinecone", detail=detail)


def read_failure(error: BaseException) -> Failure | None:
    """Return what an error of the SDK says; None for one that is not the SDK's."""
    import httpx

    errors = import_untyped("pinecone.errors.exceptions")
    if isinstance(error, errors.ApiError):
        status = int(getattr(error, "status_code", 0))
        return Failure(
            status,
            f"{status} {error}"[:DETAIL_CHARS],
            is_transient=status in RETRIED_STATUSES,
            retry_after_seconds=float(getattr(error, "retry_after", None) or 0.0),
        )
    if isinstance(error, errors.PineconeTimeoutError | errors.PineconeConnectionError):
        is_refused = isinstance(error.__cause__ or error.__context__, httpx.ConnectError)
        return Failure(None, str(error)[:DETAIL_CHARS], True, 0.0, is_refused)  # noqa: FBT003 - a tuple
    if isinstance(error, errors.ResponseParsingError):
        detail = "its answer is not one of Pinecone"
        return Failure(None, detail, is_transient=False)
    return None


_clients: dict[tuple[object, ...], Any] = {}
"""Clients and index handles of this process: making one takes 0.1 s (TLS context)."""


def _shared_client(api_key: str, host: str, timeout_seconds: float) -> Any:
    key = (api_key, host, timeout_seconds)
    if key not in _clients:
        _clients[key] = import_untyped("pinecone").Pinecone(
            api_key=api_key, host=host or None, timeout=timeout_seconds
        )
    return _clients[key]


def _shared_index(api_key: str, control: str, timeout_seconds: float, host: str) -> Any:
    key = (api_key, control, timeout_seconds, host)
    if key not in _clients:
        _clients[key] = _shared_client(api_key, control, timeout_seconds).index(host=host)
    return _clients[key]


def close_clients() -> None:
    """Close all connections of this process; the next call opens new ones."""
    while _clients:
        _clients.popitem()[1].close()
