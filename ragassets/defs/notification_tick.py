"""One tick of the sensor that tells people: look, decide, record, send, record."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import dagster as dg
from dagster import DagsterInstance

from ragassets.adapters.notifiers.notifier import send_all
from ragassets.adapters.notifiers.registry import open_notifier
from ragassets.core import notification_delivery as delivery
from ragassets.core.dead_letter_digest import digest, marks, new_letters
from ragassets.core.failed_checks import check_problems, fold_checks
from ragassets.core.failed_runs import fold_runs, forget_old, run_problems
from ragassets.core.notification_messages import compose
from ragassets.core.notification_settings import NotificationsConfig, Topic
from ragassets.core.notification_state import State
from ragassets.core.problems import Notice, Problem, compare
from ragassets.core.source_health import follow, guard_problems, source_problems
from ragassets.defs.notifications import (
    FIRST_LOOK,
    is_digest_due,
    listing_deadlines,
    read_state,
    state_key,
    write_state,
)
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.run_facts import read_check_results, read_run_ends
from ragassets.errors import NotificationError, RagAssetsError
from ragassets.queries.notification_facts import Facts, Letters, read_facts


class Tick:
    """One evaluation of the sensor."""

    def __init__(
        self,
        instance: DagsterInstance,
        resource: WorkspaceResource,
        settings: NotificationsConfig,
        *,
        checks: Sequence[dg.AssetCheckKey],
        location: str | None,
        log: logging.Logger,
    ) -> None:
        """Read what is remembered."""
        self._instance, self._resource, self._settings = instance, resource, settings
        self._checks, self._location, self._log = checks, location, log
        self._key = state_key(resource.config)
        self._stored = read_state(instance, self._key)
        self.state = State.parse(self._stored)

    def run(self, now: datetime) -> str:
        """Do it all; what was done, in words."""
        notices = self._look(now)
        self.state = self.state.with_notices(notices, self._settings)
        self._record()
        sent, failed = self._send(now)
        n_waiting = sum(len(channel.waiting) for channel in self.state.channels.values())
        parts = [
            f"{len(notices)} new to tell",
            *(f"told {name}" for name in sent),
            *(f"{name} was not told" for name in failed),
            *([f"{n_waiting} wait"] if n_waiting else []),
        ]
        return ", ".join(parts)

    def _record(self) -> None:
        text = self.state.model_dump_json()
        if text != self._stored:
            write_state(self._instance, self._key, text)
            self._stored = text

    # Looking

    def _look(self, now: datetime) -> list[Notice]:
        """What is worth telling; what cannot be looked at is left as it was."""
        facts = self._read_tables()
        looks: list[tuple[tuple[Topic, ...], Callable[[], list[Problem] | None]]] = [
            (("run_failure",), lambda: self._runs(now)),
            (("failed_check",), lambda: self._failed_checks(now)),
            (("guard", "stale_source"), lambda: self._sources(facts, now)),
            (("embedding_service",), lambda: facts.outages),
        ]
        problems: list[Problem] = []
        looked_at: set[Topic] = set()
        for topics, look in looks:
            found = self._guarded(look)
            if found is not None:
                problems += found
                looked_at.update(topics)
        told, notices = compare(self.state.told, problems, looked_at=looked_at, now=now)
        self.state = self.state.model_copy(update={"told": told})
        return [*notices, *self._dead_letters(facts.letters, now)]

    def _read_tables(self) -> Facts:
        version = self.state.letters_version
        facts = read_facts(self._resource.workspace, letters_version=version)
        for name, trouble in facts.troubles.items():
            self._log.warning(
                "The %s could not be read (%s); the next tick tries again", name, trouble
            )
        return facts

    def _guarded(self, look: Callable[[], list[Problem] | None]) -> list[Problem] | None:
        try:
            return look()
        except RagAssetsError as error:
            self._log.warning("%s", error)
        except Exception as error:  # noqa: BLE001 - the other topics would not be told
            name = type(error).__name__
            self._log.exception("A look for notifications failed with %s", name)
        return None

    def _runs(self, now: datetime) -> list[Problem]:
        since = self.state.runs_until or now - FIRST_LOOK
        ends, until = read_run_ends(self._instance, since, location=self._location)
        failed = forget_old(fold_runs(self.state.failed_runs, ends), now)
        self.state = self.state.model_copy(
            update={"failed_runs": tuple(failed), "runs_until": until}
        )
        return run_problems(failed)

    def _failed_checks(self, now: datetime) -> list[Problem]:
        results = read_check_results(self._instance, self._checks)
        failed = fold_checks(self.state.failed_checks, results)
        self.state = self.state.model_copy(update={"failed_checks": tuple(failed)})
        return check_problems(failed, now)

    def _sources(self, facts: Facts, now: datetime) -> list[Problem] | None:
        listings, silent = facts.listings, facts.silent
        if listings is None or silent is None:
            return None
        config = self._resource.config
        health = follow(self.state.health, config.sources, listings, now, troubles=silent)
        self.state = self.state.model_copy(update={"health": health})
        due_at = listing_deadlines(config, {name: one.healthy_at for name, one in health.items()})
        patience = timedelta(minutes=self._settings.stale_sources.unreachable_minutes)
        return [
            *guard_problems(listings),
            *source_problems(health, due_at, unreachable_after=patience, now=now),
        ]

    def _dead_letters(self, found: Letters | None, now: datetime) -> list[Notice]:
        state = self.state
        version, letters = found or (None, None)
        if letters is None or not is_digest_due(self._settings, state.digest_at, now):
            return []
        new = new_letters(letters, state.letters)
        changes = {"letters": marks(letters), "letters_version": version}
        if new.is_empty():
            self.state = state.model_copy(update=changes)
            return []
        self.state = state.model_copy(update={**changes, "digest_at": now})
        n_documents = letters["document_id"].n_unique()
        return [digest(new, n_documents=n_documents, since=state.digest_at or now, now=now)]

    # Sending

    def _send(self, now: datetime) -> tuple[list[str], list[str]]:
        """Send what is due; the channels that were told, and those that were not."""
        due = {
            name: self.state.channel(name)
            for name, config in self._settings.channels.items()
            if delivery.is_due(self.state.channel(name), config, now)
        }
        if not due:
            return [], []
        # Before the try: whoever dies in it must not try again at once.
        begun = {name: delivery.begin_try(channel, now) for name, channel in due.items()}
        self.state = self.state.with_channels(begun)
        self._record()
        outcomes = send_all(
            {
                name: (
                    open_notifier(name, self._settings.channels[name]),
                    compose(
                        channel.waiting,
                        channel.n_left_out,
                        project=self._settings.project,
                        ui_url=self._settings.ui_url,
                        severity=delivery.worst(channel.waiting),
                        now=now,
                    ),
                )
                for name, channel in due.items()
            }
        )
        after: dict[str, delivery.Channel] = {}
        for name, error in outcomes.items():
            if error is None:
                after[name] = delivery.after_success(begun[name], due[name])
            else:
                self._log.error("%s", error)
                asked = error.retry_after_seconds if isinstance(error, NotificationError) else None
                after[name] = delivery.after_failure(begun[name], now, asked)
        self.state = self.state.with_channels(after)
        self._record()
        sent = [name for name, error in outcomes.items() if error is None]
        return sent, [name for name in outcomes if name not in sent]
