"""What an answer to a request for a page means."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ragassets.adapters.sources.web.http_reader import Headers
from ragassets.core import media_types
from ragassets.core.crawling import Visit

OK, NOT_MODIFIED = 200, 304

GONE = frozenset({404, 410})

IMAGES = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/tiff", "image/bmp", "image/webp"}
)

DOCUMENTS = IMAGES | {
    media_types.HTML, "application/xhtml+xml", media_types.PDF, media_types.PLAIN,
    media_types.MARKDOWN, "text/x-markdown", media_types.RST, media_types.ORG, media_types.CSV,
    media_types.TSV, media_types.XML, "text/xml", media_types.JSON, media_types.JSON_LINES,
    "application/jsonl", "application/ld+json", media_types.EML, media_types.DOCX, media_types.PPTX,
    media_types.XLSX, media_types.ODT, media_types.EPUB, media_types.DOC, media_types.PPT,
    media_types.XLS, media_types.MSG, media_types.RTF, "text/rtf",
}  # fmt: skip
"""What a server calls documents that some parser of ours reads."""

PAGES = frozenset({media_types.HTML, "application/xhtml+xml"})
"""What has links."""

_UNDECIDED = frozenset({"", media_types.UNKNOWN, "binary/octet-stream"})
"""What a server says of files that it does not know: their bytes decide."""


def media_type_of(headers: Headers) -> str:
    """What the server calls the body; empty where it does not."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def may_be_document(status: int, headers: Headers) -> bool:
    """Whether a body is worth reading."""
    return status == OK and media_type_of(headers) in DOCUMENTS | _UNDECIDED


def document_type(headers: Headers, body: bytes, url: str) -> str:
    """The media type of a document; empty for what no parser reads."""
    named = media_type_of(headers)
    if named in DOCUMENTS:
        return named
    found = media_types.detect_media_type(body, url) if named in _UNDECIDED else ""
    return found if found in DOCUMENTS else ""


def conditions(known: Visit | None) -> dict[str, str]:
    """Headers that ask for a body only where it changed. Source: RFC 9110, section 13.1."""
    if known is None or not known.etag:
        return {}
    sent = {"If-None-Match": known.http_etag, "If-Modified-Since": known.http_modified}
    return {name: text for name, text in sent.items() if text}


def modified_at(headers: Headers, lastmod: str, *, otherwise: datetime) -> datetime:
    """When a page changed last: by its server, else by its sitemap, else as given."""
    try:
        found = parsedate_to_datetime(headers.get("last-modified", ""))
    except (ValueError, IndexError, OverflowError):
        found = parse_lastmod(lastmod) or otherwise
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_lastmod(text: str) -> datetime | None:
    """A date or time of a sitemap. Source: W3C note on date and time formats."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
