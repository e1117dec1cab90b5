"""From the messages of a topic to documents: who they are, what is in them, which are gone."""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import cast
from urllib.parse import quote

from ragassets.core.kafka_settings import KafkaConfig
from ragassets.core.records import RecordContent, RecordMapping

Headers = Sequence[tuple[str, bytes | None]]

_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)

SCHEMA_PREFIX_BYTES = 5
"""A zero byte and the number of a schema. No JSON begins with a zero byte.

Source: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/,
"Wire format"."""


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """None is a deletion."""
    written_at: datetime
    headers: Headers = ()


@dataclasses.dataclass(frozen=True)
class Folded:
    """What some messages leave behind, the last one of each document."""

    bodies: dict[str, bytes]
    """By URI."""
    written_at: dict[str, datetime]
    """The same URIs."""
    deleted: frozenset[str]
    """URIs."""
    n_without_identity: int
    """Messages that became documents by their position."""
    n_ignored: int
    """Deletions that do not say of what."""


def fold_messages(
    messages: Sequence[Message],
    base_uri: str,
    settings: KafkaConfig,
    is_wanted: Callable[[str], bool] = lambda _name: True,
    mapping: RecordMapping | None = None,
) -> Folded:
    """Apply messages one after the other.

    Args:
        messages: In the order in which they were read, which within a partition is the order in
            which they were written.
        base_uri: What the documents' URIs begin with, without a slash at its end.
        settings: What names a document, and what its value is.
        is_wanted: Says of a document's name whether it is to be taken in.
        mapping: What JSON objects become; None where they are documents as they are. A value that
            is no JSON object is one in any case.

    Returns:
        The end: applying the same messages twice, or some of them before all of them, leaves the
        same behind.
    """
    latest: dict[str, Message] = {}
    n_without_identity = n_ignored = 0
    for message in messages:
        identity = _identity(message, settings)
        if identity is None and message.value is None:
            n_ignored += 1
            continue
        if identity is None:
            n_without_identity += 1
            # Two parts, so that it is no key: a slash in a key is percent-encoded.
            name = f"@{message.partition}/{message.offset}"
            path = name + settings.suffix
        else:
            name = identity.decode("utf-8", "replace")
            path = quote(identity, safe="") + _missing_suffix(identity, settings)
        if is_wanted(name):
            latest[f"{base_uri}/{path}"] = message
    contents = {uri: _content(message, settings, mapping) for uri, message in latest.items()}
    kept = {uri: content for uri, content in contents.items() if content is not None}
    return Folded(
        bodies={uri: content.body for uri, content in kept.items()},
        written_at={
            uri: content.updated_at or latest[uri].written_at for uri, content in kept.items()
        },
        deleted=frozenset(latest.keys() - kept.keys()),
        n_without_identity=n_without_identity,
        n_ignored=n_ignored,
    )


def _identity(message: Message, settings: KafkaConfig) -> bytes | None:
    """What names the document; None where the message has no such thing, or an empty one."""
    if header := settings.identity_of("header"):
        return next((value for name, value in message.headers if name == header), None) or None
    field = settings.identity_of("field")
    if field and message.value is not None:
        return _field(_unframed(message.value), field)
    # A deletion has no fields: it is its key that says of what.
    return message.key or None


def _json(value: bytes) -> object:
    """What a value says as JSON; None for what is none."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _field(value: bytes, path: str) -> bytes | None:
    found = _json(value)
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = cast("dict[str, object]", found).get(name)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        return None
    return str(found).encode("utf-8", "surrogatepass")


def _missing_suffix(identity: bytes, settings: KafkaConfig) -> str:
    has_it = identity.lower().endswith(settings.suffix.lower().encode())
    return "" if has_it else settings.suffix


def _content(
    message: Message, settings: KafkaConfig, mapping: RecordMapping | None
) -> RecordContent | None:
    """What a message leaves of its document; None where the document is gone."""
    if message.value is None:
        return None
    if mapping is not None:
        record = _json(_unframed(message.value))
        if isinstance(record, dict):
            content = mapping.read_content(cast("dict[str, object]", record))
            return None if content.is_deleted else content
    return RecordContent(_body(message.value, message.headers, settings), None, is_deleted=False)


def _body(value: bytes, headers: Headers, settings: KafkaConfig) -> bytes:
    if settings.value == "json":
        return _unframed(value)
    return _as_utf8(value, headers) if settings.value == "text" else value


def _unframed(value: bytes) -> bytes:
    return value[SCHEMA_PREFIX_BYTES:] if value[:1] == b"\0" else value


def _as_utf8(value: bytes, headers: Headers) -> bytes:
    """The text in UTF-8; as it is where nothing, or nothing true, is said about it."""
    said = next((text for name, text in headers if name.lower() == "content-type" and text), b"")
    found = _CHARSET.search(said.decode("latin-1"))
    if not found:
        return value
    try:
        return value.decode(found[1]).encode()
    except (LookupError, ValueError):
        return value
