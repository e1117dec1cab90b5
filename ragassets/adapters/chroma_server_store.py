"""A Chroma server as vector store.

Searches need no lock; whoever writes points of an index version takes its lock first
(`Workspace.index_writer`). A collection appears with its configuration in its metadata, in one
request. Chroma has no aliases: a table of the project keeps them.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from ragassets.adapters.chroma_points import ChromaPoints, collection_settings
from ragassets.adapters.extras import import_untyped
from ragassets.adapters.service_calls import (
    DETAIL_CHARS,
    RETRIED_STATUSES,
    Failure,
    call_patiently,
    refuse_password,
)
from ragassets.adapters.store_session import AliasBook, StoreSession
from ragassets.core.collection_config import CollectionConfig, check_same_config, check_supported
from ragassets.core.indexing import check_name
from ragassets.core.settings import ChromaConfig
from ragassets.core.store_locations import CAPABILITIES, STORE_NAMES
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    RagAssetsError,
    StorageUnavailableError,
    UnknownNameError,
)

if TYPE_CHECKING:
    import httpx

Answer = TypeVar("Answer")

CONFIG_KEY = "ragassets"
"""Metadata of our collections; one without it is somebody else's."""

LIST_COLLECTIONS = 1_000


class ChromaServerStore(ChromaPoints, StoreSession):
    """Collections on a server, by URL. See `VectorStore`."""

    capabilities = CAPABILITIES["chroma-server"]

    def __init__(
        self, url: str, settings: ChromaConfig, aliases: AliasBook, *, timeout_seconds: float
    ) -> None:
        """Describe the store; nothing is sent yet.

        Raises:
            ConfigurationError: the URL holds a password.
        """
        super().__init__(aliases)
        refuse_password(url, key="chroma.api_key", variable="CHROMA_API_KEY")
        self._url, self._settings = url.rstrip("/"), settings
        self._timeout_seconds = timeout_seconds
        self._configs: dict[str, CollectionConfig] = {}

    def close(self) -> None:
        """Forget what was read; the client stays with the process for the next session."""
        self._configs.clear()

    def ensure_collection(
        self,
        name: str,
        config: CollectionConfig,
        *,
        before_create: Callable[[], None] | None = None,
    ) -> None:
        """Create the collection unless it exists with this very configuration."""
        check_name("index version", name)
        check_supported(STORE_NAMES["chroma-server"], self.capabilities, config)
        existing = self._read_configs().get(name)
        if existing is None:
            if before_create is not None:
                before_create()
            # Whoever lost a race, or the answer to its first request, gets what is there.
            self._ask(
                f"creating collection {name!r}",
                lambda client: client.get_or_create_collection(
                    self._full_name(name),
                    metadata={CONFIG_KEY: config.model_dump_json()},
                    **collection_settings(config),
                ),
                index_version=name,
            )
            existing = self._read_configs().get(name)
        if existing is None:
            raise IndexVersionError(
                index_version=name,
                problem=f"is a collection of somebody else: {self._full_name(name)}",
                fix="Set another chroma.collection_prefix",
            )
        check_same_config(name, existing=existing, wanted=config)

    def list_collections(self) -> list[str]:
        """Return the names of all collections of this project, sorted."""
        return sorted(self._read_configs())

    def collection_config(self, name: str) -> CollectionConfig:
        """Return the configuration that the collection was created with."""
        if name not in self._configs:
            known = self._read_configs()
            if name not in known:
                raise UnknownNameError(kind="collection", name=name, known=sorted(known))
            self._configs[name] = known[name]
        return self._configs[name]

    def drop_collection(self, name: str) -> None:
        """Remove the collection; nothing happens when there is none."""
        check_name("index version", name)
        self._refuse_if_served(name)
        self._configs.pop(name, None)
        if name in self._read_configs():
            missing = import_untyped("chromadb.errors").NotFoundError

            def drop(client: Any) -> None:
                try:
                    client.delete_collection(self._full_name(name))
                except missing:  # an answer that was lost came after the deletion
                    return

            self._ask(f"dropping collection {name!r}", drop, index_version=name)

    def problems(self, name: str) -> list[str]:
        """Nothing that Chroma would tell."""
        self.collection_config(name)
        return []

    def _call(self, action: str, name: str, ask: Callable[[Any], Answer]) -> Answer:
        self.collection_config(name)
        return self._ask(
            f"{action} {name!r}",
            lambda client: ask(
                client.get_collection(self._full_name(name), embedding_function=None)
            ),
            index_version=name,
        )

    def _before_write(self, n_points: int, config: CollectionConfig) -> None:
        """Nothing: the server refuses what it has no room for."""

    def _full_name(self, name: str) -> str:
        return f"{self._settings.collection_prefix}{name}"

    def _read_configs(self) -> dict[str, CollectionConfig]:
        prefix = self._settings.collection_prefix
        found = self._ask("listing collections", lambda c: c.list_collections(LIST_COLLECTIONS))
        return {
            collection.name.removeprefix(prefix): CollectionConfig.model_validate_json(
                collection.metadata[CONFIG_KEY]
            )
            for collection in found
            if collection.name.startswith(prefix) and CONFIG_KEY in (collection.metadata or {})
        }

    def _ask(
        self, action: str, send: Callable[[Any], Answer], *, index_version: str = "all"
    ) -> Answer:
        """Send a request that may be sent twice; try again what may pass."""
        return call_patiently(
            lambda: send(self._client()),
            read_failure,
            lambda failure: self._translated(failure, action, index_version),
            patience_seconds=self._timeout_seconds,
        )

    def _client(self) -> Any:
        key = self._settings.api_key
        return _shared_client(
            self._url,
            key.get_secret_value() if key else None,
            self._settings.tenant,
            self._settings.database,
            self._settings.timeout_seconds,
        )

    def _translated(self, failure: Failure, action: str, index_version: str) -> RagAssetsError:
        detail = f"{action} failed ({failure.detail})"
        match failure.status:
            case 401 | 403:
                return ConfigurationError(
                    key="chroma.api_key",
                    value="…" if self._settings.api_key else None,
                    problem=f"is not accepted by {self._url} for {action}",
                    fix="Set the key that the server expects as x-chroma-token",
                )
            case 400 | 404 | 409 | 413 | 422:
                return IndexVersionError(
                    index_version=index_version,
                    problem=f"cannot be served as asked by {self._url}: {detail}",
                    fix="See docs/vector-stores.md for the versions of Chroma that can",
                )
            case _ if failure.is_refused:
                return StorageUnavailableError(
                    service=f"vector store {self._url}",
                    detail="nobody answers there",
                    fix="Start the Chroma server, or mend vector_store",
                )
            case _:
                return StorageUnavailableError(service=f"vector store {self._url}", detail=detail)


def read_failure(error: BaseException) -> Failure | None:
    """Return what an error of the client says; None for one that is not the client's.

    Chroma raises its own family, httpx's errors, and for any other status a bare `Exception` whose
    context is httpx's; a server that is not there is a `ValueError` around httpx's error.
    """
    import httpx

    chroma_error = import_untyped("chromadb.errors").ChromaError
    if isinstance(error, chroma_error):
        status = int(cast("Any", error).code())
        return Failure(status, f"{status} {error}"[:DETAIL_CHARS], status in RETRIED_STATUSES)
    if isinstance(error, httpx.TransportError):
        is_refused = isinstance(error, httpx.ConnectError)
        return Failure(None, str(error) or type(error).__name__, True, 0.0, is_refused)  # noqa: FBT003 - a tuple
    if isinstance(error, httpx.HTTPStatusError):
        return _read_status(error.response)
    cause = error.__cause__ or error.__context__
    if type(error) in (ValueError, Exception) and isinstance(cause, Exception):
        return read_failure(cause)
    return None


def _read_status(response: "httpx.Response") -> Failure:
    status, asked = response.status_code, response.headers.get("retry-after", "")
    return Failure(
        status,
        f"{status} {response.text}"[:DETAIL_CHARS],
        is_transient=status in RETRIED_STATUSES,
        retry_after_seconds=float(asked) if asked.isdecimal() else 0.0,
    )


@lru_cache(maxsize=8)
def _shared_client(
    url: str, api_key: str | None, tenant: str, database: str, timeout_seconds: float
) -> Any:
    """One client for all sessions of this process: making one asks the server three times.

    Its requests wait for ever, those of its making too, and no setting of it says otherwise. So
    the server is asked first whether it answers at all.
    """
    import httpx

    headers = {"x-chroma-token": api_key} if api_key else None
    httpx.get(
        f"{url}/api/v2/heartbeat", headers=headers, timeout=timeout_seconds
    ).raise_for_status()
    parts = urlsplit(url)
    is_encrypted = parts.scheme == "https"
    client = import_untyped("chromadb").HttpClient(
        host=parts.hostname,
        port=parts.port or (443 if is_encrypted else 8000),
        ssl=is_encrypted,
        headers=headers,
        settings=import_untyped("chromadb.config").Settings(anonymized_telemetry=False),
        tenant=tenant,
        database=database,
    )
    client._server._session.timeout = timeout_seconds  # noqa: SLF001
    return client
