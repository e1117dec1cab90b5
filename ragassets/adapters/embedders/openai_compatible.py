"""Embeds texts at a service that speaks OpenAI's `/embeddings`.

What happens to a batch: it is tried at `base_url` as often as the retry policy says, then at each
fallback that serves the same model. A batch that the service refuses is halved until the refused
text stands alone, so that it alone fails. A batch that nobody could embed is halved too if the
service embeds a plain text meanwhile (then one of its texts breaks the service); otherwise it is an
outage, all its texts fail for this run, and no text is blamed.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.openai_endpoint import CONNECT_SECONDS, Endpoint
from ragassets.adapters.embedders.service_calls import (
    Call,
    EndpointDownError,
    TextsRefusedError,
    Timing,
)
from ragassets.adapters.embedders.service_identity import Reference
from ragassets.adapters.tokenizers import load_tokenizer
from ragassets.core.embedding import (
    EmbeddedTexts,
    batch_by_count,
    estimate_tokens,
    validate_vectors,
)
from ragassets.core.fingerprints import fingerprint
from ragassets.core.retries import ONE_TRY, QUERY_RETRY
from ragassets.core.settings import EmbeddingModelConfig, RetryConfig
from ragassets.errors import (
    ConfigurationError,
    EmbeddingRefusedError,
    EmbeddingServiceError,
    RagAssetsError,
)

if TYPE_CHECKING:
    import ssl

CODE_VERSION = 1
"""Raised when this module would give other vectors for the same answers."""

MIN_WINDOW_TEXTS = 512
"""Every window ends with a checkpoint, which is a file."""

PLAIN_TEXT = "A plain sentence."
"""What no embedding service refuses, and none breaks at."""


@dataclass(frozen=True)
class EndpointReport:
    """What one tiny request to an endpoint showed."""

    url: str
    problem: str | None
    is_fallback: bool


@dataclass
class _Job:
    """The texts of one call, and what became of each. Threads write different positions."""

    texts: list[str]
    n_tokens: list[int]
    vectors: NDArray[np.float32]
    call: Call
    failures: dict[int, RagAssetsError] = field(default_factory=dict[int, RagAssetsError])


class OpenAICompatibleEmbedder:
    """Implements `Embedder` and `EmbedsEach`. Limits and circuits last as long as the object."""

    def __init__(
        self, name: str, config: EmbeddingModelConfig, timing: Timing | None = None
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            name: The model's name in the configuration.
            config: An entry with `provider: openai`.
            timing: Clock, sleep and chance; the real ones where it is not given.
        """
        self._name, self._config = name, config
        self._timing = timing or Timing()
        reference = Reference()
        self._endpoints = [
            Endpoint(name, url, config, reference, self._timing) for url in config.endpoints
        ]

    @property
    def name(self) -> str:
        """The model's name in the configuration."""
        return self._name

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._config.dim

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the vectors: not of the address, so an endpoint may move."""
        settings = self._config.model_dump(
            include={"provider", "model", "revision", "dim", "document_prompt", "query_prompt"}
        )
        return fingerprint({**settings, "normalized": True, "code": CODE_VERSION})

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that count, as configured."""
        return self._config.max_input_tokens

    @property
    def window_texts(self) -> int:
        """Two rounds of requests: a killed run pays for no more a second time."""
        return max(MIN_WINDOW_TEXTS, 2 * self._config.concurrency * self._config.batch_texts)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized.

        Raises:
            EmbeddingServiceError: Nobody could embed one of the texts now.
            EmbeddingRefusedError: The service will never embed one of them.
            ConfigurationError: Address, key, model or dimension are wrong.
        """
        return _all_of(self.embed_each(texts))

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized; gives up within seconds.

        Raises:
            RagAssetsError: As `embed_documents`.
        """
        return _all_of(self._embed(texts, self._config.query_prompt, QUERY_RETRY))

    def embed_each(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Embed documents; a text that fails costs none of the others.

        Raises:
            ConfigurationError: Address, key, model or dimension are wrong.
        """
        return self._embed(texts, self._config.document_prompt, self._config.retry)

    def probe_endpoints(self) -> list[EndpointReport]:
        """Send one tiny request to every endpoint, the fallbacks too."""
        with self._call() as call:
            return [
                EndpointReport(
                    endpoint.model.url, self._problem(call, endpoint), endpoint.is_fallback
                )
                for endpoint in self._endpoints
            ]

    def _embed(self, texts: Sequence[str], prompt: str, retry: RetryConfig) -> EmbeddedTexts:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return EmbeddedTexts(vectors, {})
        sent = [prompt + text for text in texts]
        n_tokens = self._count_tokens(sent)
        batches = batch_by_count(
            n_tokens, batch_texts=self._config.batch_texts, batch_tokens=self._config.request_tokens
        )
        with self._call() as call:
            job = _Job(sent, n_tokens, vectors, call)
            if len(batches) == 1:
                self._settle(job, batches[0], retry)
            else:
                self._settle_all(job, batches, retry)
        return EmbeddedTexts(job.vectors, job.failures)

    def _settle_all(self, job: _Job, batches: list[list[int]], retry: RetryConfig) -> None:
        with ThreadPoolExecutor(min(self._config.concurrency, len(batches))) as pool:
            futures = [pool.submit(self._settle, job, batch, retry) for batch in batches]
            try:
                _raise_first(futures)
            except BaseException:
                # A wrong key, or a person's Ctrl-C: the others must not wait out their pauses.
                job.call.is_over.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _settle(self, job: _Job, batch: list[int], retry: RetryConfig) -> None:
        """Give every text of a batch its vector or its failure."""
        texts = [job.texts[position] for position in batch]
        n_tokens = sum(job.n_tokens[position] for position in batch)
        try:
            job.vectors[batch] = self._send(job.call, texts, n_tokens, retry)
        except _RefusedAtError as refusal:
            if len(batch) > 1:
                self._settle_halves(job, batch, retry)
            else:
                job.failures[batch[0]] = self._refused(job.call, refusal, n_tokens)
        except _AllDownError as failure:
            self._settle_failed(job, batch, failure)

    def _settle_halves(self, job: _Job, batch: list[int], retry: RetryConfig) -> None:
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            self._settle(job, half, retry)

    def _settle_failed(self, job: _Job, batch: list[int], failure: "_AllDownError") -> None:
        """Find the text that the service breaks at, or blame nobody."""
        is_outage = not (failure.blames_texts and self._is_up(job.call))
        if not is_outage and len(batch) > 1:
            # The patience went into the whole batch already.
            self._settle_halves(job, batch, ONE_TRY)
        else:
            error = self._unavailable(failure.problem, is_outage=is_outage)
            job.failures |= dict.fromkeys(batch, error)

    def _send(
        self, call: Call, texts: list[str], n_tokens: int, retry: RetryConfig
    ) -> NDArray[np.float32]:
        """Ask the endpoints in their order.

        Raises:
            _RefusedAtError: One of them refuses the texts; the others serve the same model.
            _AllDownError: None of them answers.
            ConfigurationError: The first choice is not what the configuration says.
        """
        problems: list[str] = []
        blames_texts = False
        for endpoint in self._endpoints:
            try:
                if endpoint.unusable is None:
                    return endpoint.embed(call, texts, n_tokens=n_tokens, retry=retry)
            except TextsRefusedError as error:
                raise _RefusedAtError(endpoint, error) from error
            except EndpointDownError as error:
                problems.append(f"{endpoint.model.url}: {error.problem}")
                blames_texts |= error.blames_texts
            except ConfigurationError as error:
                if not endpoint.is_fallback:
                    raise
                endpoint.unusable = str(error)
            if endpoint.unusable:
                problems.append(endpoint.unusable)
        raise _AllDownError(problem="; ".join(problems), blames_texts=blames_texts)

    def _is_up(self, call: Call) -> bool:
        """Whether a plain text can be embedded now."""
        try:
            self._send(call, [PLAIN_TEXT], estimate_tokens(PLAIN_TEXT), ONE_TRY)
        except (_RefusedAtError, _AllDownError):
            return False
        return True

    def _refused(self, call: Call, refusal: "_RefusedAtError", n_tokens: int) -> RagAssetsError:
        """The error of one text; raised for all where the service takes no text at all.

        Raises:
            ConfigurationError: The service refuses a plain text too: that must not turn a corpus
                into dead letters.
        """
        endpoint = refusal.endpoint
        try:
            if not endpoint.has_answered:
                self._probe(call, endpoint)
        except TextsRefusedError as error:
            raise endpoint.model.refuses_everything(error) from error
        except EndpointDownError as error:
            return self._unavailable(f"{endpoint.model.url}: {error.problem}", is_outage=True)
        return EmbeddingRefusedError(
            stage="embeddings",
            subject=self.name,
            detail=f"the service refuses the text ({refusal.error.problem}), about {n_tokens}"
            " tokens long",
        )

    def _unavailable(self, problem: str, *, is_outage: bool) -> EmbeddingServiceError:
        service = f"embedding model {self.name}"
        return EmbeddingServiceError(service=service, detail=problem, is_outage=is_outage)

    def _probe(self, call: Call, endpoint: Endpoint) -> NDArray[np.float32]:
        """Send one tiny request; the errors are those of `Endpoint.embed`."""
        n_tokens = estimate_tokens(PLAIN_TEXT)
        return endpoint.embed(call, [PLAIN_TEXT], n_tokens=n_tokens, retry=ONE_TRY)

    def _problem(self, call: Call, endpoint: Endpoint) -> str | None:
        try:
            unsound = validate_vectors(self._probe(call, endpoint), dim=self.dim)[0]
        except TextsRefusedError as error:
            return str(endpoint.model.refuses_everything(error))
        except EndpointDownError as error:
            return error.problem
        except ConfigurationError as error:
            return str(error)
        return f"its vector {unsound}" if unsound else None

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        if self._config.tokenizer is None:
            return [estimate_tokens(text) for text in texts]
        tokenizer = load_tokenizer(self._config.tokenizer)
        return [
            len(offsets) + tokenizer.n_special_tokens for offsets in tokenizer.offsets_batch(texts)
        ]

    @contextmanager
    def _call(self) -> Generator[Call]:
        """Connections for one call: kept open between calls, the service would close them."""
        import httpx

        config = self._config
        limits = httpx.Limits(max_connections=config.concurrency)
        timeout = httpx.Timeout(config.timeout_seconds, connect=CONNECT_SECONDS, pool=None)
        with httpx.Client(verify=self._certificates, limits=limits, timeout=timeout) as client:
            call = Call(client, self._timing)
            try:
                yield call
            finally:
                call.is_over.set()

    @cached_property
    def _certificates(self) -> "ssl.SSLContext":
        """Read once: 0.1 s."""
        import httpx

        return httpx.create_ssl_context()


class _RefusedAtError(Exception):
    def __init__(self, endpoint: Endpoint, error: TextsRefusedError) -> None:
        super().__init__(error.problem)
        self.endpoint, self.error = endpoint, error


class _AllDownError(Exception):
    def __init__(self, *, problem: str, blames_texts: bool) -> None:
        super().__init__(problem)
        self.problem, self.blames_texts = problem, blames_texts


def _raise_first(futures: "Sequence[Future[None]]") -> None:
    for future in as_completed(futures):
        future.result()


def _all_of(embedded: EmbeddedTexts) -> NDArray[np.float32]:
    if embedded.failures:
        raise embedded.failures[min(embedded.failures)]
    return embedded.vectors
