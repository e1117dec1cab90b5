"""The settings of a source that is a web site: a frozen model, nothing else."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

WEB_SCHEMES = frozenset({"http", "https"})

TRACKING_PARAMETERS = (
    "utm_*", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "fbclid", "msclkid", "yclid", "igshid",
    "mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi", "mkt_tok", "phpsessid", "jsessionid",
)  # fmt: skip
"""Parameters of a query that say who came and from where, and nothing of what is shown. Source: the
click identifiers that Google, Meta, Microsoft, Yandex, Mailchimp, HubSpot and Marketo document,
and the session parameters of PHP and Java."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A `token`. Source: RFC 9110, section 5.6.2."""

OWN_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "if-modified-since",
     "if-none-match", "range", "te", "transfer-encoding", "user-agent"}
)  # fmt: skip
"""What the crawler sets itself."""


class WebConfig(BaseModel):
    """How a web site is crawled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sitemaps: Literal["auto"] | tuple[str, ...] = "auto"
    """Where to find pages besides links: `auto` takes those that robots.txt names, else
    /sitemap.xml; an empty list takes none."""
    depth: Annotated[int, Field(ge=0, le=50)] = 2
    """How many links to follow away from the source's own address and from pages of a sitemap."""
    max_pages: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Addresses that one crawl asks for; what is more is left out, and said. A calendar links for
    ever."""
    delay_seconds: Annotated[float, Field(ge=0, le=300)] = 0.5
    """Between the beginnings of two requests; a longer Crawl-delay of robots.txt counts more."""
    connections: Annotated[int, Field(ge=1, le=16)] = 1
    """Requests at the same time."""
    page_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """For one page with all its redirects; a sensor takes 15 at most, because it has no more."""
    crawl_interval_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 3_600
    """From the end of one crawl of a sensor to the beginning of the next."""
    user_agent: Annotated[str, Field(min_length=1, max_length=200)] = "ragassets"
    """What the crawler calls itself. What stands before a slash or a space is the name that
    robots.txt has rules for."""
    headers: Mapping[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """Sent to the source's own host and port alone, such as `Authorization: ${DOCS_TOKEN}`."""
    allow_private: tuple[str, ...] = ()
    """Hosts, addresses and networks (`10.1.0.0/16`) that may be asked though not public."""
    ignore_parameters: tuple[str, ...] = TRACKING_PARAMETERS
    """Parameters of a query that do not make another page; `*` stands for any letters."""
    trust_lastmod: bool = False
    """Not to ask for a page whose `lastmod` in the sitemap is that of the last crawl. It saves a
    request a page, and finds no change that the sitemap does not tell."""

    @field_validator("sitemaps")
    @classmethod
    def _check_sitemaps(
        cls, value: Literal["auto"] | tuple[str, ...]
    ) -> Literal["auto"] | tuple[str, ...]:
        for url in () if value == "auto" else value:
            if problem := address_problem(url):
                message = f"{problem}: write whole addresses of sitemaps"
                raise ValueError(message)
        return value

    @field_validator("user_agent")
    @classmethod
    def _check_user_agent(cls, value: str) -> str:
        if not (value.isascii() and value.isprintable() and _HEADER_NAME.match(value)):
            message = "it must be ASCII and begin with a name such as ragassets"
            raise ValueError(message)
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
        for name, secret in value.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in OWN_HEADERS:
                message = f"{name!r} is no name of a header that can be set here"
                raise ValueError(message)
            text = secret.get_secret_value()
            if not (text.isascii() and text.isprintable()):
                message = f"the value of {name} must be one line of ASCII"
                raise ValueError(message)
        return value

    @field_validator("allow_private")
    @classmethod
    def _check_allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if "/" in entry:
                try:
                    ip_network(entry, strict=False)
                except ValueError:
                    message = f"{entry!r} is no network such as 10.1.0.0/16"
                    raise ValueError(message) from None
            elif not re.fullmatch(r"[A-Za-z0-9._:-]+", entry):
                message = f"{entry!r} is neither a host nor an address; leave scheme and port out"
                raise ValueError(message)
        return value

    @property
    def robots_name(self) -> str:
        """What the crawler is called in robots.txt."""
        return re.split(r"[/\s]", self.user_agent, maxsplit=1)[0]


def address_problem(url: str) -> str:
    """What is wrong with an address of a site; empty where nothing is. No password is repeated."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "it is no address that can be read"
    if parts.scheme not in WEB_SCHEMES or not parts.hostname:
        return "it must be http:// or https:// and a host"
    if "@" in parts.netloc:
        return "it holds a user or password; use web: {headers: {Authorization: ${VARIABLE}}}"
    return ""


def site_problem(uri: str, web: WebConfig, *, has_mirrors: bool) -> str:
    """What is wrong with a source that is a web site; empty where nothing is, or it is none."""
    if urlsplit(uri).scheme not in WEB_SCHEMES:
        return "web: only a source of http:// or https:// has it" if web != WebConfig() else ""
    if problem := address_problem(uri):
        return f"uri: {problem}"
    if "#" in uri or "?" in uri:
        return "uri: it must end before `?` or `#`: everything below it is the source"
    if has_mirrors:
        return "mirrors: a web site has none; what was crawled is kept in the landing zone"
    return ""
