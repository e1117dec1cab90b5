"""A JSON document to an address of one's own, signed where there is a secret."""

import hashlib
import hmac
import json
from datetime import UTC, datetime

from ragassets.adapters.notifiers.notifier import TIMEOUT_SECONDS
from ragassets.core.notification_messages import Message, as_json
from ragassets.core.notification_settings import WebhookConfig
from ragassets.core.retries import is_retryable, parse_retry_after
from ragassets.errors import NotificationError

SIGNATURE_HEADER = "X-Ragassets-Signature"
ID_HEADER = "X-Ragassets-Id"


def signature(secret: str, body: bytes, *, timestamp: int) -> str:
    """What the receiver computes, too: HMAC-SHA256 over `<timestamp>.<body>`.

    The time is signed with it, so that nobody can send an old message again later.

    Source: RFC 2104; the form is that of https://docs.stripe.com/webhooks#verify-manually.
    """
    signed = str(timestamp).encode() + b"." + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class WebhookNotifier:
    """An address that takes JSON."""

    def __init__(self, channel: str, config: WebhookConfig) -> None:
        """Remember where; nothing is opened."""
        self._channel, self._config = channel, config

    def send(self, message: Message) -> None:
        """Post it; any 2xx says that it arrived. Redirects are not followed."""
        body = json.dumps(as_json(message)).encode()
        headers = {"Content-Type": "application/json", ID_HEADER: message.message_id}
        if self._config.secret is not None:
            now = int(message.sent_at.timestamp())
            secret = self._config.secret.get_secret_value()
            headers[SIGNATURE_HEADER] = signature(secret, body, timestamp=now)
        status, retry_after = self._request("POST", body, headers)
        if not 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls success
            fix = "It is tried again later" if is_retryable(status) else "Check webhook_url"
            raise NotificationError(
                channel=self._channel,
                detail=f"the webhook answered {status}",
                fix=fix,
                retry_after_seconds=retry_after,
            )

    def probe(self) -> str:
        """Ask for nothing: whether somebody answers is all that can be told without a message."""
        status, _ = self._request("HEAD", b"", {})
        return f"somebody answers ({status}); `ragassets notifications test` sends a message"

    def _request(
        self, method: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, float | None]:
        import httpx

        try:
            answer = httpx.request(
                method,
                self._config.webhook_url.get_secret_value(),
                content=body,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its text may hold the address, which is a secret.
            raise NotificationError(
                channel=self._channel,
                detail=f"the webhook cannot be reached ({type(error).__name__})",
            ) from None
        now = datetime.now(UTC)
        return answer.status_code, parse_retry_after(answer.headers.get("Retry-After"), now=now)
