"""Elements, parsed documents, and the chain of parsers that makes them.

How one format is read belongs to `adapters/parsers`; what a document is belongs to `media_types`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ragassets.core.media_types import ENCRYPTED_OFFICE, detect_media_type
from ragassets.errors import (
    EXHAUSTED,
    ConfigurationError,
    CorruptDocumentError,
    DocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MissingConverterError,
    NeedsOcrError,
    OversizedDocumentError,
    RagAssetsError,
    SystemResourceError,
    UnsupportedFormatError,
)

ElementKind = Literal[
    "title", "text", "list_item", "table", "header", "footer", "page_number", "code", "caption"
]

MAX_HEADING_LEVEL = 6

# C0 and C1 controls other than tab, line feed and next line: no font shows them, and NUL is
# refused by PostgreSQL.
_INVISIBLE_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x84\x86-\x9f]")


@dataclass(frozen=True, slots=True)
class Element:
    """One piece of a document in reading order: a heading, a paragraph, a table."""

    kind: ElementKind
    text: str
    page: int | None = None
    """1-based; None where the format has no pages."""
    level: int | None = None
    """Heading level 1 to 6; None for everything but titles, and for titles without a rank."""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a parser found in one document."""

    elements: tuple[Element, ...]
    media_type: str
    parser: str
    """Name of the parser that gave the elements."""
    n_pages: int | None = None
    is_ocr: bool = False
    title: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the format says of the document: front matter, mail headers."""
    record_metadata: Mapping[str, str | int | float | bool] = field(
        default_factory=dict[str, str | int | float | bool]
    )
    """What a source's settings picked out of a record; hits show it, and filters find it."""

    @property
    def text(self) -> str:
        """The elements' texts, joined by a blank line."""
        return "\n\n".join(element.text for element in self.elements)


class Parser(Protocol):
    """Reads the documents of one format family."""

    name: str
    version: str
    """Changes whenever the same bytes may give other elements: part of the stage's fingerprint."""
    media_types: frozenset[str]

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Elements of `data`, possibly none.

        Raises:
            DocumentError: The bytes cannot be read as `media_type`.
        """
        ...


def assemble_document(
    elements: Iterable[Element],
    *,
    media_type: str,
    parser: str,
    n_pages: int | None = None,
    title: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ParsedDocument:
    """A document of clean elements: every text stripped, non-empty and storable as UTF-8."""
    return ParsedDocument(
        elements=tuple(_clean_elements(elements)),
        media_type=media_type,
        parser=parser,
        n_pages=n_pages,
        title=_storable(title or "").strip() or None,
        metadata={key: _storable(value) for key, value in (metadata or {}).items()},
    )


def parse_document(data: bytes, *, uri: str, parsers: Sequence[Parser]) -> ParsedDocument:
    """The first parser's result that holds text, among those that claim the document's type.

    A parser that refuses, crashes or finds nothing passes the document to the next one. Encryption
    ends the chain at once, because no other parser has the key either, and so does a decompression
    bomb, because another parser might swallow it.

    Args:
        data: The raw bytes.
        uri: Where they came from; the type is found from the bytes first.
        parsers: In order of preference.

    Raises:
        EmptyDocumentError: There is no text, and no picture of text either.
        NeedsOcrError: There are pictures only.
        UnsupportedFormatError: No parser claims the type.
        EncryptedDocumentError: The document needs a password or key.
        OversizedDocumentError: The document unpacks to more than any honest one.
        MissingConverterError: The format needs a program that is not installed.
        CorruptDocumentError: Every parser refused the bytes.
        ConfigurationError: A parser lacks a module or a model, which says nothing of the document.
        SystemResourceError: A parser ran out of memory.
        OSError: Disk or file handles ran out.
    """
    if not data.strip():
        raise EmptyDocumentError(uri=uri, detail="the document has no bytes but white space")
    media_type = detect_media_type(data, uri)
    errors: list[DocumentError] = []
    for parser in parsers:
        if media_type not in parser.media_types:
            continue
        outcome = _try_parser(parser, data, uri=uri, media_type=media_type)
        if isinstance(outcome, ParsedDocument):
            return outcome
        errors.append(outcome)
    raise _most_telling(errors) if errors else _unclaimed(media_type, uri)


def parsing_fingerprint(parsers: Sequence[Parser]) -> str:
    """What decides a parse besides the bytes: the parsers, their order and their versions."""
    return ";".join(f"{parser.name}={parser.version}" for parser in parsers)


def _try_parser(
    parser: Parser, data: bytes, *, uri: str, media_type: str
) -> ParsedDocument | DocumentError:
    try:
        document = parser.parse(data, uri=uri, media_type=media_type)
    except (EncryptedDocumentError, OversizedDocumentError):
        raise
    except DocumentError as error:
        return error
    except RagAssetsError:
        raise
    except ImportError as error:
        raise ConfigurationError(
            key="installation",
            value=error.name or type(error).__name__,
            problem=f"cannot be imported, and parser {parser.name!r} needs it",
            fix="Install ragassets again with its dependencies, then run again",
        ) from error
    except MemoryError as error:
        raise SystemResourceError(
            resource="memory",
            detail=f"parser {parser.name!r} ran out of it on {uri}",
            fix="Give the worker more memory, or leave the document out",
        ) from error
    except Exception as error:  # libraries raise anything on untrusted bytes
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            raise  # called corrupt, every document of this run would leave the index
        # Only the type: the message of a foreign error may quote the document.
        detail = f"parser {parser.name!r} crashed on {media_type} ({type(error).__name__})"
        corrupt = CorruptDocumentError(uri=uri, detail=detail)
        corrupt.__cause__ = error
        return corrupt
    if document.elements:
        return document
    return EmptyDocumentError(uri=uri, detail=f"parser {parser.name!r} found no text")


def _most_telling(errors: Sequence[DocumentError]) -> DocumentError:
    """The error that tells a person what to do; among equals the preferred parser's."""
    for kind in (NeedsOcrError, MissingConverterError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]


def _unclaimed(media_type: str, uri: str) -> DocumentError:
    if media_type == ENCRYPTED_OFFICE:
        return EncryptedDocumentError(uri=uri, detail="the office document needs a password")
    if media_type.startswith("image/"):
        return NeedsOcrError(uri=uri, detail=f"a picture ({media_type}) without a text layer")
    return UnsupportedFormatError(uri=uri, detail=f"no parser reads {media_type}")


def _clean_elements(elements: Iterable[Element]) -> Iterable[Element]:
    for element in elements:
        text = _storable(element.text).strip()
        if text:
            level = element.level
            if level is not None:
                level = min(max(level, 1), MAX_HEADING_LEVEL)
            yield Element(element.kind, text, element.page, level)


def _storable(text: str) -> str:
    """`text` as valid Unicode: line ends are line feeds, no controls, no lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _INVISIBLE_CONTROLS.sub("", text.replace("\f", "\n").replace("\v", "\n"))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
