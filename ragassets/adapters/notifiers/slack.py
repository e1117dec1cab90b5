"""Slack, through its own SDK: an incoming webhook or a bot.

dagster-slack brings the same SDK. Its client has no time-out of ours, it knows no incoming
webhooks, and its failure sensor moves on when Slack is down; so it is not used.
"""

import logging
import re
from collections.abc import Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, cast

from pydantic import SecretStr

from ragassets.adapters.notifiers.notifier import TIMEOUT_SECONDS
from ragassets.core.notification_messages import Message, plain_text, slack_blocks
from ragassets.core.notification_settings import SlackConfig
from ragassets.core.retries import THROTTLED
from ragassets.errors import NotificationError

if TYPE_CHECKING:
    from slack_sdk.web.client import WebClient

_QUIET = logging.getLogger("ragassets.slack")
_QUIET.setLevel(logging.CRITICAL)
"""The SDK logs whole answers at debug level and addresses at others."""

_CODE = re.compile(r"[a-z_]{2,60}")
"""Of Slack's error codes: anything else in an answer is not repeated."""

OK, BAD_REQUEST = 200, 400


class SlackWebhook:
    """An incoming webhook."""

    def __init__(self, channel: str, webhook_url: SecretStr) -> None:
        """Remember where; nothing is opened."""
        self._channel, self._url = channel, webhook_url

    def send(self, message: Message) -> None:
        """Post it.

        Source: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
        """
        text = f"{message.subject}\n{plain_text(message)}"
        self._post({"text": text, "blocks": slack_blocks(message)}, accepted=OK)

    def probe(self) -> str:
        """Post nothing: Slack then says `no_text` where it knows the address."""
        self._post({"text": ""}, accepted=BAD_REQUEST)
        return "Slack knows the webhook"

    def _post(self, body: dict[str, Any], *, accepted: int) -> None:
        from slack_sdk.errors import SlackClientError
        from slack_sdk.webhook.client import WebhookClient

        client = WebhookClient(
            self._url.get_secret_value(),
            timeout=int(TIMEOUT_SECONDS),
            logger=_QUIET,
            retry_handlers=[],
        )
        try:
            answer = client.send_dict(body)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            raise _unreachable(self._channel, error) from None
        if answer.status_code != accepted:
            code = _code(answer.body)
            raise NotificationError(
                channel=self._channel,
                detail=f"Slack answered {answer.status_code}{f' ({code})' if code else ''}",
                fix=_fix(answer.status_code, "webhook_url"),
                retry_after_seconds=_retry_after(answer.headers),
            )


class SlackBot:
    """A bot that posts to a channel."""

    def __init__(self, channel: str, token: SecretStr, *, post_to: str, api_url: str) -> None:
        """Remember how; nothing is opened."""
        self._channel, self._token = channel, token
        self._post_to, self._api_url = post_to, api_url

    def send(self, message: Message) -> None:
        """Post it.

        Source: https://docs.slack.dev/reference/methods/chat.postMessage
        """
        self._call(
            "chat.postMessage",
            {
                "channel": self._post_to,
                "text": f"{message.subject}\n{plain_text(message)}",
                "blocks": slack_blocks(message),
                "unfurl_links": False,
            },
        )

    def probe(self) -> str:
        """Ask whose token it is."""
        self._call("auth.test", {})
        return f"Slack takes the token; messages go to {self._post_to}"

    def _client(self) -> "WebClient":
        from slack_sdk.web.client import WebClient

        return WebClient(
            self._token.get_secret_value(),
            base_url=self._api_url,
            timeout=int(TIMEOUT_SECONDS),
            logger=_QUIET,
            retry_handlers=[],
        )

    def _call(self, method: str, body: dict[str, Any]) -> None:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            self._client().api_call(method, json=body)  # pyright: ignore[reportUnknownMemberType]
        except SlackApiError as error:
            answer = cast("Any", error).response
            status, code = int(answer.status_code), _code(str(answer.get("error")))
            raise NotificationError(
                channel=self._channel,
                detail=f"Slack answered {status}{f' ({code})' if code else ''}",
                fix=_fix(status, "bot_token and channel; the bot has to be in the channel"),
                retry_after_seconds=_retry_after(answer.headers),
            ) from None
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            raise _unreachable(self._channel, error) from None


def open_slack(channel: str, config: SlackConfig) -> SlackWebhook | SlackBot:
    """The way that the configuration gives."""
    if config.webhook_url is not None:
        return SlackWebhook(channel, config.webhook_url)
    token, post_to = config.bot_token, config.channel
    assert token is not None  # noqa: S101 - the settings refuse one without the other
    assert post_to is not None  # noqa: S101
    return SlackBot(channel, token, post_to=post_to, api_url=config.api_url)


def _unreachable(channel: str, error: Exception) -> NotificationError:
    # Its text may hold the address, which is a secret.
    return NotificationError(
        channel=channel, detail=f"Slack cannot be reached ({type(error).__name__})"
    )


def _fix(status: int, keys: str) -> str:
    if status == THROTTLED or status >= 500:  # noqa: PLR2004 - the server's own errors
        return "It is tried again later"
    return f"Check {keys}, then `ragassets notifications test`"


def _code(text: str | None) -> str:
    return text.strip() if text and _CODE.fullmatch(text.strip()) else ""


def _retry_after(headers: Mapping[str, object]) -> float | None:
    """Seconds that Slack asks for.

    Source: https://docs.slack.dev/apis/web-api/rate-limits
    """
    named = {name.lower(): value for name, value in headers.items()}
    # The SDK gives a list of values in one place and the value in another.
    text = str(named.get("retry-after") or "").strip("[]'\" ")
    return float(text) if text.isdecimal() else None
