"""Whether the channels of notifications can be reached, and test messages to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ragassets.adapters.notifiers.notifier import send_all
from ragassets.adapters.notifiers.registry import open_notifier
from ragassets.config import Config
from ragassets.core.notification_messages import trial_message
from ragassets.core.notification_settings import ChannelConfig, NotificationsConfig
from ragassets.errors import ConfigurationError, RagAssetsError, UnknownNameError


@dataclass(frozen=True)
class ChannelTest:
    """How a test message went."""

    channel: str
    kind: str
    is_sent: bool
    problem: str = ""

    def as_json(self) -> dict[str, object]:
        """The public shape of an entry of `notifications test`."""
        return {
            "channel": self.channel,
            "kind": self.kind,
            "sent": self.is_sent,
            "problem": self.problem,
        }


def try_channels(config: Config, names: Sequence[str], now: datetime) -> list[ChannelTest]:
    """Send a test message to the named channels, to all where none is named.

    Raises:
        ConfigurationError: There are no channels, or none of such a name.
    """
    settings = _settings(config)
    channels = _chosen(settings, names)
    messages = {
        name: (
            open_notifier(name, channel),
            trial_message(project=settings.project, channel=name, ui_url=settings.ui_url, now=now),
        )
        for name, channel in channels.items()
    }
    outcomes = send_all(messages)
    return [
        ChannelTest(name, channel.kind, outcomes[name] is None, _said(outcomes[name]))
        for name, channel in channels.items()
    ]


def _said(error: RagAssetsError | None) -> str:
    return "" if error is None else str(error)


def _settings(config: Config) -> NotificationsConfig:
    if config.notifications is None:
        raise ConfigurationError(
            key="notifications",
            value=None,
            problem="is not configured, so there is no channel to test",
            fix="Add one as docs/notifications.md shows",
        )
    return config.notifications


def _chosen(settings: NotificationsConfig, names: Sequence[str]) -> Mapping[str, ChannelConfig]:
    for name in names:
        if name not in settings.channels:
            raise UnknownNameError(
                kind="notification channel", name=name, known=sorted(settings.channels)
            )
    return {name: settings.channels[name] for name in (names or settings.channels)}
