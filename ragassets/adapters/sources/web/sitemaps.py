"""Sitemaps: which pages a site names itself, and when it says that they changed.

Source: https://www.sitemaps.org/protocol.html: `urlset`, `sitemapindex`, plain text, gzip; at most
50 MB each.
"""

import dataclasses
import io
import zlib
from collections.abc import Iterator
from typing import Any, cast

from ragassets.adapters.extras import import_untyped
from ragassets.core.web_addresses import MAX_CHARS

MAX_BYTES = 50 * 1024 * 1024
"""Of one, unpacked. Source: sitemaps.org."""

MAX_ENTRIES = 50_000
"""Of one. Source: sitemaps.org."""

MAX_DEPTH = 3
"""Indexes of indexes; the protocol knows one level, some sites use two."""

_GZIP = b"\x1f\x8b"


@dataclasses.dataclass
class Sitemap:
    """What one file says."""

    pages: list[tuple[str, str]] = dataclasses.field(default_factory=list[tuple[str, str]])
    """Address and `lastmod`, as they are written."""
    sitemaps: list[str] = dataclasses.field(default_factory=list[str])
    problem: str = ""
    """Why it is not all of it; what was read before counts."""


def read_sitemap(data: bytes) -> Sitemap:
    """What a file of a sitemap says, as far as it can be read.

    Entities are not resolved and nothing else is loaded: a file can neither explode in memory nor
    read others.
    """
    found = Sitemap()
    if data.startswith(_GZIP):
        data, found.problem = _unpacked(data)
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        _read_xml(text, found)
    else:
        for line in text.decode("utf-8", "replace").splitlines():
            if line.strip().startswith(("http://", "https://")):
                found.pages.append((line.strip()[:MAX_CHARS], ""))
        if not found.pages and not found.problem:
            found.problem = "is neither XML nor a list of addresses"
    if len(found.pages) + len(found.sitemaps) > MAX_ENTRIES:
        del found.pages[MAX_ENTRIES:], found.sitemaps[MAX_ENTRIES:]
        found.problem = found.problem or f"has more than {MAX_ENTRIES:,} entries"
    return found


def _unpacked(data: bytes) -> tuple[bytes, str]:
    decoder = zlib.decompressobj(wbits=31)
    try:
        unpacked = decoder.decompress(data, MAX_BYTES)
    except zlib.error:
        return b"", "is a damaged gzip file"
    if decoder.unconsumed_tail:
        return unpacked, f"has more than {MAX_BYTES:,} bytes"
    return unpacked, "" if decoder.eof else "is a gzip file that is cut short"


def _read_xml(data: bytes, found: Sitemap) -> None:
    etree = import_untyped("lxml.etree")
    events = cast(
        "Iterator[tuple[str, Any]]",
        etree.iterparse(
            io.BytesIO(data),
            events=("end",),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        ),
    )
    root = ""
    try:
        for _, element in events:
            name = _local_name(element)
            if name in {"url", "sitemap"}:
                _take_entry(element, name, found)
                element.clear()
                if len(found.pages) + len(found.sitemaps) > MAX_ENTRIES:
                    return
            root = name
    except etree.XMLSyntaxError as error:
        found.problem = found.problem or f"is no whole XML (line {error.lineno})"
        return
    if root not in {"urlset", "sitemapindex"}:
        found.problem = found.problem or f"is XML, but no sitemap: <{root[:40]}>"


def _take_entry(element: Any, name: str, found: Sitemap) -> None:
    texts = {_local_name(child): str(child.text or "").strip() for child in element}
    place = texts.get("loc", "")[:MAX_CHARS]
    if not place:
        return
    if name == "url":
        found.pages.append((place, texts.get("lastmod", "")[:40]))
    else:
        found.sitemaps.append(place)


def _local_name(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
