"""The section `notifications` of the configuration file: who is told what, and where.

Everything that opens a door (addresses of Slack, tokens, passwords) is `${ENV}` in the file, and a
`SecretStr` from then on, so that no message, table, log or `repr` shows it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from ragassets.errors import ConfigurationError

Topic = Literal[
    "run_failure", "dead_letters", "failed_check", "guard", "stale_source", "embedding_service"
]
TOPICS: tuple[Topic, ...] = (
    "run_failure",
    "dead_letters",
    "failed_check",
    "guard",
    "stale_source",
    "embedding_service",
)

Severity = Literal["warning", "error"]

Address = Annotated[str, StringConstraints(pattern=r"^[^@\s,<>]+@[^@\s,<>]+$", max_length=254)]
"""Of e-mail; one line without a comma, so that no header can be smuggled in."""

SECRET_KEYS = frozenset({"webhook_url", "bot_token", "password", "secret"})

_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _web_address(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = "it is no address that begins with https://"
        raise ValueError(message)
    return value


class SlackConfig(_Section):
    """A channel of Slack, by an incoming webhook or by a bot."""

    webhook_url: SecretStr | None = None
    """Whoever knows it can post: it is a secret."""
    bot_token: SecretStr | None = None
    channel: str | None = None
    """`#name` or id; with a bot only: an incoming webhook has its own."""
    api_url: str = "https://slack.com/api/"
    """Of the bot; another one for GovSlack."""

    _check_address = field_validator("webhook_url")(_web_address)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook_url is None) == (self.bot_token is None):
            message = "give webhook_url, or bot_token and channel"
            raise ValueError(message)
        if (self.bot_token is None) != (self.channel is None):
            message = "channel belongs to bot_token: an incoming webhook posts to its own channel"
            raise ValueError(message)
        return self


class EmailConfig(_Section):
    """E-mail through an SMTP server."""

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, gt=0, lt=65_536)
    """587 for `starttls`, 465 for `ssl`, 25 for `none`, where it is not given."""
    security: Literal["starttls", "ssl", "none"] = "starttls"
    user: str | None = None
    password: SecretStr | None = None
    sender: Address
    to: tuple[Address, ...] = Field(min_length=1)

    @property
    def at_port(self) -> int:
        """The port to connect to. Source: RFC 6409 (587), RFC 8314 (465), RFC 5321 (25)."""
        return self.port or {"starttls": 587, "ssl": 465, "none": 25}[self.security]

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        if (self.user is None) != (self.password is None):
            message = "user and password belong together"
            raise ValueError(message)
        if self.password and self.security == "none" and self.host not in _LOOPBACK:
            message = "security: none would send the password in clear text; use starttls or ssl"
            raise ValueError(message)
        return self


class WebhookConfig(_Section):
    """A JSON document to an address of your own."""

    webhook_url: SecretStr
    secret: SecretStr | None = None
    """Signs the body, so that the receiver knows who sent it."""

    _check_address = field_validator("webhook_url")(_web_address)


class ChannelConfig(_Section):
    """One place where messages go, and which."""

    slack: SlackConfig | None = None
    email: EmailConfig | None = None
    webhook: WebhookConfig | None = None
    on: Annotated[tuple[Topic, ...], Field(min_length=1)] = TOPICS
    """What it is told; everything where it is not given."""
    min_severity: Severity = "warning"
    resolved: bool = True
    """Whether it is told that a problem has ended."""
    max_per_hour: int = Field(default=12, ge=1, le=3600)
    """Messages, failed tries included. What does not fit waits, and comes as one summary."""

    @model_validator(mode="before")
    @classmethod
    def _mend_yaml(cls, values: object) -> object:
        # YAML 1.1 reads the bare word `on` as true.
        if isinstance(values, Mapping) and "True" in values:
            given = dict(cast("Mapping[str, object]", values))
            return {"on": given.pop("True"), **given}
        return cast("object", values)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("slack", "email", "webhook") if getattr(self, name) is not None]
        if len(given) != 1:
            message = "give exactly one of slack, email and webhook" + (
                f", not {' and '.join(given)}" if given else ""
            )
            raise ValueError(message)
        return self

    @property
    def kind(self) -> Literal["slack", "email", "webhook"]:
        """What kind of place it is."""
        return "slack" if self.slack else "email" if self.email else "webhook"


class StaleSourcesConfig(_Section):
    """When a source that a daemon looks at counts as stale."""

    after_intervals: int = Field(default=2, ge=1, le=1000)
    """It was not completely listed for so many of its own intervals, three hours at
    least, and a day for web sites. Streams (Kafka) have no listing, and are not judged by any."""
    after_hours: Annotated[float, Field(gt=0)] | None = None
    """In place of intervals; also for sources that only commands list."""
    unreachable_minutes: float = Field(default=15, ge=0)
    """So long a source may be out of reach before somebody is told: most outages are shorter."""


class NotificationsConfig(_Section):
    """Who is told what."""

    channels: Annotated[
        Mapping[
            Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")],
            ChannelConfig,
        ],
        Field(min_length=1),
    ]
    project: str = Field(default="ragassets", min_length=1, max_length=60, pattern=r"^[^\r\n]*$")
    """What messages begin with; tells production from staging."""
    ui_url: str | None = None
    """Where people open the Dagster UI; messages link to runs there."""
    interval_seconds: int = Field(default=30, ge=5, le=3600)
    """Between two looks at what there is to tell."""
    dead_letters_minutes: float = Field(default=60, gt=0)
    """Between two digests of new dead letters."""
    stale_sources: StaleSourcesConfig = StaleSourcesConfig()

    @field_validator("ui_url")
    @classmethod
    def _check_ui_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.password:
            message = "it is no address such as https://dagster.example.com"
            raise ValueError(message)
        return value.rstrip("/")


NOTIFICATION_SECTIONS: tuple[type[BaseModel], ...] = (
    ChannelConfig,
    EmailConfig,
    NotificationsConfig,
    SlackConfig,
    StaleSourcesConfig,
    WebhookConfig,
)


def refuse_plain_secrets(configuration: Mapping[str, object]) -> None:
    """Refuse secrets that stand in the file itself.

    Args:
        configuration: The file as YAML gave it, before `${ENV}` values are filled in.

    Raises:
        ConfigurationError: A secret is anything else than one `${ENV}`; its value is not named.
    """
    _refuse_plain_secrets(configuration.get("notifications"), "notifications")


def _refuse_plain_secrets(section: object, key: str) -> None:
    if not isinstance(section, dict):
        return
    for name, value in cast("dict[Any, object]", section).items():
        where = f"{key}.{name}"
        if name not in SECRET_KEYS:
            _refuse_plain_secrets(value, where)
        elif value is not None and not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
            kind, field = where.split(".")[-2:]
            variable = f"{kind}_{field}".upper()
            raise ConfigurationError(
                key=where,
                value=None,
                problem="is a secret and stands in the file",
                fix=f"Write ${{{variable}}}, and set that variable where the daemon runs",
            )
