"""Which arm of a canary answers a search: a pure function of who asks or what is asked.

Where the canary is kept is in `stages/alias_history.py`; nothing here knows of stores or tables.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from ragassets.core.fingerprints import stable_hash
from ragassets.errors import ConfigurationError

Arm = Literal["live", "canary"]

HASH_DIGITS = 13
"""Hexadecimal digits of the position: 52 bits, all that a float holds without rounding up to 1."""

_SHARE = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<percent>%)?")


@dataclass(frozen=True)
class Canary:
    """A second version that answers a share of an alias's searches."""

    canary_id: str
    """Stays when the share is changed; another version, or a new start, is another canary."""
    alias: str
    index_version: str
    live_version: str
    """What the alias served when it began: the canary ends when the alias moves."""
    share: float
    """In (0, 1]."""


def choose_arm(canary: Canary, *, query: str, user: str | None = None) -> Arm:
    """The arm that answers, the same in every process and on every machine.

    A user, or without one a query, has a fixed position in [0, 1), and the canary answers those
    below its share. So a larger share takes searches from the live version and gives none back,
    and two canaries take different ones.

    Args:
        canary: The canary.
        query: What is asked; case, white space and Unicode forms do not matter.
        user: Who asks, where that is known: then all searches of a user have one arm.

    Source: Tang et al. 2010, "Overlapping Experiment Infrastructure", section 4: diversion by a
    hash that is salted with the experiment.
    """
    return (
        "canary"
        if _position(search_unit(canary, query=query, user=user)) < canary.share
        else ("live")
    )


def search_unit(canary: Canary, *, query: str, user: str | None = None) -> str:
    """What the arm is drawn for, as 32 hex characters: a user, or a query of nobody in particular.

    Searches of one unit depend on each other, and a comparison has to know. The hash is salted, so
    that it tells nothing about a user in another canary.
    """
    kind, name = ("query", normalize_query(query)) if user is None else ("user", user)
    return stable_hash("canary", canary.alias, canary.canary_id, kind, name)


def _position(unit: str) -> float:
    return int(unit[:HASH_DIGITS], 16) / 16**HASH_DIGITS


def normalize_query(query: str) -> str:
    """The query as one person types it and another one too: NFKC, case-folded, single spaces."""
    folded = unicodedata.normalize("NFKC", query).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def parse_share(text: str) -> float:
    """The share that `10%` or `0.1` means, in (0, 1].

    Raises:
        ConfigurationError: It is no share. `10` is none: it might mean either.
    """
    match = _SHARE.fullmatch(text.strip())
    share = float(match["number"]) / (100 if match["percent"] else 1) if match else 0.0
    if not 0 < share <= 1:
        raise ConfigurationError(
            key="--share",
            value=text,
            problem="is no share of the searches",
            fix="Write 10% or 0.1; `--off` ends a canary",
        )
    return share


def format_share(share: float) -> str:
    """The share as people read it, and as `parse_share` does."""
    return f"{share * 100:.4g}%"
