"""What a document is, found from its bytes first and from its name second."""

import io
import json
import re
import zipfile
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from ragassets.core.text_encoding import decode_text, is_plausible_text

UNKNOWN = "application/octet-stream"
ENCRYPTED_OFFICE = "application/encrypted"
"""An OLE container with an `EncryptedPackage`. Source: [MS-OFFCRYPTO] section 2.3."""

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
EPUB = "application/epub+zip"
DOC = "application/msword"
PPT = "application/vnd.ms-powerpoint"
XLS = "application/vnd.ms-excel"
MSG = "application/vnd.ms-outlook"
RTF = "application/rtf"
PDF = "application/pdf"
EML = "message/rfc822"
HTML = "text/html"
XML = "application/xml"
JSON = "application/json"
JSON_LINES = "application/x-ndjson"
CSV = "text/csv"
TSV = "text/tab-separated-values"
MARKDOWN = "text/markdown"
RST = "text/x-rst"
ORG = "text/org"
PLAIN = "text/plain"
ZIP = "application/zip"
RECORD = "application/vnd.ragassets.record+json"
"""What a source of records landed; see `core/records.py`."""

# Names decide only between formats that look alike from inside: kinds of text, and containers too
# broken to be opened.
_TYPE_OF_SUFFIX = {
    ".csv": CSV, ".tsv": TSV, ".tab": TSV, ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdx": MARKDOWN,
    ".rst": RST, ".org": ORG, ".html": HTML, ".htm": HTML, ".xhtml": HTML, ".xml": XML,
    ".json": JSON, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".eml": EML, ".docx": DOCX,
    ".pptx": PPTX, ".xlsx": XLSX, ".odt": ODT, ".epub": EPUB, ".doc": DOC, ".ppt": PPT, ".xls": XLS,
    ".msg": MSG,
}  # fmt: skip
_ZIP_SUFFIXES = frozenset({".docx", ".pptx", ".xlsx", ".odt", ".epub"})
_OLE_SUFFIXES = frozenset({".doc", ".ppt", ".xls", ".msg"})
_TEXT_TYPES = frozenset({CSV, TSV, MARKDOWN, RST, ORG, HTML, XML, JSON, JSON_LINES, EML})
_MARKUP_TYPES = frozenset({MARKDOWN, RST, ORG, CSV, TSV})
"""Formats that may begin with a tag, a brace or a bracket and still be themselves."""

# Source: the signatures of the formats' own specifications, as collected in file(1)'s magic.
_SIGNATURES = (
    (b'{"ragassets_record":1,', RECORD),
    (b"{\\rtf", RTF),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
)
_OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

# Readers accept a PDF header anywhere in the first 1,024 bytes.
# Source: PDF Reference 1.7, appendix H, implementation note 13.
_PDF_HEADER_WINDOW_BYTES = 1024
_SNIFF_BYTES = 65_536

_HTML_START = re.compile(r"<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_MAIL_HEADER = re.compile(
    r"(From|To|Subject|Date|MIME-Version|Message-ID|Received|Return-Path|Delivered-To)\s*:",
    re.IGNORECASE,
)
_MAIL_ONLY_HEADERS = frozenset({"mime-version", "message-id", "received", "return-path"})


def detect_media_type(data: bytes, uri: str) -> str:
    """Media type of `data`: signatures and container contents first, then the name.

    A mislabelled file gets the type of its content. Bytes that are neither a known format nor
    text are `application/octet-stream`.

    Args:
        data: The raw bytes.
        uri: Where they came from; only the suffix of its path counts.
    """
    suffix = PurePosixPath(unquote(urlsplit(uri).path)).suffix.lower()
    return _detect_binary(data, suffix) or _detect_text(data, suffix)


def _detect_binary(data: bytes, suffix: str) -> str | None:
    if b"%PDF-" in data[:_PDF_HEADER_WINDOW_BYTES]:
        return PDF
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data.startswith(_ZIP_SIGNATURES):
        return _detect_zip(data, suffix)
    if data.startswith(_OLE_SIGNATURE):
        return _detect_ole(data, suffix)
    return _detect_offset_signature(data)


def _detect_offset_signature(data: bytes) -> str | None:
    """Formats whose signature stands behind a length or a checksum."""
    if data[:2] == b"BM" and int.from_bytes(data[2:6], "little") in (len(data), 0):
        return "image/bmp"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "image/heic"
    if data[257:262] == b"ustar":
        return "application/x-tar"
    return None


def _detect_zip(data: bytes, suffix: str) -> str:
    """The format inside a zip container, by its own table of contents."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            declared = (
                archive.read("mimetype")[:100].strip().decode("ascii", "replace")
                if ("mimetype" in names)
                else ""
            )
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        return _TYPE_OF_SUFFIX[suffix] if suffix in _ZIP_SUFFIXES else ZIP
    if declared in (EPUB, ODT):
        return declared
    for prefix, media_type in (("word/", DOCX), ("ppt/", PPTX), ("xl/", XLSX)):
        if any(name.lower().lstrip("/").startswith(prefix) for name in names):
            return media_type
    return EPUB if "META-INF/container.xml" in names else ZIP


def _detect_ole(data: bytes, suffix: str) -> str:
    """The format inside an OLE container, by the streams at its root."""
    import olefile

    by_name = _TYPE_OF_SUFFIX[suffix] if suffix in _OLE_SUFFIXES else UNKNOWN
    try:
        with cast("Any", olefile.OleFileIO)(io.BytesIO(data)) as container:
            roots = {str(path[0]).lower() for path in cast("list[list[str]]", container.listdir())}
    except Exception:  # noqa: BLE001  damaged containers raise anything; the parser will say more
        return by_name
    for stream, media_type in (
        ("encryptedpackage", ENCRYPTED_OFFICE),
        ("__properties_version1.0", MSG),
        ("worddocument", DOC),
        ("powerpoint document", PPT),
        ("workbook", XLS),
        ("book", XLS),
    ):
        if stream in roots:
            return media_type
    return by_name


def _detect_text(data: bytes, suffix: str) -> str:
    # A cut at a multiple of four bytes never splits a UTF-16 or UTF-32 unit; a split UTF-8
    # character costs a few bytes at the end, which the loop takes off.
    text = decode_text(_without_split_character(data[:_SNIFF_BYTES]))
    if not is_plausible_text(text):
        return UNKNOWN
    by_name = _TYPE_OF_SUFFIX.get(suffix, PLAIN)
    by_name = by_name if by_name in _TEXT_TYPES else PLAIN
    return (
        _detect_markup(text, by_name)
        or _detect_mail(text, by_name)
        or _detect_json(data, text, by_name)
    )


def _without_split_character(sample: bytes) -> bytes:
    if len(sample) < _SNIFF_BYTES:
        return sample
    for n_cut in range(4):
        try:
            sample[: len(sample) - n_cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return sample[: len(sample) - n_cut]
    return sample


def _detect_markup(text: str, by_name: str) -> str | None:
    if _HTML_START.match(text, _skip_prolog(text)):
        return HTML
    if by_name in _MARKUP_TYPES:
        return None
    if text.lstrip().startswith("<?xml"):
        return HTML if _HTML_START.search(text[:4096]) else XML
    return None


def _skip_prolog(text: str) -> int:
    """Offset behind white space, an XML declaration and comments.

    By hand, because one regular expression for it takes exponential time on hostile comments.
    """
    position = 0
    while True:
        position += len(text) - position - len(text[position:].lstrip())
        for opening, closing in (("<?xml", ">"), ("<!--", "-->")):
            if text.startswith(opening, position):
                end = text.find(closing, position)
                if end < 0:
                    return position
                position = end + len(closing)
                break
        else:
            return position


def _detect_mail(text: str, by_name: str) -> str | None:
    """Mail starts with header fields. Source: RFC 5322 section 2.2."""
    headers = text.lstrip().replace("\r\n", "\n").split("\n\n", 1)[0].split("\n")
    found = [match for match in map(_MAIL_HEADER.match, headers) if match]
    names = {match[1].lower() for match in found}
    starts_with_header = bool(headers) and re.match(r"[!-9;-~]+:", headers[0]) is not None
    is_mail = starts_with_header and len(names) > 1 and bool(names & _MAIL_ONLY_HEADERS)
    return EML if is_mail and by_name in (PLAIN, EML) else None


def _detect_json(data: bytes, text: str, by_name: str) -> str:
    if by_name != PLAIN or not text.lstrip().startswith(("{", "[")):
        return by_name
    whole = decode_text(data)
    if _is_json(whole):
        return JSON
    lines = [line for line in whole.splitlines() if line.strip()]
    return JSON_LINES if len(lines) > 1 and all(map(_is_json, lines)) else PLAIN


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
