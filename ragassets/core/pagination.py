"""What to ask a paged API next, by its last answer; nothing is asked here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from ragassets.core.record_settings import (
    ApiConfig,
    CursorPagination,
    LinkPagination,
    OffsetPagination,
    PagePagination,
    UrlPagination,
)

_LINK = re.compile(r"<([^>]*)>([^<]*)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\bnext\b[^\"]*\"|next\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """One page of an API."""

    content: object
    """The JSON value."""
    link: str = ""
    """The `Link` header."""


def first_url(base: str, api: ApiConfig, extra: Mapping[str, str]) -> str:
    """Where a listing begins.

    Args:
        base: The API's address, without a query.
        api: Its settings.
        extra: Of the query, beside what the settings say.
    """
    paging = api.pagination
    own: dict[str, object] = {}
    if isinstance(paging, PagePagination):
        own = {paging.parameter: paging.first}
    if isinstance(paging, OffsetPagination):
        own = {paging.parameter: 0, paging.limit_parameter: paging.limit}
    return _with_query(base, {**_texts(api.parameters), **extra, **own})


def next_url(
    url: str, first: str, api: ApiConfig, answer: Answer, *, n_pages: int, n_items: int, n_all: int
) -> str | None:
    """Where the next page is; None after the last.

    Args:
        url: Of the answer.
        first: Of the first answer.
        api: The settings.
        answer: What was answered.
        n_pages: How many pages there were, with this one.
        n_items: On this page.
        n_all: On all pages until now, with this one.
    """
    paging = api.pagination
    match paging:
        case CursorPagination():
            cursor = search(paging.path, answer.content)
            is_last = cursor is None or cursor == "" or cursor is False
            return None if is_last else _with(first, {paging.parameter: str(cursor)})
        case PagePagination():
            page = {paging.parameter: str(paging.first + n_pages)}
            return _with(first, page) if n_items else None
        case OffsetPagination():
            return _with(first, {paging.parameter: str(n_all)}) if n_items else None
        case LinkPagination():
            return _joined(url, next_link(answer.link))
        case UrlPagination():
            return _joined(url, search(paging.path, answer.content))
        case _:
            return None


def search(path: str, content: object) -> Any:
    """What stands at a JMESPath; None where nothing does."""
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return cast("Any", jmespath).search(path, content)
    except JMESPathError:
        return None


def next_link(header: str) -> str | None:
    """The target of `rel="next"`. Source: RFC 8288, section 3."""
    for target, parameters in _LINK.findall(header):
        if _REL_NEXT.search(parameters):
            return target
    return None


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port. Source: RFC 6454, section 4."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def _joined(url: str, link: object) -> str | None:
    return urljoin(url, link) if isinstance(link, str) and link else None


def _with(url: str, changed: Mapping[str, str]) -> str:
    """The address with other values in its query."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return _with_query(parts._replace(query="").geturl(), {**query, **changed})


def _with_query(base: str, query: Mapping[str, object]) -> str:
    return f"{base}?{urlencode(query)}" if query else base


def _texts(parameters: Mapping[str, str | float | bool]) -> dict[str, str]:
    """As JSON writes them: `true`, not `True`."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
    }
