"""JSON and JSON lines: one readable `path: value` line for every value."""

import json
from collections.abc import Iterator
from typing import cast

from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text
from ragassets.errors import CorruptDocumentError

# An element holds neighbouring lines up to this size: about one small chunk.
ELEMENT_CHARS = 1000


class JsonParser:
    """Reads JSON, and JSON lines as one record after the other."""

    name = "json"
    version = "1"
    media_types = frozenset({media_types.JSON, media_types.JSON_LINES})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """`path: value` lines, grouped by record.

        Raises:
            CorruptDocumentError: The bytes are not JSON.
        """
        text = decode_text(data)
        try:
            records = _read_records(text, media_type)
        except (ValueError, RecursionError) as error:
            raise CorruptDocumentError(uri=uri, detail=f"not valid {media_type}") from error
        elements = (element for record in records for element in _group_lines(record))
        return assemble_document(elements, media_type=media_type, parser=self.name)


def _read_records(text: str, media_type: str) -> list[object]:
    if media_type == media_types.JSON_LINES:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    value: object = json.loads(text)
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _group_lines(record: object) -> Iterator[Element]:
    group: list[str] = []
    n_chars = 0
    for line in _flatten(record):
        if group and n_chars + len(line) > ELEMENT_CHARS:
            yield Element("text", "\n".join(group))
            group, n_chars = [], 0
        group.append(line)
        n_chars += len(line)
    yield Element("text", "\n".join(group))


def _flatten(record: object) -> Iterator[str]:
    """Depth first, in document order, without recursion: nesting is the author's choice."""
    stack: list[tuple[str, object]] = [("", record)]
    while stack:
        path, value = stack.pop()
        children: list[tuple[str, object]] = []
        if isinstance(value, dict):
            mapping = cast("dict[str, object]", value)
            children = [(f"{path}.{key}" if path else key, child) for key, child in mapping.items()]
        elif isinstance(value, list):
            # Positions are noise in an embedding: items share their list's path.
            children = [(path, child) for child in cast("list[object]", value)]
        elif value is not None and value != "":
            yield f"{path}: {_render(value)}" if path else _render(value)
        stack.extend(reversed(children))


def _render(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
