"""How the values of queries become JSON; every read-model's `as_json` goes through here."""

import dataclasses
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import cast


def json_value(value: object) -> object:
    """The value as what `json` can write: dataclasses by field, times in ISO 8601, sets sorted."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: json_value(getattr(value, field.name)) for field in fields}
    if isinstance(value, datetime | str):
        return value.isoformat() if isinstance(value, datetime) else value
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): json_value(entry) for key, entry in items}
    if isinstance(value, AbstractSet):
        return [json_value(entry) for entry in sorted(cast("AbstractSet[str]", value))]
    if isinstance(value, Sequence):
        return [json_value(entry) for entry in cast("Sequence[object]", value)]
    return value
