"""Pinecone indexes as collections: one serverless index for each index version.

Dimension and metric belong to an index, so versions cannot share one. What a collection was created
with is in the tags of its index, which come into being with it in one request; the tags also keep
the version's own name, because names of indexes are narrower.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from ragassets.adapters.extras import import_untyped
from ragassets.adapters.pinecone_connection import PineconeConnection
from ragassets.adapters.service_calls import sleep_until
from ragassets.core.collection_config import CollectionConfig, Distance
from ragassets.errors import (
    ConfigurationError,
    IndexVersionError,
    StorageUnavailableError,
    UnknownNameError,
)

METRICS: Mapping[Distance, str] = {
    "cosine": "cosine",
    "dot": "dotproduct",
    "euclid": "euclidean",
}

TAG, TAG_OF_PROJECT = "ragassets-", "ragassets-project"
CONFIG_TAGS = ("dim", "distance", "language", "embedding")

PROJECT_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")

MAX_NAME_CHARS, HASH_CHARS = 45, 8
"""Source: https://docs.pinecone.io/reference/api/database-limits#identifier-limits"""


class PineconeIndex(NamedTuple):
    """An index of this project."""

    full_name: str
    host: str
    is_ready: bool
    config: CollectionConfig


class PineconeIndexes:
    """The indexes of one project; names are those of index versions."""

    def __init__(self, connection: PineconeConnection, project: str) -> None:
        """Use a connection.

        Args:
            connection: to the account.
            project: before every name of an index, and in its tags.
        """
        self._connection, self._project = connection, project

    def all(self) -> dict[str, PineconeIndex]:
        """Return all indexes of this project that are not on their way out."""
        found = self._connection.control("listing indexes", lambda indexes: [*indexes.list()])
        return dict(
            self._read(model)
            for model in found
            if _tags(model).get(TAG_OF_PROJECT) == self._project
            and model.status.state != "Terminating"
        )

    def ready(self, name: str) -> PineconeIndex:
        """Return an index that has to be there, as soon as it can be asked.

        Raises:
            UnknownNameError: there is none.
            StorageUnavailableError: it does not become ready.
        """
        found: dict[str, PineconeIndex] = {}

        def is_ready() -> bool:
            found.clear()
            found.update(self.all())
            return name not in found or (found[name].is_ready and bool(found[name].host))

        patience = self._connection.settings.ready_timeout_seconds
        if not sleep_until(is_ready, timeout_seconds=patience):
            raise StorageUnavailableError(
                service="vector store Pinecone",
                detail=f"index {found[name].full_name} is not ready after {patience:g} s",
                fix="Run again later, or raise pinecone.ready_timeout_seconds",
            )
        if name not in found:
            raise UnknownNameError(kind="collection", name=name, known=sorted(found))
        return found[name]

    def ensure(
        self, name: str, config: CollectionConfig, before_create: Callable[[], None] | None
    ) -> PineconeIndex:
        """Return the index, created if it was not there, ready to be written."""
        if name not in self.all():
            if before_create is not None:
                before_create()
            self._create(name, config)
        return self.ready(name)

    def drop(self, name: str) -> None:
        """Remove the index and wait until it is gone; nothing happens when there is none."""
        index = self.all().get(name)
        if index is None:
            return
        missing = import_untyped("pinecone.errors.exceptions").NotFoundError

        def delete(indexes: Any) -> None:
            try:
                indexes.delete(index.full_name, timeout=-1)
            except missing:  # an answer that was lost came after the deletion
                return

        self._connection.control(f"dropping index {name!r}", delete, index_version=name)
        sleep_until(
            lambda: (
                not self._connection.control(
                    "looking for an index", lambda indexes: indexes.exists(index.full_name)
                )
            ),
            timeout_seconds=self._connection.settings.ready_timeout_seconds,
        )

    def _create(self, name: str, config: CollectionConfig) -> None:
        settings = self._connection.settings
        tags = {key: str(getattr(config, key)) for key in CONFIG_TAGS}
        conflict = import_untyped("pinecone.errors.exceptions").ConflictError
        full_name = index_name(self._project, name)

        def create(indexes: Any) -> None:
            try:
                indexes.create(
                    name=full_name,
                    # The reserved field of the vectors API, see `legacy_vector_schema` of the SDK.
                    schema={
                        "fields": {
                            "_values": {
                                "type": "dense_vector",
                                "dimension": config.dim,
                                "metric": METRICS[config.distance],
                            }
                        }
                    },
                    deployment={
                        "deployment_type": "managed",
                        "cloud": settings.cloud,
                        "region": settings.region,
                    },
                    tags={
                        TAG_OF_PROJECT: self._project,
                        f"{TAG}version": name,
                        **{TAG + key: value for key, value in tags.items()},
                    },
                    timeout=-1,
                )
            except conflict:
                # Somebody else was faster, or the answer to our own first request was lost.
                if name not in self.all():
                    raise

        self._connection.control(f"creating index {full_name!r}", create, index_version=name)

    def _read(self, model: Any) -> tuple[str, PineconeIndex]:
        tags = {key.removeprefix(TAG): value for key, value in _tags(model).items()}
        config = CollectionConfig.model_validate(
            {"sparse": None, **{key: tags.get(key, "") for key in CONFIG_TAGS}}
        )
        index = PineconeIndex(model.name, model.host or "", bool(model.status.ready), config)
        return tags.get("version", str(model.name)), index


def _tags(model: Any) -> dict[str, str]:
    return cast("dict[str, str]", model.tags or {})


def project_of(location: str) -> str:
    """Return the project of `pinecone://PROJECT`.

    Raises:
        ConfigurationError: it cannot begin the name of an index.
    """
    project = location.removeprefix("pinecone://")
    if not PROJECT_PATTERN.fullmatch(project):
        # Not shown: whoever writes a key into the address would find it in a log.
        raise ConfigurationError(
            key="vector_store",
            value="pinecone://…",
            problem="names no project",
            fix="Use pinecone:// and up to 24 lower-case letters, digits and '-'",
        )
    return project


def index_name(project: str, name: str) -> str:
    """Return the name of a version's index: lower case, with a hash where anything was lost.

    Raises:
        IndexVersionError: the name does not fit a tag.
    """
    if len(name) > 120:  # noqa: PLR2004 - Pinecone's limit of a tag's value
        raise IndexVersionError(
            index_version=name, problem="is too long for Pinecone", fix="Use 120 characters"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    full = f"{project}-{slug}"
    if slug == name and len(full) <= MAX_NAME_CHARS:
        return full
    digest = hashlib.sha256(name.encode()).hexdigest()[:HASH_CHARS]
    return f"{full[: MAX_NAME_CHARS - HASH_CHARS - 1].rstrip('-')}-{digest}"
