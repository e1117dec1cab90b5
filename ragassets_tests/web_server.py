"""A web site on loopback whose pages, faults and manners a test decides."""

import gzip
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import urlsplit


@dataclass
class Page:
    """What the site answers under one path."""

    body: bytes = b""
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    has_validators: bool = True
    is_gzipped: bool = False
    """Sent in the encoding gzip where the client takes it."""
    n_cut: int = 0
    """So many bytes at the end are not sent, though announced."""
    is_reset: bool = False
    """The connection ends without an answer."""
    byte_every_seconds: float = 0.0
    """Sent a byte at a time."""
    n_times: int | None = None
    """After so many answers the page behind it in the list is answered."""


@dataclass
class WebServer:
    """The site: `pages` by path and query; several at one path come one after the other."""

    url: str
    pages: dict[str, list[Page]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Path and query of each."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    """Of each request, names in lower case."""
    statuses: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def put(self, path: str, body: str | bytes = "", **options: object) -> None:
        """Set what is answered under a path."""
        data = body.encode() if isinstance(body, str) else body
        self.pages[path] = [Page(data, **cast("dict", options))]

    def page(self, path: str, text: str, *links: str, **options: object) -> None:
        """Set an HTML page with links."""
        anchors = "".join(f'<p><a href="{link}">{link}</a></p>' for link in links)
        head = options.pop("head", "")
        body = f"<!doctype html><html><head><title>{text}</title>{head}</head>"
        self.put(
            path, f"{body}<body><h1>{text}</h1><p>{text}.</p>{anchors}</body></html>", **options
        )

    def redirect(self, path: str, target: str, status: int = 301) -> None:
        """Lead a path elsewhere."""
        self.put(path, status=status, headers={"Location": target})

    def sitemap(self, path: str, *paths: str, lastmod: str = "") -> None:
        """Set a sitemap that names paths of this site."""
        changed = f"<lastmod>{lastmod}</lastmod>" if lastmod else ""
        urls = "".join(f"<url><loc>{self.url}{one}</loc>{changed}</url>" for one in paths)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        body = f'<?xml version="1.0"?><urlset xmlns="{space}">{urls}</urlset>'
        self.put(path, body, content_type="application/xml")

    def break_for(self, path: str, n_times: int | None = None, **options: object) -> None:
        """Let a path answer otherwise so many times, or always."""
        fault = Page(n_times=n_times, **cast("dict", options))
        self.pages[path] = [fault, *self.pages.get(path, [])]

    def mend(self, path: str) -> None:
        """Take the faults off a path."""
        self.pages[path] = self.pages[path][-1:]

    def count(self, path: str) -> int:
        """Requests of a path."""
        return self.requests.count(path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: WebServer

    def do_GET(self) -> None:
        site = self.site
        site.requests.append(self.path)
        site.times.append(time.monotonic())
        site.headers.append({name.lower(): text for name, text in self.headers.items()})
        page = self._page()
        if page.is_reset:
            site.statuses.append(0)
            self.close_connection = True
            self.connection.close()
            return
        etag = f'"{hashlib.sha256(page.body).hexdigest()[:16]}"'
        sent = dict(page.headers)
        if page.status == 200 and page.has_validators:
            sent.setdefault("ETag", etag)
            if self.headers.get("If-None-Match") == sent["ETag"]:
                self._send(304, sent, b"", page)
                return
        body = page.body
        if page.is_gzipped and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            sent["Content-Encoding"] = "gzip"
        self._send(page.status, sent, body, page)

    def _page(self) -> Page:
        pages = self.site.pages.get(self.path, [Page(b"nothing here", status=404)])
        page = pages[0]
        if page.n_times is not None:
            page.n_times -= 1
            if page.n_times <= 0 and len(pages) > 1:
                del pages[0]
        return page

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, page: Page) -> None:
        self.site.statuses.append(status)
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Type", page.content_type)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if page.byte_every_seconds:
            for number in range(len(body)):
                self.wfile.write(body[number : number + 1])
                time.sleep(page.byte_every_seconds)
        else:
            self.wfile.write(body[: len(body) - page.n_cut])
        if page.n_cut:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up; that is what some tests are about."""


@contextmanager
def running_site(host: str = "127.0.0.1") -> Iterator[WebServer]:
    """A site without pages."""
    site = WebServer("")
    handler = type("Handler", (_Handler,), {"site": site})
    listener = _Server((host, 0), handler)
    site.url = f"http://{host}:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def host_of(url: str) -> str:
    """Host and port of an address."""
    return urlsplit(url).netloc
