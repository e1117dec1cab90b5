"""The gate after parsing: is this text fit to be searched, and by whom?

Says yes with measurements, or no with one reason of a closed list. The text is not changed here:
`ragassets.core.cleaning` does that, and mends what can be mended. A gate for a company's documents
is not a filter for training data: it refuses what would poison or break a search index, and lets
short notes, tables and code pass.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from ragassets.core.languages import LanguageGuess, detect_language
from ragassets.core.settings import ValidationConfig
from ragassets.core.text_quality import count_dense_chars, has_words, measure_quality
from ragassets.core.unsafe_content import find_unsafe_content
from ragassets.errors import RejectedDocumentError


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
