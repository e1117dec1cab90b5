"""What a vector collection holds, what a vector store can do, and what fits together.

Settings only: loading the configuration must not load a numerical library.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ragassets.errors import ConfigurationError, IndexVersionError

Distance = Literal["cosine", "dot", "euclid"]
Quantization = Literal["none", "int8", "binary"]


class CollectionConfig(BaseModel):
    """Everything about a collection that cannot change after its creation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(gt=0, le=65_536)
    distance: Distance = "cosine"
    sparse: Literal["bm25"] | None = "bm25"
    quantization: Quantization = "none"
    """Smaller copies of the vectors for the approximate index; the best hits are rescored."""
    language: str = "english"
    """Stemmer and stop words of chunks whose own language is unknown or has none."""
    embedding: str = ""
    """Fingerprint of the embedding model whose vectors it holds; empty where nobody said."""


@dataclass(frozen=True)
class StoreCapabilities:
    """What a vector store can do beside storing, counting and searching dense vectors."""

    sparse: bool = True
    """BM25 vectors beside the dense ones, hence sparse and hybrid searches."""
    filters: bool = True
    """Conditions on payloads, in counts and in searches."""
    aliases: bool = True
    """Names that point at collections and move by compare-and-set."""
    is_shared: bool = False
    """Several processes may have it open at once. Where not, the store's own lock keeps writers
    apart; where so, whoever writes points takes the lock of the index version."""
    distances: frozenset[Distance] = frozenset({"cosine", "dot", "euclid"})
    quantizations: frozenset[Quantization] = frozenset({"none", "int8", "binary"})


def check_supported(
    store: str,
    capabilities: StoreCapabilities,
    config: CollectionConfig,
    *,
    index_version: str = "*",
) -> None:
    """Refuse a collection that the store cannot hold.

    Args:
        store: its name in the message.
        capabilities: what it can do.
        config: of the collection.
        index_version: whose collection it is.

    Raises:
        ConfigurationError: naming the setting, and what the store has instead.
    """
    sparse: frozenset[object] = frozenset({"bm25", None} if capabilities.sparse else {None})
    wanted: list[tuple[str, object, frozenset[object]]] = [
        ("sparse", config.sparse, sparse),
        ("distance", config.distance, frozenset(capabilities.distances)),
        ("quantization", config.quantization, frozenset(capabilities.quantizations)),
    ]
    for key, value, supported in wanted:
        if value not in supported:
            known = ", ".join(sorted("null" if name is None else str(name) for name in supported))
            raise ConfigurationError(
                key=f"index_versions.{index_version}.{key}",
                value=value,
                problem=f"is nothing that {store} can do",
                fix=f"Use {known}, or another vector_store",
            )


def check_same_config(name: str, *, existing: CollectionConfig, wanted: CollectionConfig) -> None:
    """Refuse to take one collection for another.

    Raises:
        IndexVersionError: naming every setting that differs.
    """
    old, new = (config.model_dump(exclude={"embedding"}) for config in (existing, wanted))
    if old == new:
        check_same_embedding(name, existing=existing, fingerprint=wanted.embedding)
        return
    differences = [f"{key} {old[key]!r}, not {new[key]!r}" for key in old if old[key] != new[key]]
    raise IndexVersionError(
        index_version=name,
        problem=f"exists with {' and '.join(differences)}",
        fix="Give the new settings a new version name; a collection cannot change them",
    )


def check_same_embedding(name: str, *, existing: CollectionConfig, fingerprint: str) -> None:
    """Refuse vectors of one model in a collection of another: their distances mean nothing.

    Raises:
        IndexVersionError: the collection was built with another model.
    """
    if existing.embedding and fingerprint and existing.embedding != fingerprint:
        raise IndexVersionError(
            index_version=name,
            problem="was built with another embedding model",
            fix="Give the changed model and a new index version new names",
        )
