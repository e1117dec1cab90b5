"""The sensor that tells people what is wrong, running by default where channels are configured.

A tick looks, puts what is worth telling before the channels that want it, and sends. What was seen
and what waits is one value in Dagster's own storage, so that a failure of the project's storage can
be told, too. It is not the sensor's cursor: that is written when a tick is over, so that a tick
that dies after sending would send again every 30 seconds. Here a try is recorded before it is made.
"""

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance

# The iterator over the times of a cron expression has no public name.
from dagster._utils.schedules import cron_string_iterator

from ragassets.config import Config, SourceConfig
from ragassets.core.notification_settings import NotificationsConfig, StaleSourcesConfig
from ragassets.defs.resources import WorkspaceResource, now

SENSOR = "tell_people"

FIRST_LOOK = timedelta(minutes=10)
"""What failed longer ago when notifications are switched on is no news."""


def build_notification_sensors(
    config: Config, checks: list[dg.AssetCheckKey]
) -> list[dg.SensorDefinition]:
    """The sensor; none where nobody wants to be told.

    Args:
        config: The configuration.
        checks: The asset checks whose results are told.
    """
    settings = config.notifications
    if settings is None:
        return []

    @dg.sensor(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
        name=SENSOR,
        minimum_interval_seconds=settings.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people what is wrong: "
        + ", ".join(f"{name} ({channel.kind})" for name, channel in settings.channels.items()),
    )
    def tell_people(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.SkipReason:
        from ragassets.defs.notification_tick import Tick

        origin = context.code_location_origin
        tick = Tick(
            context.instance,
            workspace,
            settings,
            checks=checks,
            location=origin.location_name if origin else None,
            log=context.log,
        )
        return dg.SkipReason(tick.run(now()))

    return [tell_people]


def state_key(config: Config) -> str:
    """Where the state is: several projects may share a Dagster instance."""
    project = hashlib.sha256(config.root.encode()).hexdigest()[:16]
    return f"ragassets/notifications/{project}"


def read_state(instance: DagsterInstance, key: str) -> str | None:
    """The stored state."""
    return instance.daemon_cursor_storage.get_cursor_values({key}).get(key)


def write_state(instance: DagsterInstance, key: str, text: str) -> None:
    """Store the state, at once."""
    # One key a call: with several, Dagster 1.13 loses those that are new.
    instance.daemon_cursor_storage.set_cursor_values({key: text})


def forget_in_notifications(
    instance: DagsterInstance, config: Config, uris: Collection[str]
) -> bool:
    """Take documents out of what is remembered and waits; whether they were there."""
    from ragassets.core.notification_state import State

    key = state_key(config)
    stored = read_state(instance, key)
    if stored is None:
        return False
    before = State.parse(stored)
    after = before.without(uris)
    if after == before:
        return False
    write_state(instance, key, after.model_dump_json())
    return True


NEVER = datetime.max.replace(tzinfo=UTC)
"""Deadline of what is watched, so that its troubles are told, but never counts as stale."""


def listing_deadlines(config: Config, healthy_at: Mapping[str, datetime]) -> dict[str, datetime]:
    """When each source should have been listed completely again, at the latest.

    Sources that only commands list are not expected at any time, unless `after_hours` is given.

    Args:
        config: With `notifications`.
        healthy_at: When each source was last listed completely.
    """
    stale = config.notifications.stale_sources if config.notifications else StaleSourcesConfig()
    return {
        name: min(deadlines)
        for name, moment in healthy_at.items()
        if (deadlines := _deadlines(config.source(name), stale, moment))
    }


def _deadlines(
    source: SourceConfig, stale: StaleSourcesConfig, healthy_at: datetime
) -> list[datetime]:
    from ragassets.core.source_health import SHORTEST, SHORTEST_CRAWL

    watching = source.watching
    if source.is_stream:
        # Messages are read one by one, so nobody ever has a whole listing; but it may be silent.
        return [NEVER] if watching else []
    if stale.after_hours is not None:
        return [healthy_at + timedelta(hours=stale.after_hours)]
    deadlines = [NEVER] if watching is not None and watching.queue else []
    if watching is not None and watching.queue is None:
        interval = timedelta(seconds=watching.interval_seconds + source.rest_seconds)
        shortest = SHORTEST_CRAWL if source.rest_seconds else SHORTEST
        deadlines.append(healthy_at + max(interval * stale.after_intervals, shortest))
    cron = source.listing_schedule
    if cron is not None:
        times = cron_string_iterator(healthy_at.timestamp(), cron, source.timezone)
        upcoming = (moment for moment in times if moment > healthy_at)
        for _ in range(stale.after_intervals - 1):
            next(upcoming)
        deadlines.append(next(upcoming) + SHORTEST)
    return deadlines


def is_digest_due(
    settings: NotificationsConfig, digest_at: datetime | None, moment: datetime
) -> bool:
    """Whether new dead letters may be told again."""
    wait = timedelta(minutes=settings.dead_letters_minutes)
    return digest_at is None or moment - digest_at >= wait
