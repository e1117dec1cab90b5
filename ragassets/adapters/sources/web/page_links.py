"""What a page says of other pages: its links, and the address that it calls its own."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ragassets.adapters.parsers.html import is_too_deep
from ragassets.core.text_encoding import decode_text

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

MAX_READ_BYTES = 5 * 1024 * 1024
"""Of one page; links behind it are not followed. The largest page of Wikipedia has 3 MB."""

MAX_LINKS = 10_000
"""Of one page."""

_LINK_HEADER = re.compile(
    r"<([^<>]{1,2048})>\s*;[^,<]*\brel\s*=\s*\"?\s*canonical\b", re.IGNORECASE
)


class PageLinks(NamedTuple):
    """As they are written; relative ones count from `base`."""

    links: list[str]
    canonical: str
    """Empty where the page names none."""
    base: str
    """What `<base>` says; empty where nothing."""


def read_links(data: bytes) -> PageLinks:
    """The links of an HTML page; none of one whose tags are nested too deep to be read."""
    from selectolax.lexbor import LexborHTMLParser

    text = decode_text(data[:MAX_READ_BYTES])
    if is_too_deep(text):
        return PageLinks([], "", "")
    tree = LexborHTMLParser(text)
    links: dict[str, None] = {}
    for node in tree.css("a[href], area[href]"):
        if (link := (node.attributes.get("href") or "").strip()) and not link.startswith("#"):
            links[link] = None
            if len(links) == MAX_LINKS:
                break
    base = tree.css_first("base[href]")
    return PageLinks(
        links=list(links),
        canonical=_canonical(tree.css("link[rel][href]")),
        base=(base.attributes.get("href") or "").strip() if base else "",
    )


def canonical_in_header(link: str) -> str:
    """The canonical address that a `Link` header names, as it is written; empty for none.

    Source: RFC 6596, section 3; RFC 8288.
    """
    found = _LINK_HEADER.search(link[:8_192])
    return found[1].strip() if found else ""


def _canonical(nodes: "Sequence[LexborNode]") -> str:
    """Of `<link rel="canonical">`, the first; a page that names two contradicts itself."""
    for node in nodes:
        if "canonical" in (node.attributes.get("rel") or "").lower().split():
            return (node.attributes.get("href") or "").strip()
    return ""
