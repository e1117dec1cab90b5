"""One endpoint of an embedding service: its requests, retries, limits and circuit breaker.

Which endpoint is asked, and what becomes of a failed batch, is `openai_compatible.py`'s business.
"""

import json
import math
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.openai_answers import (
    Answer,
    MalformedAnswerError,
    error_code,
    parse_answer,
)
from ragassets.adapters.embedders.service_calls import (
    Call,
    CallOverError,
    EndpointDownError,
    TextsRefusedError,
    Timing,
    TryAgainError,
)
from ragassets.adapters.embedders.service_identity import Reference, ServedModel, without_query
from ragassets.adapters.rate_limits import RateLimit
from ragassets.core.retries import (
    ONE_TRY,
    THROTTLED,
    is_retryable,
    parse_retry_after,
    wait_seconds,
)
from ragassets.core.settings import EmbeddingModelConfig, RetryConfig
from ragassets.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

CONNECT_SECONDS = 10.0

OK = 200

REFUSED = frozenset({400, 413, 422})
"""Answers that say something of the texts. Any other of 300 to 499 says something of the address,
the key or the model."""

NEVER_IN_THIS_RUN = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of a 429 that no wait helps: somebody has to pay."""


class Endpoint:
    """Sends texts to one base URL. Shared by the threads of a call."""

    def __init__(
        self,
        name: str,
        url: str,
        config: EmbeddingModelConfig,
        reference: Reference,
        timing: Timing,
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            name: The model's name in the configuration.
            url: Base URL, one of `config.endpoints`.
            config: The model.
            reference: Shared by the endpoints of the model.
            timing: Clock and chance.
        """
        from purgatory import SyncCircuitBreakerFactory

        self.is_fallback = url != config.endpoints[0]
        self.model = ServedModel(name, without_query(url), config, reference, self.is_fallback)
        self.has_answered = False
        self.unusable: str | None = None
        """Why a fallback is not asked again."""
        self._config, self._timing, self._reference = config, timing, reference
        self._url = _embeddings_url(url)
        self._lock = threading.Lock()
        self._resume_at = -math.inf
        self._circuits = SyncCircuitBreakerFactory(
            default_threshold=config.circuit_breaker.failures,
            default_ttl=config.circuit_breaker.open_seconds,
            # All but `EndpointDownError` show a service that works, or say nothing of it.
            exclude=[TextsRefusedError, ConfigurationError, CallOverError],
        )
        self._limits = list(_limits(config, timing))

    def embed(
        self, call: Call, texts: Sequence[str], *, n_tokens: int, retry: RetryConfig
    ) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, L2-normalized where finite and not zero.

        Raises:
            TextsRefusedError: The service will never take these texts.
            EndpointDownError: It was tried as often as the policy says, or is left alone.
            ConfigurationError: Address, key, model or dimension are not those of the configuration.
        """
        with self._circuit(retry) as policy:
            vectors = self._send_with_retries(call, texts, n_tokens, policy)
        self.has_answered = True
        return vectors

    @property
    def is_left_alone(self) -> bool:
        """Whether the circuit is open."""
        from purgatory.domain.model import OPENED

        return self._circuits.get_breaker(self._url).context.state == OPENED

    @contextmanager
    def _circuit(self, retry: RetryConfig) -> Generator[RetryConfig]:
        """Count the outcome; after the pause of an open circuit one try decides."""
        from purgatory.domain.model import HALF_OPENED, OpenedState

        breaker = self._circuits.get_breaker(self._url)
        try:
            # The library's counters know no threads; the request itself runs outside of the lock.
            with self._lock:
                breaker.__enter__()
                is_half_open = breaker.context.state == HALF_OPENED
        except OpenedState as error:
            problem = f"left alone after {self._config.circuit_breaker.failures} failed batches"
            raise EndpointDownError(problem=problem, blames_texts=False) from error
        try:
            yield ONE_TRY if is_half_open else retry
        except BaseException as error:
            with self._lock:
                breaker.__exit__(type(error), error, None)
            raise
        with self._lock:
            breaker.__exit__(None, None, None)

    def _send_with_retries(
        self, call: Call, texts: Sequence[str], n_tokens: int, retry: RetryConfig
    ) -> NDArray[np.float32]:
        from tenacity import Retrying, retry_if_exception_type

        retrying = Retrying(
            retry=retry_if_exception_type(TryAgainError),
            wait=lambda state: self._wait(state, retry),
            # Another batch may have opened the circuit meanwhile: then nobody waits here.
            stop=lambda state: math.isinf(state.upcoming_sleep) or self.is_left_alone,
            sleep=call.sleep,
            reraise=True,
        )
        try:
            return retrying(self._send, call, texts, n_tokens)
        except TryAgainError as error:
            n_tries = int(retrying.statistics["attempt_number"])
            problem = f"{error.problem} in {n_tries} {'try' if n_tries == 1 else 'tries'}"
            raise EndpointDownError(problem=problem, blames_texts=error.blames_texts) from error

    def _wait(self, state: "RetryCallState", retry: RetryConfig) -> float:
        """Seconds until the next try; infinite gives up."""
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after if isinstance(failure, TryAgainError) else None
        wait = wait_seconds(
            retry,
            n_failed=state.attempt_number,
            retry_after=asked,
            random=self._timing.random(),
        )
        if wait is not None and asked is not None:
            # The other threads need not ask to hear the same.
            self._resume_at = max(self._resume_at, self._timing.monotonic() + asked)
        return math.inf if wait is None else wait

    def _send(self, call: Call, texts: Sequence[str], n_tokens: int) -> NDArray[np.float32]:
        """One try. A fallback's first ones take the reference along, to be compared."""
        pause = self._resume_at - self._timing.monotonic()
        if pause > 0:
            call.sleep(pause)
        for limit, is_of_tokens in self._limits:
            limit.acquire(n_tokens if is_of_tokens else 1, call.sleep)
        known = self._reference.known if self.is_fallback and not self.has_answered else None
        if known is not None:
            text, vector = known
            vectors = self.model.sound_vectors(self._post(call, [text, *texts]))
            self.model.check_vector(vectors[0], vector)
            return vectors[1:]
        vectors = self.model.sound_vectors(self._post(call, texts))
        if not self.is_fallback:
            self._reference.offer(texts[0], vectors[0])
        return vectors

    def _post(self, call: Call, texts: Sequence[str]) -> Answer:
        import httpx

        try:
            response = call.client.post(
                self._url, content=self._body(texts), headers=self._headers()
            )
        except httpx.InvalidURL as error:
            raise self.model.unusable_url(problem="is no URL", fix="Mend it") from error
        except httpx.ConnectError as error:
            raise TryAgainError(problem="no connection", blames_texts=False) from error
        except httpx.RequestError as error:
            # Time-outs, resets, answers cut short or garbled. The library's texts are left out:
            # some repeat the request.
            raise TryAgainError(problem=type(error).__name__, blames_texts=True) from error
        return self._read(response, n_texts=len(texts))

    def _body(self, texts: Sequence[str]) -> bytes:
        config = self._config
        body: dict[str, object] = {"model": config.model, "input": list(texts)}
        if config.encoding_format != "float":  # every service's default
            body["encoding_format"] = config.encoding_format
        if config.shortening == "service":
            body["dimensions"] = config.dim
        return json.dumps(body).encode()

    def _headers(self) -> dict[str, str]:
        key = (self.is_fallback and self._config.fallback_api_key) or self._config.api_key
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {key.get_secret_value()}"} if key else {})

    def _read(self, response: "httpx.Response", *, n_texts: int) -> Answer:
        status = response.status_code
        if status == OK:
            try:
                return parse_answer(response.content, n_texts=n_texts)
            except MalformedAnswerError as error:
                problem = f"a malformed answer ({error})"
                raise TryAgainError(problem=problem, blames_texts=True) from error
        code = error_code(response.content)
        if status in REFUSED:
            raise TextsRefusedError(status=status, code=code)
        if not is_retryable(status):
            raise self.model.unwelcome(status)
        asked = parse_retry_after(response.headers.get("retry-after"), now=self._timing.now())
        raise TryAgainError(
            problem=f"HTTP {status}" + (f", {code}" if code else ""),
            blames_texts=status != THROTTLED,
            retry_after=math.inf if code in NEVER_IN_THIS_RUN else asked,
        )


def _limits(config: EmbeddingModelConfig, timing: Timing) -> Generator[tuple[RateLimit, bool]]:
    """The limits of one endpoint, each with whether it counts tokens."""
    if config.requests_per_minute:
        yield RateLimit(config.requests_per_minute, clock=timing.monotonic), False
    if config.tokens_per_minute:
        largest = config.request_tokens
        yield RateLimit(config.tokens_per_minute, largest=largest, clock=timing.monotonic), True


def _embeddings_url(base_url: str) -> str:
    """The address of `/embeddings` below a base URL that may carry a query."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/embeddings"))
