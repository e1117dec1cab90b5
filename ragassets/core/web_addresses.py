"""Addresses of web pages: one spelling for each, and which of them belong to a site."""

import dataclasses
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv6Address
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from w3lib.url import canonicalize_url

from ragassets.core.web_settings import WEB_SCHEMES

DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_CHARS = 2_048
"""Of an address. Source: sitemaps.org, protocol: a `loc` is shorter than 2,048 characters."""

ROOT_NAME = "index.html"
"""What the address of the site itself is called where patterns look at it."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def canonical_url(url: str, *, base: str = "", ignored: Sequence[str] = ()) -> str | None:
    """The one spelling of an address; None for what is no address of a page.

    Scheme and host in lower case (international names in ASCII), no default port, no fragment, no
    `.` and `..`, percent-encoding where it is needed and only there, parameters sorted and without
    the ignored ones. The result is a fixed point. Source: RFC 3986, section 6.2.

    Args:
        url: The address, absolute or relative to `base`.
        base: The address of the page that it stands on.
        ignored: Patterns of names of parameters that make no other page; `*` for any letters.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:
        return None
    if parts.scheme not in WEB_SCHEMES or not host or "@" in parts.netloc or "\\" in parts.netloc:
        return None
    port_text = "" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}"
    query = "&".join(
        part for part in parts.query.split("&") if part and not _is_ignored(part, ignored)
    )
    plain = urlunsplit((parts.scheme, f"{host}{port_text}", parts.path or "/", query, ""))
    try:
        found = canonicalize_url(plain)
    except (ValueError, UnicodeError):
        return None
    return None if len(found) > MAX_CHARS or _CONTROL.search(found) else found


def _host(name: str) -> str:
    """A host name in ASCII, or an IPv6 address in brackets; empty for anything else."""
    if ":" in name:
        return f"[{IPv6Address(name).compressed}]"
    try:
        ascii_name = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        return ""
    return ascii_name if _HOST.fullmatch(ascii_name) else ""


def _is_ignored(part: str, ignored: Sequence[str]) -> bool:
    name = unquote(part.partition("=")[0]).lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in ignored)


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclasses.dataclass(frozen=True)
class Site:
    """The pages at or below one address."""

    root: str
    """Canonical."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return origin_of(self.root)

    def holds(self, url: str) -> bool:
        """Whether a canonical address is the root or below it.

        `/guide` and `/guide/a` are below `/guide`; `/guidelines` is not.
        """
        if origin_of(url) != self.origin:
            return False
        prefix, path = self._prefix, urlsplit(url).path
        return path == prefix or path.startswith(f"{prefix}/")

    def relative_path(self, url: str) -> str:
        """What patterns look at: the path below the root, decoded, without slashes at its ends."""
        path = urlsplit(url).path.removeprefix(self._prefix)
        return unquote(path).strip("/") or ROOT_NAME

    @property
    def _prefix(self) -> str:
        return urlsplit(self.root).path.rstrip("/")
