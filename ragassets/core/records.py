"""From a JSON value to the bytes of a document, and back.

What a record maps to is landed as a small JSON object of its own, the envelope, so that the parser
finds body, title and metadata without knowing the source. The same record gives the same bytes.
"""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from ragassets.core.record_settings import BodyType, RecordConfig
from ragassets.errors import BrokenRecordError

if TYPE_CHECKING:
    from jmespath.parser import ParsedResult

SIGNATURE = b'{"ragassets_record":1,'
"""What every envelope begins with."""

Scalar = str | int | float | bool

MILLISECONDS_FROM = 1e11
"""A larger number of seconds would be after the year 5000, so it counts milliseconds."""


@dataclasses.dataclass(frozen=True)
class RecordContent:
    """What a record says, but whose record it is."""

    body: bytes
    """The envelope."""
    updated_at: datetime | None
    is_deleted: bool


@dataclasses.dataclass(frozen=True)
class Record(RecordContent):
    """What a source's record says."""

    record_id: str


@dataclasses.dataclass(frozen=True)
class Envelope:
    """What the landed bytes of a record hold."""

    body: str
    body_type: BodyType | Literal["json"]
    title: str | None
    metadata: Mapping[str, Scalar]


class RecordMapping:
    """Reads records as one source's settings say."""

    def __init__(self, config: RecordConfig) -> None:
        """Compile the paths."""
        self._config = config
        self._paths = {
            path: _compiled(path)
            for path in [
                config.id,
                *(config.body[1:] if config.body else ()),
                *filter(None, [config.title, config.url, config.updated_at, config.deleted]),
                *config.metadata.values(),
            ]
        }

    def read(self, value: object, *, place: str) -> Record:
        """What a record says.

        Args:
            value: As `json.loads` gives it.
            place: Where it was found, for the error.

        Raises:
            BrokenRecordError: It is no object, or has no usable identity.
        """
        if not isinstance(value, dict):
            raise BrokenRecordError(place=place, detail="it is no JSON object")
        value = cast("dict[str, object]", value)
        record_id = self._identity(value, place)
        content = self.read_content(value)
        return Record(content.body, content.updated_at, content.is_deleted, record_id)

    def read_content(self, value: dict[str, object]) -> RecordContent:
        """What a record says that is named by something else than its own field."""
        return RecordContent(
            body=write_envelope(self._envelope(value)),
            updated_at=read_time(self._found(self._config.updated_at, value)),
            is_deleted=_is_true(self._found(self._config.deleted, value)),
        )

    def _identity(self, value: object, place: str) -> str:
        found = self._found(self._config.id, value)
        is_usable = isinstance(found, str | int) and not isinstance(found, bool) and found != ""
        if not is_usable:
            detail = f"its id at {self._config.id!r} is no text and no whole number"
            raise BrokenRecordError(place=place, detail=detail)
        return str(found)

    def _envelope(self, value: dict[str, object]) -> Envelope:
        config = self._config
        named = {name: self._found(path, value) for name, path in sorted(config.metadata.items())}
        if config.url is not None:
            named["url"] = self._found(config.url, value)
        title = self._found(config.title, value)
        if config.body is None:
            body_type, body = "json", json.dumps(value, sort_keys=True)
        else:
            body_type, path = config.body
            body = _text(self._found(path, value))
        return Envelope(
            body=body,
            body_type=body_type,
            title=_text(title) or None,
            metadata={
                name: scalar for name, one in named.items() if (scalar := _scalar(one)) is not None
            },
        )

    def _found(self, path: str | None, value: object) -> object:
        from jmespath.exceptions import JMESPathError

        if path is None:
            return None
        try:
            return cast("Any", self._paths[path]).search(value)
        except (JMESPathError, RecursionError):  # a function of the path does not take this value
            return None


def record_uri(base: str, record_id: str) -> str:
    """The URI of a record: its source's or its file's, and its identity."""
    return f"{base}#{quote(record_id, safe='')}"


def write_envelope(envelope: Envelope) -> bytes:
    """The bytes to land; ASCII, so that no lone surrogate of a JSON escape can break them."""
    content = {
        "ragassets_record": 1,
        "body_type": envelope.body_type,
        "title": envelope.title,
        "metadata": dict(sorted(envelope.metadata.items())),
        "body": envelope.body,
    }
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def read_envelope(data: bytes) -> Envelope:
    """What `write_envelope` wrote.

    Raises:
        ValueError: These bytes are none of its.
    """
    content = json.loads(data)
    try:
        return Envelope(
            body=str(content["body"]),
            body_type=content["body_type"],
            title=content["title"],
            metadata=dict(content["metadata"]),
        )
    except (KeyError, TypeError) as error:
        message = "a key of the envelope is missing"
        raise ValueError(message) from error


def read_time(value: object) -> datetime | None:
    """A moment in UTC; None for what cannot be read as one. Without a zone it counts as UTC."""
    try:
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            seconds = value / 1000 if abs(value) >= MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
        moment = datetime.fromisoformat(str(value).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _compiled(path: str) -> "ParsedResult":
    import jmespath

    return jmespath.compile(path)


def _text(value: object) -> str:
    """Texts of a list are paragraphs; what is neither text nor number is written as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n\n".join(filter(None, map(_text, cast("list[object]", value))))
    return json.dumps(value, sort_keys=True)


def _scalar(value: object) -> Scalar | None:
    """What a filter can compare; a list of texts is joined, anything else is left out."""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list):
        texts = [str(one) for one in cast("list[object]", value) if isinstance(one, str | int)]
        return ", ".join(texts) or None
    return None


def _is_true(value: object) -> bool:
    """Also what is set where it happened: a time of deletion, `1`, `yes`; not `false` or `0`."""
    if isinstance(value, str):
        return value.strip().lower() not in {"", "0", "false", "no", "null", "none"}
    return bool(value)
