"""What is asked, one by one or as the lines of a batch."""

import json
from dataclasses import dataclass
from typing import cast

from ragassets.errors import ConfigurationError


@dataclass(frozen=True)
class Question:
    """One query, and who asks it where that is known."""

    text: str
    user: str | None = None
    """Any stable name of a person or session; a canary gives all its searches the same arm."""


def parse_batch(text: str, *, origin: str) -> list[Question]:
    r"""The questions of JSON lines `{"query": text}`, perhaps with `"user"`.

    Other keys and blank lines are ignored.

    Raises:
        ConfigurationError: A line is not of that form, or its query is empty; the message names it.
    """
    # Not `splitlines`: JSON strings may hold other line separators than "\n".
    lines = enumerate(text.split("\n"), start=1)
    return [_parse_line(line, f"{origin}:{number}") for number, line in lines if line.strip()]


def _parse_line(line: str, place: str) -> Question:
    try:
        entry: object = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    values = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    query, user = values.get("query"), values.get("user")
    if not isinstance(query, str) or not query.strip():
        raise ConfigurationError(
            key="--batch",
            value=place,
            problem="is not a query",
            fix='Write {"query": "text"}, one a line',
        )
    # Numbers are what many applications call their users.
    return Question(query, None if user is None else str(user))
