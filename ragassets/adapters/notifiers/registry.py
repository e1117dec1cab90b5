"""Which notifier a channel of the configuration is."""

from ragassets.adapters.notifiers.email import EmailNotifier
from ragassets.adapters.notifiers.notifier import Notifier
from ragassets.adapters.notifiers.slack import open_slack
from ragassets.adapters.notifiers.webhook import WebhookNotifier
from ragassets.core.notification_settings import ChannelConfig


def open_notifier(channel: str, config: ChannelConfig) -> Notifier:
    """The notifier; nothing is connected yet."""
    if config.slack is not None:
        return open_slack(channel, config.slack)
    if config.email is not None:
        return EmailNotifier(channel, config.email)
    assert config.webhook is not None  # noqa: S101 - the settings ask for exactly one
    return WebhookNotifier(channel, config.webhook)
