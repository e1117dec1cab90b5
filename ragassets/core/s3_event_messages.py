"""What a message of S3's event notifications says: which objects to look at.

Only where, not what: messages arrive twice, late and in any order, and a deletion may be of an old
version of an object. Whoever reads them asks the store what is there now.
"""

import json
from collections.abc import Iterator, Mapping
from typing import cast
from urllib.parse import unquote_plus

from pydantic import BaseModel, TypeAdapter, ValidationError


class _Named(BaseModel):
    name: str


class _Keyed(BaseModel):
    key: str


class _Place(BaseModel):
    bucket: _Named
    object: _Keyed


class _Record(BaseModel):
    s3: _Place


_RECORDS = TypeAdapter(list[_Record])
_PLACE = TypeAdapter(_Place)


class UnknownMessageError(ValueError):
    """A message of another kind; it is left in the queue, whose owner decides."""


def objects_of_message(body: str) -> list[tuple[str, str]]:
    """Bucket and key of every object that a message is about; none for S3's test message.

    Reads what S3 sends to a queue itself, through a topic (SNS), and through EventBridge. Source:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html and
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html (keys are encoded in the
    first and plain in the second).

    Raises:
        UnknownMessageError: It is none of these.
    """
    try:
        message: object = json.loads(body)
        return list(_objects(message))
    except (ValueError, ValidationError, RecursionError) as error:
        # Without the text: it is somebody's data.
        detail = f"a message of {len(body)} characters is no event of S3"
        raise UnknownMessageError(detail) from error


def _objects(message: object) -> Iterator[tuple[str, str]]:
    if not isinstance(message, dict):
        raise ValueError  # noqa: TRY004 - of the message, not of our code
    fields = cast("Mapping[str, object]", message)
    if fields.get("Type") == "Notification":
        yield from objects_of_message(str(fields.get("Message")))
    elif "Records" in fields:
        for record in _RECORDS.validate_python(fields["Records"]):
            yield record.s3.bucket.name, unquote_plus(record.s3.object.key)
    elif fields.get("source") == "aws.s3":
        place = _PLACE.validate_python(fields.get("detail"))
        yield place.bucket.name, place.object.key
    elif fields.get("Event") != "s3:TestEvent":
        raise ValueError
