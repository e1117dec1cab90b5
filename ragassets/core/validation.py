"""The gate after parsing: is this text fit to be searched, and by whom?

Says yes with measurements, or no with one reason of a closed list. The text is not changed here:
`ragassets.core.cleaning` does that, and mends what can be mended. A gate for a company's documents
is not a filter for training data: it refuses what would poison or break a search index, and lets
short notes, tables and code pass.
"""

import re
from enum import StrEnum
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ragassets.core.languages import LanguageGuess, detect_language, normalize_language_code
from ragassets.core.text_quality import count_dense_chars, has_words, measure_quality
from ragassets.core.unsafe_content import find_unsafe_content
from ragassets.errors import RejectedDocumentError

VERSION = "1"
"""Part of the stage's fingerprint, with `languages.VERSION`: raise it when output changes."""


class RejectionReason(StrEnum):
    """Why validation refused a document: the `reason` of a RejectedDocumentError."""

    EMPTY = "empty"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    GARBAGE = "garbage"
    REPETITION = "repetition"
    LANGUAGE_NOT_ACCEPTED = "language_not_accepted"
    UNSAFE_CONTENT = "unsafe_content"
    MISSING_FIELD = "missing_field"


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


class ValidDocument(NamedTuple):
    """What validation measured on a document that passed."""

    language: str | None
    language_confidence: float
    quality: dict[str, float]
    """n_chars, n_words, share_alpha, share_garbage, share_repetition, n_unsafe."""
    n_words: int


_Measured = tuple[str, float, float]
"""What was measured, its value, its limit."""

# Rows of data repeat because the data do, and so do lines of code.
_REPEATING_MEDIA_TYPE = re.compile(
    r"csv|tab-separated|spreadsheet|excel|json|yaml|(?<!xhtml\+)xml$|/x-|script"
)


def validate_document(
    *, uri: str, title: str | None, text: str, media_type: str, config: ValidationConfig
) -> ValidDocument:
    """Measure a parsed document and let it pass, or refuse it.

    Args:
        uri: The document's address; used in errors.
        title: Its title, if the parser found one.
        text: The parsed text, before cleaning.
        media_type: The type that the parser read it as; data and code may repeat themselves.
        config: The source's rules.

    Raises:
        RejectedDocumentError: A rule is broken; `reason` is a RejectionReason, and the detail names
            the measured value, the limit and the key to change, but never quotes the text.
    """
    _check_fields(uri, title, media_type, config)
    _check_length(uri, text, config)
    quality = measure_quality(text)
    _check_quality(uri, media_type, quality, config)
    quality["n_unsafe"] = float(_check_safety(uri, text, config))
    guess = detect_language(text)
    _check_language(uri, guess, config)
    n_words = int(quality["n_words"])
    return ValidDocument(guess.language, round(guess.confidence, 4), quality, n_words)


def _check_fields(uri: str, title: str | None, media_type: str, config: ValidationConfig) -> None:
    fields = {"uri": uri, "media_type": media_type}
    if "title" in config.required_fields:
        fields["title"] = title or ""
    missing = [name for name, value in fields.items() if not value.strip()]
    if missing:
        raise RejectedDocumentError(
            uri=uri,
            reason=RejectionReason.MISSING_FIELD,
            detail=f"{', '.join(missing)} is empty; validation.required_fields asks for title only"
            " where it lists it, and for uri and media_type always",
        )


def _check_length(uri: str, text: str, config: ValidationConfig) -> None:
    if len(text) > config.max_chars:
        measured = ("characters", len(text), config.max_chars)
        raise _over(uri, RejectionReason.TOO_LONG, measured, "max_chars")
    if not has_words(text):
        raise RejectedDocumentError(
            uri=uri,
            reason=RejectionReason.EMPTY,
            detail=f"none of {len(text)} characters is a letter or digit; at least 1 is needed",
        )
    n_dense = count_dense_chars(text)
    if n_dense < config.min_chars:
        raise RejectedDocumentError(
            uri=uri,
            reason=RejectionReason.TOO_SHORT,
            detail=f"characters other than white space: {n_dense}, below validation.min_chars"
            f" {config.min_chars}; lower it to accept the document",
        )


def _check_quality(
    uri: str, media_type: str, quality: dict[str, float], config: ValidationConfig
) -> None:
    garbage = quality["share_garbage"]
    if garbage > config.max_garbage_share:
        measured = ("share of characters that are no text", garbage, config.max_garbage_share)
        raise _over(uri, RejectionReason.GARBAGE, measured, "max_garbage_share")
    repetition = quality["share_repetition"]
    is_exempt = _REPEATING_MEDIA_TYPE.search(media_type) is not None
    if repetition > config.max_repetition_share and not is_exempt:
        measured = ("share of repeated passages", repetition, config.max_repetition_share)
        raise _over(uri, RejectionReason.REPETITION, measured, "max_repetition_share")


def _check_safety(uri: str, text: str, config: ValidationConfig) -> int:
    """The number of unsafe places, where they are allowed."""
    findings = find_unsafe_content(text)
    if findings and config.unsafe == "reject":
        first = findings[0]
        raise RejectedDocumentError(
            uri=uri,
            reason=RejectionReason.UNSAFE_CONTENT,
            detail=f"{len(findings)} unsafe places, the first a {first.kind} at character"
            f" {first.start_char}; the limit is 0. Take them out of the document (and replace the"
            " credentials), or set validation.unsafe: keep",
        )
    for number, pattern in enumerate(config.blocked_patterns):
        if match := re.search(pattern, text):
            raise RejectedDocumentError(
                uri=uri,
                reason=RejectionReason.UNSAFE_CONTENT,
                detail=f"validation.blocked_patterns[{number}] is found at character"
                f" {match.start()}; take the pattern out to accept the document",
            )
    return len(findings)


def _check_language(uri: str, guess: LanguageGuess, config: ValidationConfig) -> None:
    accepted = config.accepted_languages
    if accepted is None or config.otherwise == "keep" or guess.language in {None, *accepted}:
        return
    if guess.confidence >= config.min_language_confidence:
        raise RejectedDocumentError(
            uri=uri,
            reason=RejectionReason.LANGUAGE_NOT_ACCEPTED,
            detail=f"the language is {guess.language} (confidence {guess.confidence:.2f}, limit"
            f" {config.min_language_confidence:g}), accepted are {', '.join(accepted)}; add it to"
            " the source's languages.accept, or set languages.otherwise: keep",
        )


def _over(
    uri: str, reason: RejectionReason, measured: _Measured, key: str
) -> RejectedDocumentError:
    what, value, limit = measured
    return RejectedDocumentError(
        uri=uri,
        reason=reason,
        detail=f"{what}: {value:g}, above validation.{key} {limit:g}; raise it to accept the"
        " document",
    )
