"""The configuration file as frozen models; every error names the key, the value and the fix.

`load_config` finds the file, fills in `${ENV}` values, validates, and resolves relative paths
against the folder that the file is in. Nothing is opened here: what can be checked without touching
storage, models or services is checked here, the rest by whoever opens it.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ragassets.core import notification_settings
from ragassets.core.collection_config import CollectionConfig, check_supported
from ragassets.core.kafka_settings import KafkaConfig, parse_topic_address
from ragassets.core.record_settings import (
    API_SCHEMES,
    ApiConfig,
    RecordConfig,
    check_record_source,
)
from ragassets.core.settings import (
    ChromaConfig,
    ChunkingConfig,
    CircuitBreakerConfig,
    CleaningConfig,
    DeduplicationConfig,
    EmbeddingModelConfig,
    GatesConfig,
    PineconeConfig,
    QdrantConfig,
    RedactionKind,
    RerankerConfig,
    RetryConfig,
    ValidationConfig,
)
from ragassets.core.source_settings import NIGHTLY, FetchConfig, ObjectStoreConfig, SensorConfig
from ragassets.core.store_locations import (
    CAPABILITIES,
    STORE_NAMES,
    StoreKind,
    parse_location,
    with_path,
)
from ragassets.core.web_settings import WEB_SCHEMES, WebConfig, site_problem
from ragassets.errors import ConfigurationError, UnknownNameError

CONFIG_FILE = "ragassets.yaml"
CONFIG_VARIABLE = "RAGASSETS_CONFIG"

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
"""Names become partition keys and folder names: no separators of either."""

SUPPORTED_SCHEMES = ("file", "s3", "gs", "az", "http", "https", "kafka", *API_SCHEMES)
"""Sources that can be read; the other schemes of the configuration contract are refused by name."""

LANDING_SCHEMES = ("kafka", "http", "https")
"""Sources that keep bodies as they list them; see `adapters/sources/landed_bodies.py`."""

CRON_FIELDS = 5
"""Minute, hour, day of the month, month, day of the week."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LanguageRules(_Section):
    """Which languages a source's documents may have."""

    accept: tuple[str, ...] = ()
    """ISO 639-1 codes; empty accepts every language."""
    otherwise: Literal["keep", "reject", "translate"] = "keep"


class SourceConfig(_Section):
    """Where documents come from."""

    uri: str
    include: tuple[str, ...] = ("**/*",)
    exclude: tuple[str, ...] = ()
    shards: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Partitions of this source. Dagster recommends at most 100,000 partitions an asset."""
    schedule: str | None = None
    """When a daemon lists the source: five fields of cron. See `listing_schedule`."""
    timezone: str = "UTC"
    """What `schedule` counts in, such as `Europe/Berlin`."""
    sensor: bool | SensorConfig = False
    """Whether a daemon keeps looking for changes."""
    document_type: str | None = None
    languages: LanguageRules = LanguageRules()
    redact: tuple[RedactionKind, ...] = ()
    metadata: Mapping[str, str | int | float | bool] = Field(default_factory=dict)
    acl: tuple[str, ...] = ()
    """Users and groups that may read it (`search --as`); empty, or `*`, is everybody."""
    tenant: Name | None = None
    """Whose documents these are. Where any source has one, every search has to say whose it
    wants. A change updates payloads, parses and embeds nothing."""
    max_delete_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    mirrors: tuple[str, ...] = ()
    """Other places that hold the same objects under the same relative paths, asked in this order
    when the source itself cannot give one. They are never listed."""
    fetch: FetchConfig = FetchConfig()
    store: ObjectStoreConfig = ObjectStoreConfig()
    """Where the object store is, if not where the environment says."""
    web: WebConfig = WebConfig()
    """How a web site is crawled."""
    kafka: KafkaConfig = KafkaConfig()

    records: RecordConfig | None = None
    """How records become documents, where documents are records: see docs/apis.md."""
    api: ApiConfig | None = None
    """How a JSON API is asked for them."""

    @model_validator(mode="after")
    def _check_records(self) -> Self:
        check_record_source(self.uri, self.scheme, self.api, self.records)
        return self

    @model_validator(mode="after")
    def _check_timezone(self) -> Self:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
            message = f"timezone: {self.timezone!r} is no time zone such as 'Europe/Berlin'"
            raise ValueError(message) from error
        return self

    @property
    def watching(self) -> SensorConfig | None:
        """How a daemon looks for changes; None where it does not."""
        if self.sensor is True:
            return SensorConfig()
        return self.sensor or None

    @property
    def listing_schedule(self) -> str | None:
        """When a daemon lists it: nightly where a queue tells of changes, unless it says else."""
        is_told = self.watching is not None and self.watching.queue is not None
        return NIGHTLY if is_told and "schedule" not in self.model_fields_set else self.schedule

    @model_validator(mode="after")
    def _refuse_what_is_not_there_yet(self) -> Self:
        if self.languages.otherwise == "translate":
            message = "languages.otherwise: translate comes in a later release; use keep or reject"
            raise ValueError(message)
        if self.scheme not in SUPPORTED_SCHEMES:
            message = (
                f"uri: {self.scheme}:// comes in a later release; use a local folder, s3://, gs://,"
                " az://, https://, kafka:// or rest+https://"
            )
            raise ValueError(message)
        if problem := site_problem(self.uri, self.web, has_mirrors=bool(self.mirrors)):
            raise ValueError(problem)
        if self.scheme == "kafka":
            parse_topic_address(self.uri)
        if self.watching and self.watching.queue and self.scheme != "s3":
            message = f"sensor.queue: only s3:// has one, and uri is {self.uri!r}"
            raise ValueError(message)
        return self

    def at(self, uri: str) -> "SourceConfig":
        """The same source elsewhere: one of its mirrors."""
        return self.model_copy(update={"uri": uri, "mirrors": ()})

    @property
    def rest_seconds(self) -> int:
        """What a daemon waits after it saw all of the source, besides its interval."""
        return self.web.crawl_interval_seconds if self.scheme in WEB_SCHEMES else 0

    @property
    def lands_bodies(self) -> bool:
        """Whether bodies come with the listing: then one of them cannot be asked for again."""
        return self.has_records or self.scheme in LANDING_SCHEMES

    @property
    def has_records(self) -> bool:
        """Whether its documents are records, of an API or of dumps."""
        return self.records is not None or self.scheme in API_SCHEMES

    @property
    def is_stream(self) -> bool:
        """Whether it is read, message by message, instead of listed."""
        return self.scheme == "kafka"

    @property
    def scheme(self) -> str:
        """`file` for plain paths, else the URI's scheme."""
        return _scheme(self.uri)


def _scheme(uri: str) -> str:
    scheme = urlsplit(uri).scheme
    return scheme if len(scheme) > 1 else "file"


class DocumentTypeConfig(_Section):
    """Chunking rules of one document type; what is left out comes from the chunking itself."""

    strategy: Literal["recursive", "fixed", "sentence", "by_title"] | None = None
    max_tokens: Annotated[int, Field(ge=16)] | None = None
    overlap_tokens: Annotated[int, Field(ge=0)] | None = None


class IndexVersionConfig(_Section):
    """A named collection: an embedding set with distance, quantization and sparse vectors."""

    chunking: str
    embedding_model: str
    distance: Literal["cosine", "dot", "euclid"] = "cosine"
    sparse: Literal["bm25"] | None = "bm25"
    """Where it is not given: null in a vector store that has no sparse vectors."""
    quantization: Literal["none", "int8", "binary"] = "none"
    """Search smaller copies of the vectors first, then rescore; see docs/vector-stores.md."""
    backfill: Literal["auto", "manual"] = "auto"

    @property
    def embedding_set(self) -> str:
        """One chunking under one embedding model."""
        return f"{self.chunking}.{self.embedding_model}"


class AliasConfig(_Section):
    """The name that queries use."""

    live: str
    """The version where the alias starts; `promote` and `rollback` move it afterwards."""
    golden_queries: str | None = None
    """JSON lines `{"query": text, "relevant": {URI: grade}}`."""
    reranker: str | None = None
    """What reads the best hits again, of `rerankers`; `search --rerank` and `--no-rerank` differ
    for one search."""
    gates: GatesConfig | None = None
    """Gates of this alias, where they differ from the global ones."""

    @model_validator(mode="after")
    def _refuse_gates_that_nothing_measures(self) -> Self:
        if self.gates is None or self.golden_queries is not None:
            return self
        for name in ("min_ndcg_at_10", "min_recall_at_10", "min_mrr_at_10"):
            if (limit := getattr(self.gates, name)) is not None:
                message = f"gates.{name}: {limit} needs golden_queries to be measured by"
                raise ValueError(message)
        return self


class LedgerConfig(_Section):
    """How long vectors are kept that no document has any more."""

    keep_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    """A text that comes back within this time costs no embedding. 90 days outlive a quarter's
    clean-up that somebody takes back; 10 million unused vectors of 384 dimensions are 15 GB."""


class RetentionConfig(_Section):
    """How long what is no longer used is kept."""

    rollback_days: Annotated[int, Field(ge=0, le=36_500)] = 7
    """A version that an alias served is not dropped before, because it is the way back: a week
    covers the complaints of a working week and the holiday after it."""


class AuditConfig(_Section):
    """When everything that is stored is compared, and what is done about what differs."""

    schedule: str | None = "0 3 * * *"
    """Cron, UTC; null for never. Nightly, because an audit reads everything once."""
    repair: bool = False
    """Mend what differs. Off: damage has a cause, and somebody should have seen it first."""

    @field_validator("schedule")
    @classmethod
    def _refuse_what_is_no_cron(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != CRON_FIELDS:
            message = f"audit.schedule: {value!r} is no cron expression such as '0 3 * * *'"
            raise ValueError(message)
        return value


class PricesConfig(_Section):
    """What computing costs; `ragassets index plan` multiplies."""

    usd_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Of the machine that embeds, for models that run on it."""
    usd_per_million_tokens: Mapping[Name, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict[str, float]
    )
    """By embedding model, for models behind an API."""


class Config(_Section):
    """The whole configuration."""

    root: str = ".ragassets"
    catalog: str = ""
    vector_store: str = ""
    vector_store_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long to wait for another process that owns the embedded vector store, or for a server
    that cannot be reached."""
    qdrant: QdrantConfig = QdrantConfig()
    """Where `vector_store` is the URL of a Qdrant server."""
    chroma: ChromaConfig = ChromaConfig()
    """Where `vector_store` is the address of a Chroma server."""
    pinecone: PineconeConfig = PineconeConfig()
    """Where `vector_store` is `pinecone://PROJECT`."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes that parse and clean in parallel; the number of cores where it is not given."""
    sources: Mapping[Name, SourceConfig] = Field(
        default_factory=lambda: {"documents": SourceConfig(uri="./documents")}
    )
    document_types: Mapping[Name, DocumentTypeConfig] = Field(default_factory=dict)
    validation: ValidationConfig = ValidationConfig()
    cleaning: CleaningConfig = CleaningConfig()
    deduplication: DeduplicationConfig = DeduplicationConfig()
    chunkings: Mapping[Name, ChunkingConfig] = Field(
        default_factory=lambda: {"recursive-256": ChunkingConfig()}
    )
    embedding_models: Mapping[Name, EmbeddingModelConfig] = Field(
        default_factory=lambda: {
            "minilm": EmbeddingModelConfig(
                provider="sentence-transformers", model="all-MiniLM-L6-v2", dim=384
            )
        }
    )
    index_versions: Mapping[Name, IndexVersionConfig] = Field(
        default_factory=lambda: {
            "v1": IndexVersionConfig(chunking="recursive-256", embedding_model="minilm")
        }
    )
    aliases: Mapping[Name, AliasConfig] = Field(
        default_factory=lambda: {"documents": AliasConfig(live="v1")}
    )
    rerankers: Mapping[Name, RerankerConfig] = Field(default_factory=dict[str, RerankerConfig])
    gates: GatesConfig = GatesConfig()
    """What a version must keep before an alias may serve it."""

    ledger: LedgerConfig = LedgerConfig()
    retention: RetentionConfig = RetentionConfig()
    audit: AuditConfig = AuditConfig()
    prices: PricesConfig = PricesConfig()
    notifications: notification_settings.NotificationsConfig | None = None

    folder: Annotated[Path, Field(exclude=True)] = Field(default_factory=Path.cwd)
    """What relative paths are relative to: the folder of the file, or the working directory."""

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for name, version in self.index_versions.items():
            _require(f"index_versions.{name}.chunking", version.chunking, self.chunkings)
            _require(
                f"index_versions.{name}.embedding_model",
                version.embedding_model,
                self.embedding_models,
            )
        for name in self.prices.usd_per_million_tokens:
            _require("prices.usd_per_million_tokens", name, self.embedding_models)
        for name, alias in self.aliases.items():
            _require(f"aliases.{name}.live", alias.live, self.index_versions)
            if alias.reranker is not None:
                _require(f"aliases.{name}.reranker", alias.reranker, self.rerankers)
        return self

    def source_shards(self, *sources: str) -> list[str]:
        """Partition keys of the given sources, of all when none is given, in order."""
        return [
            f"{name}-{number:03d}"
            for name in (sources or self.sources)
            for number in range(self.source(name).shards)
        ]

    def tenants(self) -> frozenset[str]:
        """The tenants of all sources."""
        return frozenset(source.tenant for source in self.sources.values() if source.tenant)

    def embedding_sets(self) -> dict[str, tuple[str, str]]:
        """Name to (chunking, embedding model) of every set that an index version needs."""
        return {
            version.embedding_set: (version.chunking, version.embedding_model)
            for version in self.index_versions.values()
        }

    def source(self, name: str) -> SourceConfig:
        """The named source.

        Raises:
            UnknownNameError: There is none of that name.
        """
        return _lookup("sources", self.sources, name)

    def chunking(self, name: str) -> ChunkingConfig:
        """The named chunking; see `source`."""
        return _lookup("chunkings", self.chunkings, name)

    def embedding_model(self, name: str) -> EmbeddingModelConfig:
        """The named embedding model; see `source`."""
        return _lookup("embedding_models", self.embedding_models, name)

    def index_version(self, name: str) -> IndexVersionConfig:
        """The named index version; see `source`."""
        return _lookup("index_versions", self.index_versions, name)

    def alias(self, name: str) -> AliasConfig:
        """The named alias; see `source`."""
        return _lookup("aliases", self.aliases, name)

    def reranker(self, name: str) -> RerankerConfig:
        """The named reranker; see `source`."""
        return _lookup("rerankers", self.rerankers, name)

    def gates_of(self, alias: str) -> GatesConfig:
        """The gates before an alias: the global ones with its own changes; see `source`."""
        return self.gates.with_changes(self.alias(alias).gates)


Entry = TypeVar("Entry")


def _lookup(kind: str, entries: Mapping[str, Entry], name: str) -> Entry:
    if name not in entries:
        raise UnknownNameError(kind=kind, name=name, known=sorted(entries))
    return entries[name]


def _require(key: str, name: str, entries: Mapping[str, object]) -> None:
    if name not in entries:
        message = f"{key}: {name!r} is not defined; known: {', '.join(sorted(entries)) or 'none'}"
        raise ValueError(message)


def load_config(path: str | Path | None = None) -> Config:
    """Read the configuration.

    Args:
        path: The file; else `RAGASSETS_CONFIG`, else `ragassets.yaml` in the working directory,
            else the built-in defaults.

    Raises:
        ConfigurationError: The file cannot be read or says something that cannot be meant.
    """
    file = find_config_file(path)
    if file is None:
        return _resolve(_validate({}, Path.cwd()))
    return _resolve(_validate(_read(file), file.parent))


def find_config_file(path: str | Path | None = None) -> Path | None:
    """The configuration file that `load_config` reads, absolute; None for the built-in defaults."""
    named = path or os.environ.get(CONFIG_VARIABLE)
    if named:
        file = Path(named).expanduser().absolute()
        if not file.is_file():
            raise ConfigurationError(
                key="--config" if path else CONFIG_VARIABLE,
                value=str(named),
                problem="is not a file",
                fix="Name an existing configuration file, or make one with `ragassets init`",
            )
        return file
    default = Path.cwd() / CONFIG_FILE
    return default if default.is_file() else None


def _read(file: Path) -> dict[str, object]:
    try:
        loaded: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = _where(error)
        raise ConfigurationError(
            key="configuration file",
            value=str(file),
            problem=f"cannot be read ({detail})",
            fix="Mend the YAML at the place named",
        ) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigurationError(
            key="configuration file",
            value=str(file),
            problem=f"holds a {type(loaded).__name__}, not keys and values",
            fix="Start from `ragassets init`",
        )
    notification_settings.refuse_plain_secrets(cast("dict[str, object]", loaded))
    return cast("dict[str, object]", _interpolate(cast("object", loaded), ""))


def _where(error: OSError | UnicodeDecodeError | yaml.YAMLError) -> str:
    """What is wrong and where; never a piece of the file, which may hold a secret."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem or 'YAML'}, line {mark.line + 1}, column {mark.column + 1}"
    return type(error).__name__


_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def _interpolate(value: object, key: str) -> object:
    """Replace `${ENV}` and `${ENV:-default}` in all strings."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {str(k): _interpolate(v, f"{key}.{k}".lstrip(".")) for k, v in items}
    if isinstance(value, list):
        entries = cast("list[object]", value)
        return [_interpolate(v, f"{key}.{i}") for i, v in enumerate(entries)]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise ConfigurationError(
                key=key,
                value=match[0],
                problem="names an environment variable that is not set",
                fix=f"Set {match['name']}, or write ${{{match['name']}:-default}}",
            )
        return found

    return _VARIABLE.sub(fill, value)


def _validate(values: dict[str, object], folder: Path) -> Config:
    if "folder" in values:
        raise _unknown_key(("folder",), values["folder"])
    try:
        return Config.model_validate({**values, "folder": folder})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "extra_forbidden":
            raise _unknown_key(first["loc"], first["input"]) from error
        key = ".".join(str(part) for part in first["loc"] if part != "[key]") or "configuration"
        is_section = isinstance(first["input"], (dict, BaseModel))
        raise ConfigurationError(
            key=key,
            value=None if is_section or _is_secret(key) else _masked(first["input"]),
            problem=f"is not valid: {first['msg'].removeprefix('Value error, ')}",
            fix="See the configuration section of the README",
        ) from error


def _is_secret(key: str) -> bool:
    endings = ("api_key", "password", "token", "secret", "webhook_url")
    return key.endswith(endings) or ".headers." in f"{key}."


def _may_be_secret(key: str) -> bool:
    """Whether a key that is not known may be a misspelt one of a secret."""
    return (
        re.search(r"key|token|password|secret|auth|^notifications\.", key, re.IGNORECASE)
        is not None
    )


def _masked(value: object) -> object:
    """The value, without the user and password of a URL."""
    if isinstance(value, (list, tuple)):
        return [_masked(entry) for entry in cast("list[object]", value)]
    return re.sub(r"://[^/@\s]+@", "://…@", value) if isinstance(value, str) else value


def _unknown_key(location: tuple[str | int, ...], value: object) -> ConfigurationError:
    sections = [Config, *_Section.__subclasses__(), *_SHARED_SECTIONS]
    known = {name for section in sections for name in section.model_fields} - {"folder"}
    near = difflib.get_close_matches(str(location[-1]), sorted(known), n=1)
    key = ".".join(map(str, location))
    return ConfigurationError(
        key=key,
        value=None if _may_be_secret(key) or isinstance(value, dict) else _masked(value),
        problem="is not a known key",
        fix=f"Did you mean {near[0]!r}?" if near else "Remove it",
    )


_SHARED_SECTIONS: tuple[type[BaseModel], ...] = (
    *notification_settings.NOTIFICATION_SECTIONS,
    ChromaConfig,
    ChunkingConfig,
    CircuitBreakerConfig,
    CleaningConfig,
    DeduplicationConfig,
    EmbeddingModelConfig,
    FetchConfig,
    GatesConfig,
    KafkaConfig,
    ObjectStoreConfig,
    PineconeConfig,
    QdrantConfig,
    RerankerConfig,
    RetryConfig,
    SensorConfig,
    ValidationConfig,
    WebConfig,
)


def _resolve(config: Config) -> Config:
    """Make paths absolute and fill in where catalog and vector store are by default.

    Raises:
        ConfigurationError: The vector store cannot hold one of the index versions.
    """
    folder = config.folder
    root = _absolute(config.root, folder)
    beside = root if "://" not in root else str(folder / ".ragassets")
    sources = {
        name: source.model_copy(
            update={
                "uri": _absolute(source.uri, folder),
                "mirrors": tuple(_absolute(uri, folder) for uri in source.mirrors),
            }
        )
        for name, source in config.sources.items()
    }
    aliases = {
        name: alias.model_copy(
            update={
                "golden_queries": alias.golden_queries and _absolute(alias.golden_queries, folder)
            }
        )
        for name, alias in config.aliases.items()
    }
    location = config.vector_store or f"{beside}/qdrant"
    store = parse_location(location)
    is_remote = "://" in store.where
    return config.model_copy(
        update={
            "root": root,
            "catalog": _absolute_sqlite(config.catalog or f"sqlite:///{beside}/catalog.db", folder),
            "vector_store": location
            if is_remote
            else with_path(location, _absolute(store.where, folder)),
            "index_versions": {
                name: _supported(name, version, config, store.kind)
                for name, version in config.index_versions.items()
            },
            "sources": sources,
            "aliases": aliases,
        }
    )


def _supported(
    name: str, version: IndexVersionConfig, config: Config, kind: StoreKind
) -> IndexVersionConfig:
    """The version as the vector store can hold it; what it was given stays or is refused."""
    can = CAPABILITIES[kind]
    if not can.sparse and "sparse" not in version.model_fields_set:
        version = version.model_copy(update={"sparse": None})
    wanted = CollectionConfig(
        dim=config.embedding_models[version.embedding_model].dim,
        distance=version.distance,
        sparse=version.sparse,
        quantization=version.quantization,
    )
    check_supported(STORE_NAMES[kind], can, wanted, index_version=name)
    return version


def _absolute(location: str, folder: Path) -> str:
    if "://" in location:
        return location
    # Lexically: the name that a person gave to a link is the name that belongs into a URI.
    return os.path.normpath(folder / Path(location).expanduser())


def _absolute_sqlite(url: str, folder: Path) -> str:
    prefix = "sqlite:///"
    path = url.removeprefix(prefix)
    if not url.startswith(prefix) or path in ("", ":memory:"):
        return url
    return f"{prefix}{os.path.normpath(folder / path)}"
