"""The settings of the stages, as sections of the configuration file: frozen models, nothing else.

They stand apart from the modules that they steer because the code location reads the configuration
whenever it loads, and those modules import polars, numpy and the like.
"""

import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


class ValidationConfig(BaseModel):
    """What a source's documents must be like.

    Source: the rules that Gopher (Rae et al. 2021, arXiv:2112.11446, table A1) and C4 (Raffel et
    al. 2020, arXiv:1910.10683, section 2.2) choose web pages by. Loosened where documents are no
    web pages: no minimum of 50 words, no mean word length, no stop words, no share of bullet lines,
    no ban on braces; repetition at 0.98 rather than 0.15 to 0.3, since forms, logs and templates
    repeat honestly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_chars: int = Field(default=1, ge=1)
    """Fewest characters that are not white space. The default asks for one letter or digit."""

    max_chars: int = Field(default=20_000_000, ge=1)
    """About 8,000 printed pages: above it, a dump rather than a document."""

    accepted_languages: tuple[str, ...] | None = None
    """ISO 639 codes; None accepts all. `pt-BR` is read as `pt`."""

    otherwise: Literal["keep", "reject"] = "keep"
    """What happens to a document in another language."""

    min_language_confidence: float = Field(default=0.7, ge=0.0, le=1.0)
    """Below it a document counts as accepted: thin evidence refuses nobody. At 0.7 the detector is
    wrong on 2 of XQuAD's 5,950 questions (60 characters each) and on no tldr page."""

    max_repetition_share: float = Field(default=0.98, gt=0.0, le=1.0)
    """Highest share of five-word sequences that have occurred before; data, code and short texts
    are exempt. 0.98 means that all is said fifty times. Of 1,309 real documents the highest has
    0.95 (four pages of LaTeX's filler text), the next 0.86 and 0.62."""

    max_garbage_share: float = Field(default=0.1, gt=0.0, le=1.0)
    """Highest share of characters that are no text (replacement characters, controls, private use,
    unmapped PDF glyphs). Random bytes read as Latin-1 have 0.25, as Windows-1252 about 0.13."""

    blocked_patterns: tuple[str, ...] = ()
    """Regular expressions; a document that one of them is found in is refused as unsafe."""

    unsafe: Literal["reject", "keep"] = "reject"
    """What happens to private keys, access tokens and hidden instructions."""

    required_fields: tuple[Literal["title"], ...] = ()
    """Fields that must not be empty besides uri and media type."""

    @field_validator("accepted_languages")
    @classmethod
    def _normalize_languages(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from ragassets.core.languages import normalize_language_code

        if value is None:
            return None
        return tuple(sorted({normalize_language_code(code) for code in value}))

    @field_validator("blocked_patterns")
    @classmethod
    def _check_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                message = f"{pattern!r} is no regular expression: {error}"
                raise ValueError(message) from error
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min_chars > self.max_chars:
            message = f"min_chars {self.min_chars} is above max_chars {self.max_chars}"
            raise ValueError(message)
        if self.otherwise == "reject" and not self.accepted_languages:
            message = "otherwise: reject needs accepted_languages with at least one code"
            raise ValueError(message)
        return self


RedactionKind = Literal["email", "phone"]


class CleaningConfig(BaseModel):
    """What counts as noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drop_kinds: tuple[str, ...] = ("header", "footer", "page_number")
    """Element kinds that the parser itself knows as page furniture. They stay in a document of one
    page, where nothing repeats and a footer may be half of the text."""

    remove_running_lines: bool = True
    """Lines that repeat at the top or bottom of pages, and page numbers."""

    running_line_share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of the pages (three at least) on which a line must stand to be a running line. Half,
    because books print one header on left and another on right pages."""

    remove_boilerplate: bool = True
    """Lines of web pages that say nothing about their subject: cookie banners, rights notices."""

    redact: tuple[RedactionKind, ...] = ()
    """Kinds of personal data to replace by a mark."""

    phone_region: str | None = None
    """ISO 3166 code of the country whose telephone numbers are written without a country code; None
    redacts numbers with `+` only."""

    @field_validator("phone_region")
    @classmethod
    def _check_region(cls, value: str | None) -> str | None:
        # Imported here: the table of all numbering plans is large.
        from ragassets.core.redaction import is_phone_region

        if value is not None and not is_phone_region(value.upper()):
            message = f"{value!r} is no ISO 3166 region code such as 'US' or 'DE'"
            raise ValueError(message)
        return value.upper() if value else None


class DeduplicationConfig(BaseModel):
    """What counts as a duplicate.

    A pair of Jaccard similarity s shares a bucket with probability 1 - (1 - s^r)^b for b bands of
    r rows (`candidate_probability`). With 32 bands of 8 rows a pair at 0.85 is missed with
    probability (1 - 0.85^8)^32 = 4e-5, one at 0.15 is compared with probability 8e-6. The
    estimate of s from n permutations has the standard error sqrt(s * (1 - s) / n): 0.022 at 0.85.

    Source: Broder 1997, On the resemblance and containment of documents; Leskovec, Rajaraman and
    Ullman, Mining of Massive Datasets, section 3.4.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    """Off: every document survives, exact copies too."""
    threshold: float = Field(default=0.8, gt=0.0, le=1.0)
    """Estimated similarity from which a document is a duplicate.

    Measured on 635 versions of 120 pages, where pairs at 0.85 or more belong together and those
    below 0.70 do not, as raw Markdown and as text without its markup, in 6 orders with 3 seeds
    each. Worst precision and recall: 0.76: 0.985, 0.983; 0.80: 0.991, 0.977; 0.82: 0.991, 0.947.
    """
    shingle_words: int = Field(default=5, ge=1, le=50)
    """Words in a shingle: the unit that two texts have in common or not."""
    min_words: int = Field(default=10, ge=1)
    """Shorter texts are compared by exact hash only. In nine words one changed word changes up to
    all five shingles, while two short notes that differ in the one word that matters ("Room 4 is
    closed today") may share most of them: the estimate says nothing there."""
    n_permutations: int = Field(default=256, ge=16, le=4096)
    n_bands: int = Field(default=32, ge=1)
    rows_per_band: int = Field(default=8, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if self.n_bands * self.rows_per_band > self.n_permutations:
            message = (
                f"n_bands * rows_per_band is {self.n_bands * self.rows_per_band}, more than"
                f" n_permutations ({self.n_permutations}). Lower one of the two, or raise"
                " n_permutations"
            )
            raise ValueError(message)
        return self

    def candidate_probability(self, jaccard: float) -> float:
        """Probability that a pair of this similarity shares at least one bucket."""
        return 1.0 - (1.0 - jaccard**self.rows_per_band) ** self.n_bands

    def signature_parameters(self) -> dict[str, int]:
        """The parameters that decide a signature: the others ask for no new signatures."""
        return {
            "shingle_words": self.shingle_words,
            "min_words": self.min_words,
            "n_permutations": self.n_permutations,
            "seed": self.seed,
        }


ChunkingStrategy = Literal["recursive", "fixed", "sentence", "by_title"]

DEFAULT_MAX_TOKENS = 256
"""What the bundled model reads at most."""

DEFAULT_OVERLAP_TOKENS = 32


class ChunkingConfig(BaseModel):
    """One entry under `chunkings` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: ChunkingStrategy = "recursive"
    """`recursive` cuts at headings, paragraphs, sentences, words, in this order of preference;
    `by_title` keeps sections apart and merges small ones under one parent; `sentence` looks at
    sentences only; `fixed` takes windows of tokens, so an edit changes every chunk after it."""
    max_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=16, le=32_768)
    """What the model may be given at once, its special tokens included."""
    overlap_tokens: int = Field(default=DEFAULT_OVERLAP_TOKENS, ge=0)
    """How much of the text before it a chunk repeats at most, where its own text leaves room. A
    chunk that begins with a heading repeats nothing: what stands before is another topic."""
    tokenizer: str | None = None
    """The embedding model whose tokens count: a name, a path or a hub id; None is the bundled
    one."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Self:
        if self.overlap_tokens * 2 >= self.max_tokens:
            message = (
                f"overlap_tokens: {self.overlap_tokens} must be less than half of max_tokens"
                f" ({self.max_tokens}). Give at most {(self.max_tokens - 1) // 2}"
            )
            raise ValueError(message)
        return self


class RetryConfig(BaseModel):
    """How often and how patiently a request to a service is tried again.

    Source: exponential backoff with jitter, https://aws.amazon.com/builders-library/
    timeouts-retries-and-backoff-with-jitter; `Retry-After`: RFC 9110, section 10.2.3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal["exponential", "fixed"] = "exponential"
    """`exponential` doubles the wait after each try, `fixed` keeps it."""
    attempts: int = Field(default=6, ge=1, le=20)
    """Tries in all. With the defaults the five waits between them are 5, 10, 20, 40 and 80 s."""
    first_wait_seconds: float = Field(default=5.0, ge=0.0, le=3600.0)
    max_wait_seconds: float = Field(default=80.0, ge=0.0, le=3600.0)
    """No wait of ours is longer; jitter comes on top."""
    jitter_seconds: float = Field(default=2.0, ge=0.0, le=600.0)
    """A random time up to this is added, so that clients do not come back all at once."""
    max_retry_after_seconds: float = Field(default=300.0, ge=0.0, le=86_400.0)
    """A service that asks for a longer pause is left alone until a later run."""


class CircuitBreakerConfig(BaseModel):
    """When an endpoint is given up for a while, so that an outage costs minutes, not hours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=3, ge=1, le=1000)
    """Batches in a row that failed in all their tries until the endpoint is left alone."""
    open_seconds: float = Field(default=300.0, gt=0.0, le=86_400.0)
    """How long it is left alone; then one try decides."""


OPENAI_BASE_URL = "https://api.openai.com/v1"

SERVICE_KEYS = frozenset(
    {"base_url", "api_key", "fallback_base_urls", "fallback_api_key", "served_model"}
    | {"shortening", "encoding_format", "concurrency", "batch_texts", "max_input_tokens"}
    | {"requests_per_minute", "tokens_per_minute", "timeout_seconds", "retry", "circuit_breaker"}
)
"""Keys that only services have: with another provider they would be ignored in silence."""


class EmbeddingModelConfig(BaseModel):
    """One entry of `embedding_models` in the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: Literal["sentence-transformers", "openai"] = "sentence-transformers"
    """`openai` is every service with an OpenAI-compatible `/embeddings`."""
    model: str = Field(min_length=1)
    """The bundled `all-MiniLM-L6-v2`, a local path, a hub id, or the service's model name."""
    dim: int = Field(gt=0, le=65_536)
    """Dimension of the vectors; less than the model's own truncates them (Matryoshka); for a
    service see `shortening`."""
    revision: str | None = None
    """Commit of a hub model; None takes what the local cache or the hub calls main. For a service:
    any word that changes when the model behind the name does."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    document_prompt: str = ""
    query_prompt: str = ""
    """Text put before every document or query, for models that were trained with prefixes."""
    batch_tokens: int | None = Field(default=None, gt=0)
    """Tokens, padding included, of one forward pass; of a service, of one request. None takes what
    is fast on the device, and 8,192 of a service. Decides memory and speed, not vectors."""
    devices: tuple[str, ...] = ()
    """Where a local model runs (`cuda:0`); empty takes every GPU, or the CPU where there is none.
    Decides speed, not vectors."""
    tokenizer: str | None = None
    """A path or hub id whose tokenizer counts a service's tokens; None estimates them from above
    (`core/embedding.py`)."""

    base_url: str | None = None
    """Where `/embeddings` is; None is OpenAI."""
    api_key: SecretStr | None = None
    fallback_base_urls: tuple[str, ...] = ()
    """Other endpoints of the very same model, for when `base_url` fails. One that answers with
    another model's name, dimension or vectors is not used."""
    fallback_api_key: SecretStr | None = None
    """The fallbacks' key; None sends them `api_key`."""
    served_model: str | None = None
    """What the service calls the model in its answers, where that is not `model`."""
    shortening: Literal["none", "service", "client"] = "none"
    """What makes vectors of `dim` where the model's own are longer (Matryoshka): `service` sends
    `dimensions`, `client` cuts here, `none` refuses them."""
    encoding_format: Literal["base64", "float"] = "base64"
    """How vectors travel: base64 is a third of the size, `float` is understood everywhere."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests at the same time."""
    batch_texts: int = Field(default=128, ge=1, le=2_048)
    """Texts in one request. OpenAI takes at most 2,048."""
    max_input_tokens: int = Field(default=8_192, ge=1)
    """What the model reads of one text. A longer one is the service's to cut or to refuse."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """What each endpoint grants; None leaves it to the service to say 429."""
    timeout_seconds: float = Field(default=60.0, gt=0.0, le=3600.0)
    """How long to wait for the next bytes of an answer."""
    retry: RetryConfig = RetryConfig()
    circuit_breaker: CircuitBreakerConfig = CircuitBreakerConfig()

    @field_validator("base_url", "fallback_base_urls")
    @classmethod
    def _check_urls(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                message = "it must be http:// or https:// and a host, up to where /embeddings is"
                raise ValueError(message)
            if parts.username or parts.password:
                message = "it must hold no user or password; give api_key: ${VARIABLE}"
                raise ValueError(message)
        return value

    @field_validator("api_key", "fallback_api_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _usable_key(value)

    def _has_default(self, key: str) -> bool:
        """Whether a key says what it says where nobody gives it: models are dumped and read."""
        default = type(self).model_fields[key].get_default(call_default_factory=True)
        return getattr(self, key) == default

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        if self.provider != "openai":
            if given := sorted(key for key in SERVICE_KEYS if not self._has_default(key)):
                message = f"{', '.join(given)}: only provider: openai has this. Remove it"
                raise ValueError(message)
        elif self.dtype != "float32":
            message = f"dtype: {self.dtype} is for local models. Remove it"
            raise ValueError(message)
        elif self.devices:
            message = f"devices: {', '.join(self.devices)} are for local models. Remove it"
            raise ValueError(message)
        return self

    @property
    def request_tokens(self) -> int:
        """Tokens of one request to a service."""
        return self.batch_tokens or 8_192

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The service's base URLs, the first choice first, each once, without a closing slash."""
        urls = (self.base_url or OPENAI_BASE_URL, *self.fallback_base_urls)
        return tuple(dict.fromkeys(url.rstrip("/") for url in urls))


class RerankerConfig(BaseModel):
    """One entry of `rerankers` in the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["sentence-transformers", "onnx"] = "sentence-transformers"
    """`onnx` reads `model.onnx` and `tokenizer.json` of a directory, on the CPU."""
    model: str = Field(min_length=1)
    """A local path or hub id of a cross-encoder; with `onnx` also the bundled
    `ms-marco-MiniLM-L-12-v2`."""
    revision: str | None = None
    """Commit of a hub model; None takes what the local cache or the hub calls main."""
    candidates: int = Field(default=50, ge=1, le=1_000)
    """Hits of the first ranking that are read again: time grows with them, quality hardly after
    the first dozens (docs/search.md)."""
    max_tokens: int | None = Field(default=None, ge=16, le=32_768)
    """What is read of a pair, query and special tokens included; None is what the model can."""


class GatesConfig(BaseModel):
    """What a version must keep before an alias may serve it; null switches a gate off.

    Completeness, equal counts and sound vectors are no gates: they are always asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_ndcg_at_10: float | None = Field(default=None, ge=0.0, le=1.0)
    min_recall_at_10: float | None = Field(default=None, ge=0.0, le=1.0)
    min_mrr_at_10: float | None = Field(default=None, ge=0.0, le=1.0)
    """Off: what is good depends on the golden queries."""

    max_ndcg_drop: float | None = Field(default=0.05, ge=0.0, le=1.0)
    """How much of nDCG@10 a version may lose against the live one, where the loss is no accident.
    0.05 of an nDCG@10 between 0.5 and 1 are 5 to 10 %.

    Source: Spärck Jones 1974, "Automatic indexing", calls differences of 5 to 10 % noticeable."""

    significance: float = Field(default=0.05, gt=0.0, le=1.0)
    """p-value up to which a loss counts as no accident. With five golden queries or fewer none can
    be that small."""

    min_recall_vs_exact: float | None = Field(default=0.9, ge=0.0, le=1.0)
    """Share of the true ten nearest neighbours that a search must find. Exact indexes find all. On
    3,000 random vectors the embedded engine's graph of 16 links a point finds all of them, too, one
    of two links next to none."""

    max_latency_ms_p95: float | None = Field(default=None, gt=0.0)
    """Off: a busy machine would fail a good version."""

    max_dead_letter_share: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of the documents that are dead letters. Off: a folder may hold many files that are no
    documents."""

    def with_changes(self, other: "GatesConfig | None") -> "GatesConfig":
        """These gates, replaced by those that the other section sets itself."""
        if other is None:
            return self
        return self.model_copy(
            update={name: getattr(other, name) for name in other.model_fields_set}
        )


class QdrantConfig(BaseModel):
    """How to talk to a Qdrant server or cluster, and how it keeps collections.

    None of it decides what a search finds, so nothing here belongs to an index version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefer_grpc: bool = True
    """Points and searches by gRPC, whose messages are four times smaller; readiness by REST."""
    grpc_port: int = Field(default=6334, gt=0, lt=65_536)
    api_key: SecretStr | None = None
    """`${QDRANT_API_KEY}`, not the key itself."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """For one answer. `vector_store_timeout_seconds` is for all attempts of one call together."""
    batch_bytes: int = Field(default=4 * 1024**2, ge=64 * 1024)
    """Largest request of an upload; a server takes 32 MiB unless it is configured otherwise."""
    collection_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    """Put before the names of collections and aliases; another one for each project on a server."""
    shard_number: int | None = Field(default=None, ge=1)
    """Of new collections; None is one for each node. A collection cannot change it."""
    replication_factor: int | None = Field(default=None, ge=1)
    write_consistency_factor: int | None = Field(default=None, ge=1)
    """How many replicas must have a write before it counts; at most `replication_factor`."""
    on_disk: bool | None = None
    """Keep original vectors on disk instead of in memory; quantized ones always stay in memory."""
    indexing_timeout_seconds: float = Field(default=3600.0, gt=0)
    """How long a build waits for the server's approximate index before it says so."""

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _usable_key(value)

    @model_validator(mode="after")
    def _consistency_fits(self) -> Self:
        wanted, replicas = self.write_consistency_factor or 1, self.replication_factor or 1
        if wanted > replicas:
            message = (
                f"write_consistency_factor: {wanted} is more than replication_factor ({replicas}):"
                " every write would fail"
            )
            raise ValueError(message)
        return self


class ChromaConfig(BaseModel):
    """How to talk to a Chroma server. None of it decides what a search finds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: SecretStr | None = None
    """`${CHROMA_API_KEY}`, sent as `x-chroma-token`."""
    tenant: str = Field(default="default_tenant", min_length=1)
    database: str = Field(default="default_database", min_length=1)
    timeout_seconds: float = Field(default=30.0, gt=0)
    """For one answer. `vector_store_timeout_seconds` is for all attempts of one call together."""
    collection_prefix: str = Field(
        default="ragassets-", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{2,63}$"
    )
    """Put before the names of collections; another one for each project on a server."""

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _usable_key(value)


class PineconeConfig(BaseModel):
    """How to talk to Pinecone. None of it decides what a search finds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: SecretStr | None = None
    """`${PINECONE_API_KEY}`, not the key itself; needed."""
    cloud: Literal["aws", "gcp", "azure"] = "aws"
    region: str = Field(default="us-east-1", min_length=1)
    """Where new indexes are made; an index cannot change it."""
    namespace: str = Field(default="__default__", min_length=1, max_length=512)
    """Of all points, in every index; what others keep in other namespaces is left alone."""
    host: str = Field(default="", pattern=r"^(https?://[^/@\s]+)?$")
    """Of the control plane, where it is not `https://api.pinecone.io`: a proxy, or a test."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """For one answer. `vector_store_timeout_seconds` is for all attempts of one call together."""
    ready_timeout_seconds: float = Field(default=300.0, gt=0)
    """How long a new index may take to become ready."""
    visibility_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a write may take to be seen; usually it is a second or two."""

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _usable_key(value)


def _usable_key(value: SecretStr | None) -> SecretStr | None:
    """Refuse what no header takes: its library would print the key in the error."""
    key = value.get_secret_value().strip() if value else ""
    if not (key.isascii() and key.isprintable()):
        message = "it must be one line of ASCII"
        raise ValueError(message)
    return SecretStr(key) if key else None
