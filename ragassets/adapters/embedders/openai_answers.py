"""Reads what an OpenAI-compatible `/embeddings` answers, and trusts none of it.

Source: the service's reference, https://platform.openai.com/docs/api-reference/embeddings.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

SAFE_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class MalformedAnswerError(Exception):
    """An answer that is not what was asked for; the message never repeats it."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem)


@dataclass(frozen=True)
class Answer:
    """The vectors of one request, in the order of its texts."""

    vectors: NDArray[np.float32]
    """(n_texts, any), as sent: neither checked nor normalized."""
    model: str | None
    """What the service says it used, if it says so."""


def parse_answer(body: bytes, *, n_texts: int) -> Answer:
    """Read a successful answer.

    Raises:
        MalformedAnswerError: It is no JSON, or not one vector for each text.
    """
    answer = _object(_json(body), "the answer")
    entries = answer.get("data")
    if not isinstance(entries, list):
        raise MalformedAnswerError(problem="it has no list `data`")
    rows = [_object(entry, "an entry of `data`") for entry in cast("list[object]", entries)]
    if len(rows) != n_texts:
        raise MalformedAnswerError(problem=f"it has {len(rows)} vectors for {n_texts} texts")
    vectors = [_vector(row.get("embedding")) for row in _in_order(rows)]
    if len({len(vector) for vector in vectors}) > 1:
        raise MalformedAnswerError(problem="its vectors have different dimensions")
    model = answer.get("model")
    stacked = np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)
    return Answer(stacked, model if isinstance(model, str) and model else None)


def error_code(body: bytes) -> str | None:
    """The machine-readable code of an error answer, never its text: that may repeat the input."""
    try:
        answer = _object(_json(body), "the answer")
    except MalformedAnswerError:
        return None
    error = answer.get("error")
    details = cast("dict[str, object]", error) if isinstance(error, dict) else answer
    for key in ("code", "type"):
        value = details.get(key)
        if isinstance(value, str) and SAFE_CODE.fullmatch(value):
            return value
    return None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError(problem="it is no JSON") from error


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise MalformedAnswerError(problem=f"{what} is no object")
    return cast("dict[str, object]", value)


def _in_order(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows by their `index`; as they come where none has one."""
    indexes = [row.get("index") for row in rows]
    if all(index is None for index in indexes):
        return rows
    by_index = {i: row for i, row in zip(indexes, rows, strict=True) if isinstance(i, int)}
    if set(by_index) != set(range(len(rows))):
        raise MalformedAnswerError(problem="its indexes are not those of the texts")
    return [by_index[index] for index in range(len(rows))]


def _vector(value: object) -> NDArray[np.float32]:
    """A vector as numbers or as base64 of little-endian float32."""
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        if isinstance(value, list):
            # Values beyond float32 become infinite, and are refused as such later.
            with np.errstate(over="ignore"):
                vector = np.array(value, dtype=np.float64).astype(np.float32)
            if vector.ndim == 1:
                return vector
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise MalformedAnswerError(problem="a vector cannot be read") from error
    raise MalformedAnswerError(problem="a vector is missing")
