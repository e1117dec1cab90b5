"""New dead letters since the last digest, as counts and examples."""

import base64
import hashlib
from collections import Counter
from datetime import datetime

import polars as pl

from ragassets.core.problems import Notice, Problem, counted

MARK_BYTES = 6
"""Of a letter that was told. Among 100,000 letters a new one is taken for a told one with a
probability of 100,000 / 2^48, which is 4e-10."""

REASONS_SHOWN = 10
EXAMPLES_SHOWN = 5
URI_CHARS = 200

COLUMNS = ("dead_letter_id", "document_id", "source", "uri", "stage", "reason")


def marks(letters: pl.DataFrame) -> str:
    """What remembers which letters were told: 8 characters for each, sorted.

    A letter that fails again for another reason is another one.
    """
    return base64.b64encode(b"".join(sorted(_marks(letters)))).decode()


def _marks(letters: pl.DataFrame) -> list[bytes]:
    return [
        hashlib.sha256(f"{name} {reason}".encode()).digest()[:MARK_BYTES]
        for name, reason in letters.select("dead_letter_id", "reason").iter_rows()
    ]


def _unpacked(text: str) -> set[bytes]:
    packed = base64.b64decode(text)
    return {packed[at : at + MARK_BYTES] for at in range(0, len(packed), MARK_BYTES)}


def new_letters(letters: pl.DataFrame, told: str) -> pl.DataFrame:
    """The letters that `told` does not remember."""
    known = _unpacked(told)
    is_new = [mark not in known for mark in _marks(letters)]
    return letters.filter(pl.Series(is_new, dtype=pl.Boolean))


def digest(new: pl.DataFrame, *, n_documents: int, since: datetime, now: datetime) -> Notice:
    """One notice about all new letters.

    Args:
        new: At least one letter, in `COLUMNS`.
        n_documents: Documents with a dead letter, old ones too.
        since: The time of the last digest.
        now: The time of this one.
    """
    n_new = new["document_id"].n_unique()
    counts = Counter(
        f"{source}: {reason} ({stage})"
        for source, stage, reason, _ in new.select("source", "stage", "reason", "document_id")
        .unique()
        .iter_rows()
    )
    lines = [f"{count} × {what}" for what, count in _largest(counts)]
    if len(counts) > REASONS_SHOWN:
        lines.append(f"and {len(counts) - REASONS_SHOWN} more reasons")
    examples = sorted(set(new["uri"].drop_nulls().to_list()))[:EXAMPLES_SHOWN]
    lines += [f"such as {_short(uri)}" for uri in examples]
    return Notice(
        problem=Problem(
            key=f"dead_letters/{now.isoformat(timespec='seconds')}",
            topic="dead_letters",
            severity="warning",
            title=f"new dead letters: {counted(n_new, 'document')} (now {n_documents} in all)",
            details=tuple(lines),
            commands=_commands(new, examples),
        ),
        kind="news",
        at=now,
        since=since,
    )


def _commands(new: pl.DataFrame, examples: list[str]) -> tuple[str, ...]:
    sources = sorted(set(new["source"].to_list()))
    narrowed = f" --source {sources[0]}" if len(sources) == 1 else ""
    why = (f"ragassets why {examples[0]}",) if examples else ()
    return (f"ragassets dead-letters list{narrowed}", *why)


def _largest(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:REASONS_SHOWN]


def _short(uri: str) -> str:
    return uri if len(uri) <= URI_CHARS else f"{uri[: URI_CHARS - 1]}…"
