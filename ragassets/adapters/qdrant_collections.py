"""Collections of a Qdrant server: made whole or not at all, described by their own metadata.

A server has no lock for us, but creating a collection succeeds for one caller only. So a collection
is created as "creating", then gets its payload indexes, and counts from the moment on that its
metadata say "ready". What a crash leaves half made is finished by the next caller.
"""

import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ragassets.adapters.point_encoding import INDEXED_FIELDS
from ragassets.adapters.qdrant_connection import QdrantConnection
from ragassets.adapters.service_calls import sleep_until
from ragassets.core.access import TENANT
from ragassets.core.collection_config import CollectionConfig, check_same_config
from ragassets.core.indexing import DENSE_VECTOR, NAME_PATTERN, SPARSE_VECTOR
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    ServiceError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from qdrant_client.models import CollectionInfo, QuantizationConfig

METADATA_KEY = "ragassets"

SERVER_FIELDS = (*INDEXED_FIELDS, "source_shard", "uri")
"""Payload indexes; created before the upload, because an HNSW graph that is built without them
knows no links for filters. Source: https://qdrant.tech/documentation/concepts/indexing/"""

INDEXING_THRESHOLD_KIB = 10_000
"""Qdrant's own default: segments of more vectors than this get an HNSW graph."""

TAKE_OVER_SECONDS = 5.0
"""A creation takes less than a second; one that stands still for longer was killed."""

READY_SECONDS = 3.0
"""A server that is not ready says so by an error that would be retried for a minute."""


class StoredCollection(NamedTuple):
    """What the server's metadata say of one collection."""

    config: CollectionConfig
    is_ready: bool
    owner: str
    """Who creates it."""
    info: "CollectionInfo"


class QdrantCollections:
    """The collections of one project on a server; names are without the prefix."""

    def __init__(self, connection: QdrantConnection) -> None:
        """Use a connection."""
        self._connection = connection
        self._settings = connection.settings
        self._prefix = connection.settings.collection_prefix

    def full_name(self, name: str) -> str:
        """Return the name that the server knows."""
        return f"{self._prefix}{name}"

    def names(self) -> list[str]:
        """Return the names of the complete collections of this project, sorted."""
        answer = self._connection.call("listing collections", lambda c: c.get_collections())
        candidates = [
            description.name.removeprefix(self._prefix)
            for description in answer.collections
            if description.name.startswith(self._prefix)
        ]
        found = {name: self._find(name) for name in candidates if NAME_PATTERN.fullmatch(name)}
        return sorted(name for name, stored in found.items() if stored and stored.is_ready)

    def ready(self, name: str) -> StoredCollection:
        """Return a complete collection.

        Raises:
            UnknownNameError: there is none of this name.
        """
        stored = self._find(name)
        if stored is None or not stored.is_ready:
            raise UnknownNameError(kind="collection", name=name, known=self.names())
        return stored

    def ensure(
        self, name: str, config: CollectionConfig, before_create: Callable[[], None]
    ) -> None:
        """Create the collection unless it is there; one of several callers creates it."""
        owner = uuid.uuid4().hex
        stored = self._find(name) or self._create(name, config, owner)
        if stored.is_ready:
            check_same_config(name, existing=stored.config, wanted=config)
            self._apply_settings(name, stored)
        elif stored.owner != owner and self._wait_for_other(name, stored.owner):
            self.ensure(name, config, before_create)
        elif stored.config != config:
            self.drop(name)
            self.ensure(name, config, before_create)
        else:
            before_create()
            self._finish(name, config, owner)

    def drop(self, name: str) -> None:
        """Remove the collection, complete or half made; nothing happens when there is none."""
        if self._find(name) is not None:
            self._connection.call(
                f"dropping collection {name!r}",
                lambda c: c.delete_collection(
                    self.full_name(name), timeout=round(self._settings.timeout_seconds) or 1
                ),
                index_version=name,
            )

    def optimize(self, name: str) -> bool:
        """Let the server index what an upload left unindexed, and wait for it."""
        from qdrant_client import models

        before = self.ready(name).info
        if before.config.optimizer_config.indexing_threshold == 0:
            self._update(
                name,
                optimizers_config=models.OptimizersConfigDiff(
                    indexing_threshold=INDEXING_THRESHOLD_KIB
                ),
            )
        sleep_until(
            lambda: self.ready(name).info.status in ("green", "red"),
            timeout_seconds=self._settings.indexing_timeout_seconds,
        )
        after = self.ready(name).info
        return (after.indexed_vectors_count or 0) > (before.indexed_vectors_count or 0)

    def problems(self, name: str) -> list[str]:
        """Say what keeps the server from serving the collection as it should."""
        try:
            self._connection.call(
                "asking whether it is ready",
                lambda c: c.http.service_api.readyz(),
                timeout_seconds=READY_SECONDS,
            )
        except ServiceError as error:
            return [f"the vector store is not ready ({error.detail})"]
        info = self.ready(name).info
        optimizer_error = getattr(info.optimizer_status, "error", None)
        if info.status == "red" or optimizer_error:
            return [f"the server cannot index the collection ({optimizer_error or info.status})"]
        if info.status != "green":
            return ["the server is still indexing the collection"]
        return []

    # What the calls above share

    def _find(self, name: str) -> StoredCollection | None:
        """Return the collection, half made or not; None where there is none of ours.

        A collection without our metadata, or with another prefix, is somebody else's.
        """
        full = self.full_name(name)
        if not self._exists(name):
            return None
        try:
            info = self._connection.call(
                f"reading collection {name!r}", lambda c: c.get_collection(full), index_version=name
            )
        except IndexVersionError:
            if self._exists(name):
                raise
            return None  # somebody dropped it in between
        entry = (info.config.metadata or {}).get(METADATA_KEY)
        if not isinstance(entry, dict):
            return None
        values = cast("dict[str, object]", entry)
        if values.get("prefix") != self._prefix:
            return None
        config = CollectionConfig.model_validate_json(str(values["config"]))
        return StoredCollection(
            config, values.get("state") == "ready", str(values.get("owner")), info
        )

    def _exists(self, name: str) -> bool:
        full = self.full_name(name)
        return self._connection.call(
            f"looking for collection {name!r}", lambda c: c.collection_exists(full)
        )

    def _create(self, name: str, config: CollectionConfig, owner: str) -> StoredCollection:
        """Create the collection, or return the one that somebody else has created meanwhile."""
        try:
            self._connection.call(
                f"creating collection {name!r}",
                lambda c: c.create_collection(
                    self.full_name(name),
                    metadata=self._metadata(config, "creating", owner),
                    **self._parameters(config),
                ),
                index_version=name,
            )
        except IndexVersionError as error:
            # Also where the answer to our own first request was lost.
            stored = self._find(name)
            if stored is None:
                raise IndexVersionError(
                    index_version=name,
                    problem=f"cannot be created on the server ({error.problem})",
                    fix="If a collection of that name is somebody else's, set"
                    " qdrant.collection_prefix",
                ) from error
            return stored
        stored = self._find(name)
        if stored is None:
            self._connection.call(
                f"dropping collection {name!r}", lambda c: c.delete_collection(self.full_name(name))
            )
            raise ConfigurationError(
                key="vector_store",
                value=self._connection.url,
                problem="keeps no metadata of collections, as servers before Qdrant 1.16 do",
                fix="Upgrade the server",
            )
        return stored

    def _finish(self, name: str, config: CollectionConfig, owner: str) -> None:
        """Create the payload indexes, then say that the collection is complete."""
        self._index_fields(name, SERVER_FIELDS)
        self._update(name, metadata=self._metadata(config, "ready", owner))

    def _index_fields(self, name: str, fields: Iterable[str]) -> None:
        """Create payload indexes; the tenant's keeps each tenant's points side by side on disk.

        Source: https://qdrant.tech/documentation/guides/multitenancy/
        """
        from qdrant_client.models import KeywordIndexParams, KeywordIndexType

        for field in fields:
            schema = KeywordIndexParams(type=KeywordIndexType.KEYWORD, is_tenant=field == TENANT)
            self._connection.call(
                f"indexing {field} of {name!r}",
                lambda c, field=field, schema=schema: c.create_payload_index(
                    self.full_name(name), field, field_schema=schema, wait=True
                ),
                index_version=name,
            )

    def _wait_for_other(self, name: str, owner: str) -> bool:
        """Whether somebody else's creation goes on."""

        def has_changed() -> bool:
            stored = self._find(name)
            return stored is None or stored.is_ready or stored.owner != owner

        return sleep_until(has_changed, timeout_seconds=TAKE_OVER_SECONDS)

    def _metadata(self, config: CollectionConfig, state: str, owner: str) -> dict[str, object]:
        entry = {
            "config": config.model_dump_json(),
            "state": state,
            "owner": owner,
            "prefix": self._prefix,
        }
        return {METADATA_KEY: entry}

    def _parameters(self, config: CollectionConfig) -> dict[str, Any]:
        """What a collection is created with; vectors are not indexed while it is filled."""
        from qdrant_client import models

        distances = {
            "cosine": models.Distance.COSINE,
            "dot": models.Distance.DOT,
            "euclid": models.Distance.EUCLID,
        }
        dense = models.VectorParams(
            size=config.dim,
            distance=distances[config.distance],
            on_disk=self._settings.on_disk,
            quantization_config=_quantization(config),
        )
        sparse = {SPARSE_VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}
        return {
            "vectors_config": {DENSE_VECTOR: dense},
            "sparse_vectors_config": sparse if config.sparse else None,
            "shard_number": self._settings.shard_number,
            "replication_factor": self._settings.replication_factor,
            "write_consistency_factor": self._settings.write_consistency_factor,
            "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=0),
            "timeout": round(self._settings.timeout_seconds) or 1,
        }

    def _apply_settings(self, name: str, stored: StoredCollection) -> None:
        """Bring what may change on a living collection in line with the configuration."""
        from qdrant_client import models

        settings, params = self._settings, stored.info.config.params
        changed = {
            key: wanted
            for key in ("replication_factor", "write_consistency_factor")
            if (wanted := getattr(settings, key)) not in (None, getattr(params, key))
        }
        if changed:
            self._update(name, collection_params=models.CollectionParamsDiff(**changed))
        vectors = cast("dict[str, models.VectorParams]", params.vectors)
        if settings.on_disk not in (None, bool(vectors[DENSE_VECTOR].on_disk)):
            diff = models.VectorParamsDiff(on_disk=settings.on_disk)
            self._update(name, vectors_config={DENSE_VECTOR: diff})
        # Collections of an earlier release have fewer payload indexes.
        schema = stored.info.payload_schema
        self._index_fields(name, [field for field in SERVER_FIELDS if field not in schema])

    def _update(self, name: str, **changes: Any) -> None:
        self._connection.call(
            f"changing collection {name!r}",
            lambda c: c.update_collection(self.full_name(name), **changes),
            index_version=name,
        )


def _quantization(config: CollectionConfig) -> "QuantizationConfig | None":
    """Quantized vectors stay in memory: they are what a search looks through first."""
    from qdrant_client import models

    match config.quantization:
        case "none":
            return None
        case "int8":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            binary = models.BinaryQuantizationConfig(always_ram=True)
            return models.BinaryQuantization(binary=binary)
