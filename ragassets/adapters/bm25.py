"""BM25 sparse vectors with Qdrant's own tokenizer, stop words and stemmers; offline.

The document side holds saturated term frequencies, the query side ones; the engine multiplies by
the inverse document frequency of the collection. Nothing here knows a collection.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from ragassets.core.searching import choose_query_languages, split_unspaced_words
from ragassets.errors import ConfigurationError

if TYPE_CHECKING:
    from qdrant_edge import Bm25, SparseVector

AVERAGE_TERMS = 100
"""Expected terms of a chunk after stop words; fixed, because vectors are written before the
collection is complete. Cranfield's abstracts, about one 256-token chunk each, hold 95. The effect
is small: 64 to 256 give sparse nDCG@10 of 0.391 to 0.365 and hybrid of 0.427 to 0.433."""

LANGUAGE_SYNONYMS = {"english": "en", "nb": "no", "nn": "no"}
"""Names of one language: it must have one name only, or its chunks would be counted as two."""


class Bm25Encoder:
    """Turns texts into term ids with weights, stemmed by language."""

    def __init__(self, *, default_language: str) -> None:
        """Use `default_language` wherever a text's own is unknown or unsupported.

        Raises:
            ConfigurationError: the engine has no stop words and stemmer for it.
        """
        self.default_language = LANGUAGE_SYNONYMS.get(default_language, default_language)
        if not _is_supported(self.default_language):
            raise ConfigurationError(
                key="language",
                value=default_language,
                problem="has no stop words and stemmer",
                fix="Use the ISO 639-1 code of a language that Qdrant's BM25 supports, such as en",
            )

    def encode_document(self, text: str, language: str | None) -> "SparseVector | None":
        """Return the term ids and weights of a chunk; None when it holds stop words only.

        The engine's own value, which the embedded store takes as it is.
        """
        model = _model(self._supported(language))
        vector = model.embed_document(split_unspaced_words(text))
        return vector if vector.indices else None

    def encode_query(self, text: str, shares: Mapping[str, float]) -> list[int]:
        """Return the term ids of a query, each of weight 1.

        Args:
            text: the query.
            shares: the collection's languages and their shares of its chunks.
        """
        words = split_unspaced_words(text).split()
        supported = self._supported_shares(shares)
        terms = {
            language: [_model(language).embed_query(word).indices for word in words]
            for language in supported
        }
        chosen = choose_query_languages(
            {language: sum(not found for found in by_word) for language, by_word in terms.items()},
            supported,
            default=self.default_language,
        )
        return sorted({term for language in chosen for found in terms[language] for term in found})

    def _supported(self, language: str | None) -> str:
        code = LANGUAGE_SYNONYMS.get(language or "", language or "")
        return code if _is_supported(code) else self.default_language

    def _supported_shares(self, shares: Mapping[str, float]) -> dict[str, float]:
        supported = {self.default_language: 0.0}
        for language, share in shares.items():
            code = self._supported(language)
            supported[code] = supported.get(code, 0) + share
        return supported


@lru_cache(maxsize=64)
def _model(language: str) -> "Bm25":
    from qdrant_edge import Bm25, Bm25Config

    return Bm25(Bm25Config(language=language, avg_len=AVERAGE_TERMS))


@lru_cache(maxsize=256)
def _is_supported(language: str) -> bool:
    try:
        _model(language)
    except ValueError:
        return False
    return bool(language)
