"""Whether sources can be read and are read: what there is to tell about their listings."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from ragassets.core.problems import Problem, counted

SHORTEST = timedelta(hours=3)
"""Before a source counts as stale: looks that find nothing new are noted every ten minutes only,
and one pass over a bucket of millions takes a hundred looks."""

SHORTEST_CRAWL = timedelta(days=1)
"""The same of web sites: a polite crawl of ten thousand pages takes hours."""


class Listing(BaseModel):
    """How the last listing of a source went."""

    model_config = ConfigDict(frozen=True)

    source: str
    listed_at: datetime
    is_complete: bool
    n_objects: int
    n_refused_deletions: int
    message: str


class Trouble(BaseModel):
    """A source whose queue does not answer; without one, it did when it was last asked."""

    model_config = ConfigDict(frozen=True)

    source: str
    began_at: datetime
    message: str


class Health(BaseModel):
    """What was seen of a source over time."""

    model_config = ConfigDict(frozen=True)

    healthy_at: datetime
    """When it was listed completely; before the first time, when somebody began to look."""
    ailing_since: datetime | None = None
    """Since when its listings fail."""
    message: str = ""


def follow(
    before: Mapping[str, Health],
    sources: Iterable[str],
    listings: Iterable[Listing],
    now: datetime,
    *,
    troubles: Iterable[Trouble] = (),
) -> dict[str, Health]:
    """The health of the configured sources after another look at what is noted of them.

    Args:
        before: After the look before.
        sources: The names of all.
        listings: The last one of each source that was listed.
        now: The time, UTC.
        troubles: Of the sources whose queues do not answer.
    """
    last = {listing.source: listing for listing in listings}
    silent = {trouble.source: trouble for trouble in troubles}
    after: dict[str, Health] = {}
    for name in sources:
        known = before.get(name, Health(healthy_at=now))
        listing = last.get(name)
        if trouble := silent.get(name):
            after[name] = Health(
                healthy_at=known.healthy_at,
                ailing_since=min(trouble.began_at, now),
                message=trouble.message,
            )
        elif listing is None:
            after[name] = Health(healthy_at=known.healthy_at)
        elif listing.is_complete or not listing.message:
            after[name] = Health(healthy_at=listing.listed_at)
        else:
            began = known.ailing_since or min(listing.listed_at, now)
            after[name] = Health(
                healthy_at=known.healthy_at, ailing_since=began, message=listing.message
            )
    return after


def source_problems(
    health: Mapping[str, Health],
    due_at: Mapping[str, datetime],
    *,
    unreachable_after: timedelta,
    now: datetime,
) -> list[Problem]:
    """Sources out of reach, and sources that nobody listed in time.

    Args:
        health: By source.
        due_at: By source, when it should have been listed again at the latest. Sources that nobody
            lists by himself have none, and are nobody's problem.
        unreachable_after: How long a source may fail before it is told.
        now: The time, UTC.
    """
    problems: list[Problem] = []
    for name, seen in sorted(health.items()):
        deadline = due_at.get(name)
        if deadline is None:
            continue
        is_ailing = seen.ailing_since is not None and now - seen.ailing_since >= unreachable_after
        if is_ailing:
            problems.append(_problem(name, "unreachable", "cannot be read", seen))
        elif now > deadline:
            problems.append(_problem(name, "stale", "was not listed in time", seen))
    return problems


def _problem(name: str, state: str, what: str, seen: Health) -> Problem:
    history = (
        f"Last read completely at {seen.healthy_at:%Y-%m-%d %H:%M} UTC, or never. Until it is"
        " again, nothing new of it becomes searchable, and nothing is deleted."
    )
    return Problem(
        key=f"stale_source/{name}",
        topic="stale_source",
        severity="error",
        title=f"source {name!r} {what}",
        details=(history, *([seen.message] if seen.message else [])),
        commands=("ragassets doctor", f"ragassets ingest {name}"),
        state=state,
    )


def guard_problems(listings: Iterable[Listing]) -> list[Problem]:
    """Sources whose deletions were refused because they are too many."""
    return [
        Problem(
            key=f"guard/{listing.source}",
            topic="guard",
            severity="error",
            title=f"source {listing.source!r}:"
            f" {counted(listing.n_refused_deletions, 'refused deletion')} to be confirmed",
            details=(listing.message,),
            commands=(f"ragassets ingest {listing.source} --confirm-deletions",),
            magnitude=listing.n_refused_deletions,
        )
        for listing in sorted(listings, key=lambda one: one.source)
        if listing.n_refused_deletions > 0
    ]
