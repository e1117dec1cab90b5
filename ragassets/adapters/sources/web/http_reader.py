"""Reading one address of the web: bounded in time, size and redirects, and never trusted."""

import dataclasses
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Self
from urllib.parse import urlsplit

import httpcore

from ragassets.adapters.sources.web.connections import (
    Deadline,
    GuardedBackend,
    Resolver,
    resolve,
)
from ragassets.core.public_addresses import AllowedAddresses
from ragassets.core.web_addresses import DEFAULT_PORTS, canonical_url, origin_of
from ragassets.core.web_settings import WebConfig
from ragassets.errors import PrivateAddressError, SourceUnavailableError

MAX_REDIRECTS = 10
"""Browsers give up after 20; honest sites need three. RFC 9309 asks for five at least for
robots.txt."""

CONNECT_SECONDS = 10.0

REDIRECTS = frozenset({301, 302, 303, 307, 308})

CHUNK_BYTES = 64 * 1024

Headers = Mapping[str, str]
ToFollow = Callable[[str], Headers | None]
"""What to send to an address besides the usual headers; None not to ask it at all."""

WantsBody = Callable[[int, Headers], bool]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server said."""

    url: str
    """Canonical; where the answer came from after all redirects."""
    status: int
    headers: Headers
    """Names in lower case."""
    body: bytes = b""
    """Decoded; empty where it was not wanted."""
    is_too_large: bool = False
    """The body is larger than allowed and was not read to its end."""
    location: str = ""
    """Canonical; where a redirect leads that was not followed. Empty for one that leads in a
    circle, too far or nowhere."""


class HttpReader:
    """Sends requests; one object serves several threads."""

    def __init__(
        self,
        web: WebConfig,
        origin: str,
        *,
        read_seconds: float,
        resolver: Resolver = resolve,
    ) -> None:
        """Describe the requests; nothing is sent yet.

        Args:
            web: What is allowed, and what is sent.
            origin: Scheme, host and port that get the configured headers; nobody else does.
            read_seconds: Without a byte from the other side.
            resolver: Tests bring their own.
        """
        self._origin, self._web, self._read_seconds = origin, web, read_seconds
        self._deadline = Deadline()
        allowed = AllowedAddresses.parse(web.allow_private)
        self._pool = httpcore.ConnectionPool(
            max_connections=web.connections,
            # Less than the time after which most servers hang up by themselves.
            keepalive_expiry=4.0,
            network_backend=GuardedBackend(allowed, self._deadline, resolver=resolver),
        )

    def get(
        self,
        url: str,
        *,
        to_follow: ToFollow,
        wants_body: WantsBody,
        max_bytes: int,
        total_seconds: float,
    ) -> Answer:
        """The answer behind an address and its redirects.

        Args:
            url: Canonical.
            to_follow: Asked for each address before it is asked.
            wants_body: Asked with status and headers before a body is read.
            max_bytes: Of a body, decoded.
            total_seconds: For all of it.

        Raises:
            SourceUnavailableError: No whole answer: connection, time-outs, broken bytes.
            PrivateAddressError: An address is not public.
        """
        seen: set[str] = set()
        with self._translated_errors(url), self._deadline.within(total_seconds):
            while True:
                extra = to_follow(url)
                answer = self._ask(url, extra or {}, wants_body, max_bytes)
                seen.add(url)
                target = answer.location
                if not target or (target not in seen and to_follow(target) is None):
                    return answer
                if target in seen or len(seen) > MAX_REDIRECTS:
                    return dataclasses.replace(answer, location="")
                url = target

    def __enter__(self) -> Self:
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections: the site should not keep them for nothing."""
        self._pool.close()

    def _ask(self, url: str, extra: Headers, wants_body: WantsBody, max_bytes: int) -> Answer:
        """One request."""
        parts = urlsplit(url)
        target = httpcore.URL(
            scheme=parts.scheme,
            host=(parts.hostname or "").encode(),
            port=parts.port or DEFAULT_PORTS[parts.scheme],
            target=f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}".encode(),
        )
        timeouts = {
            "connect": min(CONNECT_SECONDS, self._read_seconds),
            "read": self._read_seconds,
            "write": self._read_seconds,
            "pool": self._read_seconds,
        }
        sent = [(name.encode(), text.encode()) for name, text in self._headers(url, extra)]
        with self._pool.stream(
            "GET", target, headers=sent, extensions={"timeout": timeouts}
        ) as response:
            headers = _lowered(response.headers)
            answer = Answer(url, response.status, headers)
            if response.status in REDIRECTS and (there := headers.get("location")):
                location = canonical_url(there, base=url, ignored=self._web.ignore_parameters)
                # Where it leads nowhere that can be asked, it is an answer like any other.
                return dataclasses.replace(answer, location=location or "")
            if not wants_body(response.status, headers):
                return answer
            body, is_too_large = _read(
                response.iter_stream(), headers.get("content-encoding", ""), url, max_bytes
            )
            return dataclasses.replace(answer, body=body, is_too_large=is_too_large)

    def _headers(self, url: str, extra: Headers) -> list[tuple[str, str]]:
        sent = {
            "Host": urlsplit(url).netloc,
            "User-Agent": self._web.user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            **extra,
        }
        if origin_of(url) == self._origin:
            sent |= {name: text.get_secret_value() for name, text in self._web.headers.items()}
        return list(sent.items())

    @contextmanager
    def _translated_errors(self, url: str) -> Generator[None]:
        """Turn the errors of the library into ours; their text may repeat what was sent."""
        try:
            yield
        except PrivateAddressError as error:
            raise PrivateAddressError(
                host=error.host, addresses=error.addresses, url=url
            ) from error
        except httpcore.TimeoutException as error:
            detail = "did not answer in time"
            raise SourceUnavailableError(service=url, detail=detail) from error
        except httpcore.ConnectError as error:
            detail = "cannot be reached"
            fix = "Mend the address, or let the host answer; `ragassets doctor` asks it again"
            raise SourceUnavailableError(service=url, detail=detail, fix=fix) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            detail = f"broke off in its answer ({type(error).__name__})"
            raise SourceUnavailableError(service=url, detail=detail) from error


def _lowered(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers by name in lower case; of a repeated one, all values."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return MappingProxyType(found)


def _read(chunks: Iterable[bytes], encoding: str, url: str, max_bytes: int) -> tuple[bytes, bool]:
    """A body, decoded as it comes, and whether it is larger than allowed: then it is empty."""
    parts: list[bytes] = []
    n_bytes = 0
    for part in _decoded(chunks, encoding.strip().lower(), url):
        n_bytes += len(part)
        if n_bytes > max_bytes:
            return b"", True
        parts.append(part)
    return b"".join(parts), False


def _decoded(chunks: Iterable[bytes], encoding: str, url: str) -> Generator[bytes]:
    """Decoded pieces, none larger than `CHUNK_BYTES` where they come out of a gzip stream.

    Raises:
        SourceUnavailableError: The stream is damaged, cut short, or in an encoding that nobody
            asked for.
    """
    if encoding in ("", "identity"):
        yield from chunks
        return
    if encoding not in ("gzip", "x-gzip"):
        detail = f"answers in the encoding {encoding[:20]!r}, which was not asked for"
        raise SourceUnavailableError(service=url, detail=detail)
    decoder = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                yield decoder.decompress(rest, CHUNK_BYTES)
                rest = decoder.unconsumed_tail
                if decoder.eof:
                    break
    except zlib.error as error:
        raise SourceUnavailableError(service=url, detail="sent a damaged gzip stream") from error
    if not decoder.eof:
        raise SourceUnavailableError(service=url, detail="sent a gzip stream that is cut short")
