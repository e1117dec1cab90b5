"""Tells whether an endpoint serves the model of the configuration, and says it where it does not.

Vectors of two models must never mix in one embedding set. So every answer is checked for the
model's name and the dimension, and a fallback's first answer also for the vector of a text that
`base_url` has embedded in this run.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.openai_answers import Answer
from ragassets.adapters.embedders.service_calls import TextsRefusedError
from ragassets.core.embedding import truncate_vectors, validate_vectors
from ragassets.core.settings import EmbeddingModelConfig
from ragassets.errors import ConfigurationError

SAME_MODEL_COSINE = 0.98
"""Of one text's vectors by two endpoints of one model. Other hardware or precision leaves it above
0.999; a coarsely quantized copy, or another model, does not reach it."""

FIRST_ERROR_STATUS = 400

REFUSED_KEY = frozenset({401, 403})


@dataclass
class Reference:
    """What `base_url` made of one text in this run."""

    known: tuple[str, NDArray[np.float32]] | None = None
    """The text as it was sent, and its vector. One value, because threads set it."""

    def offer(self, text: str, vector: NDArray[np.float32]) -> None:
        """Keep the first sound vector."""
        if self.known is None and validate_vectors(vector[None], dim=len(vector)) == [None]:
            self.known = (text, vector)


@dataclass(frozen=True)
class ServedModel:
    """The model that one endpoint has to serve."""

    name: str
    """In the configuration."""
    url: str
    """Without its query, which may hold a key: it goes into messages."""
    config: EmbeddingModelConfig
    reference: Reference
    is_fallback: bool

    def sound_vectors(self, answer: Answer) -> NDArray[np.float32]:
        """The vectors (n_texts, dim) of an answer, L2-normalized where finite and not zero.

        Raises:
            ConfigurationError: They are another model's, by its name or dimension.
        """
        self._check_name(answer)
        self._check_dimension(answer.vectors.shape[1])
        with np.errstate(invalid="ignore", over="ignore"):
            return truncate_vectors(answer.vectors.astype(np.float64), dim=self.config.dim)

    def check_vector(self, vector: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Compare the reference's vectors of two endpoints.

        Raises:
            ConfigurationError: They are of two models.
        """
        cosine = float(vector @ expected)
        if not cosine >= SAME_MODEL_COSINE:  # not a number is no agreement either
            problem = f"gives another vector of the same text than base_url (cosine {cosine:.3f})"
            raise self.unusable_url(problem=problem, fix="Name endpoints of the very same model")

    def unwelcome(self, status: int) -> ConfigurationError:
        """The error for a status that says something of the address or the key."""
        if status in REFUSED_KEY:
            return self._error(
                key="fallback_api_key" if self.is_fallback else "api_key",
                value="...",
                problem=f"is refused by {self.url} (HTTP {status})",
                fix="Set the environment variable to a valid key",
            )
        if status < FIRST_ERROR_STATUS:  # not followed: the key would go along
            return self.unusable_url(
                problem=f"redirects (HTTP {status})", fix="Name the final address"
            )
        problem = f"has no /embeddings of model {self.config.model!r} (HTTP {status})"
        return self.unusable_url(problem=problem, fix="Mend the address or the model's name")

    def refuses_everything(self, refusal: TextsRefusedError) -> ConfigurationError:
        """The error for an endpoint that says no to the plainest text."""
        return self._error(
            key="model",
            value=self.config.model,
            problem=f"is refused by {self.url} even for a plain text ({refusal.problem})",
            fix="Check model, shortening and encoding_format against the service's documentation",
        )

    def unusable_url(self, *, problem: str, fix: str) -> ConfigurationError:
        """The error for an address that cannot be meant."""
        key = "fallback_base_urls" if self.is_fallback else "base_url"
        return self._error(key=key, value=self.url, problem=problem, fix=fix)

    def _check_name(self, answer: Answer) -> None:
        expected = self.config.served_model or self.config.model
        if answer.model is None:
            if self.is_fallback and self.reference.known is None:
                problem = "does not say which model it serves, and base_url gave no vector yet"
                raise self.unusable_url(problem=problem, fix="Run again when base_url is up")
        elif answer.model != expected:
            served = answer.model[:100]
            raise self._error(
                key="model",
                value=expected,
                problem=f"is not what {self.url} answers as: {served!r}",
                fix=f"If that is the same model, set served_model: {served}",
            )

    def _check_dimension(self, dim: int) -> None:
        wanted, is_longer = self.config.dim, dim > self.config.dim
        if dim == wanted or (is_longer and self.config.shortening == "client"):
            return
        hint = ", or `shortening` where the model was trained for it (Matryoshka)"
        raise self._error(
            key="dim",
            value=wanted,
            problem=f"is not the dimension of {self.url}: {dim}",
            fix=f"Set dim: {dim}{hint if is_longer else ''}",
        )

    def _error(self, *, key: str, value: object, problem: str, fix: str) -> ConfigurationError:
        return ConfigurationError(
            key=f"embedding_models.{self.name}.{key}", value=value, problem=problem, fix=fix
        )


def without_query(url: str) -> str:
    """A URL for messages."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))
