"""A JSON API on loopback that pages in every way, throttles, and lies on demand."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from ragassets_tests.faulty_server import Environ, FaultyServer, StartResponse, serving

PAGE_SIZE = 2

Record = dict[str, object]


@dataclass
class ApiServer(FaultyServer):
    """The records it has, in pages of two, at `/articles`."""

    records: list[Record] = field(default_factory=list[Record])
    throttled: list[str] = field(default_factory=list[str])
    """Values of `Retry-After` for the next requests, which are answered with 429."""
    next_of: dict[str, str] = field(default_factory=dict[str, str])
    """Other next cursors than the right ones."""
    link_host: str = ""
    """Where next links lead, if not here."""
    redirect_to: str = ""
    seen_headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def uri(self) -> str:
        """What the source of a test is."""
        return f"rest+{self.url}/articles"

    def put(self, record_id: object, body: str, **keys: object) -> None:
        """Make or replace a record."""
        kept = [record for record in self.records if record["id"] != record_id]
        self.records = [*kept, {"id": record_id, "body": body, **keys}]

    def delete(self, record_id: object) -> None:
        """Take a record out."""
        self.records = [record for record in self.records if record["id"] != record_id]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        self.seen_headers.append(
            {name: str(value) for name, value in environ.items() if name.startswith("HTTP_")}
        )
        if self.redirect_to:
            start_response("302 Found", [("Location", self.redirect_to), ("Content-Length", "0")])
            return [b""]
        if self.throttled:
            wait = self.throttled.pop(0)
            start_response("429 Slow", [("Retry-After", wait), ("Content-Length", "0")])
            return [b""]
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        data, link = self._page(query)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        start_response("200 OK", [*headers, *([("Link", link)] if link else [])])
        return [data]

    def _page(self, query: Mapping[str, str]) -> tuple[bytes, str]:
        since = query.get("since", "")
        wanted = [one for one in self.records if str(one.get("updated", "~")) >= since]
        start = self._start(query)
        items = wanted[start : start + PAGE_SIZE]
        following = str(start + PAGE_SIZE) if start + PAGE_SIZE < len(wanted) else None
        if query.get("cursor", "") in self.next_of:
            following = self.next_of[query.get("cursor", "")]
        base = self.link_host or self.url
        target = None if following is None else f"{base}/articles?cursor={following}"
        content = {"data": items, "meta": {"next": following}, "links": {"next": target}}
        link = f'<{base}/articles?cursor=0>; rel="first"'
        link += f', <{target}>; rel="next"' if target else ""
        return json.dumps(content).encode(), link

    @staticmethod
    def _start(query: Mapping[str, str]) -> int:
        if "page" in query:
            return (int(query["page"]) - 1) * PAGE_SIZE
        return int(query.get("offset", query.get("cursor", "0")))


@contextmanager
def running_api() -> Iterator[ApiServer]:
    """A server without records."""
    server = ApiServer()
    with serving(server, server):
        yield server
