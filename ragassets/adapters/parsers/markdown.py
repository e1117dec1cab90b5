"""Markdown: CommonMark with tables; front matter becomes metadata."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ragassets.adapters.parsers.html import parse_html
from ragassets.adapters.parsers.rows import table_elements
from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text

if TYPE_CHECKING:
    from markdown_it.token import Token

_YAML_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TOML_FRONT_MATTER = re.compile(r"\A\+\+\+[ \t]*\n(.*?)\n\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL)


class MarkdownParser:
    """Reads Markdown."""

    name = "markdown"
    version = "1"
    media_types = frozenset({media_types.MARKDOWN})

    def parse(
        self,
        data: bytes,
        *,
        uri: str,
        media_type: str,
    ) -> ParsedDocument:
        """Headings, paragraphs, list items, tables and code of the page."""
        text = decode_text(data).replace("\r\n", "\n").replace("\r", "\n")
        metadata, body = split_front_matter(text)
        from markdown_it import MarkdownIt

        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
        elements = list(_TokenReader(uri).read(tokens)) or _summary(metadata)
        return assemble_document(
            elements,
            media_type=media_type,
            parser=self.name,
            title=metadata.get("title") or _first_heading(tokens),
            metadata=metadata,
        )


def _summary(metadata: dict[str, str]) -> list[Element]:
    """What a page that is all front matter says about itself: section pages of site generators."""
    return [
        Element("title", metadata.get("title", ""), level=1),
        Element("text", metadata.get("description", "")),
    ]


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Metadata and body; text that only looks like front matter stays in the body."""
    for pattern, load in ((_YAML_FRONT_MATTER, _load_yaml), (_TOML_FRONT_MATTER, _load_toml)):
        match = pattern.match(text)
        values = load(match[1]) if match else None
        if match and isinstance(values, dict):
            metadata = {str(key): _render(value) for key, value in values.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return metadata, text[match.end() :]
    return {}, text


def _load_yaml(text: str) -> object:
    import yaml

    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  BaseLoader makes strings only
    except yaml.YAMLError:
        return None


def _load_toml(text: str) -> object:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _render(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_render, value))  # pyright: ignore[reportUnknownArgumentType]
    return str(value)


def _first_heading(tokens: Sequence["Token"]) -> str | None:
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.tag == "h1":
            return _inline_text(inline)
    return None


class _TokenReader:
    """Elements of a flat token stream; keeps what is open around the current token."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._heading_level: int | None = None
        self._n_open_lists = 0
        self._rows: list[list[str]] = []
        self._is_in_table = False

    def read(self, tokens: Sequence["Token"]) -> Iterator[Element]:
        """Elements in document order."""
        for token in tokens:
            if token.type == "inline":
                yield from self._read_inline(token)
            elif token.type in ("fence", "code_block"):
                yield Element("code", token.content)
            elif token.type == "html_block":
                yield from parse_html(
                    token.content, uri=self._uri, parser="", media_type=media_types.HTML
                ).elements
            elif token.type == "table_close":
                self._is_in_table = False
                yield from table_elements(self._rows)
            else:
                self._follow_structure(token)

    def _follow_structure(self, token: "Token") -> None:
        match token.type:
            case "heading_open":
                self._heading_level = int(token.tag[1])
            case "heading_close":
                self._heading_level = None
            case "bullet_list_open" | "ordered_list_open":
                self._n_open_lists += 1
            case "bullet_list_close" | "ordered_list_close":
                self._n_open_lists -= 1
            case "table_open":
                self._rows, self._is_in_table = [], True
            case "tr_open":
                self._rows.append([])
            case _:
                pass

    def _read_inline(self, token: "Token") -> Iterator[Element]:
        text = _inline_text(token)
        if self._is_in_table:
            self._rows[-1].append(text)
        elif self._heading_level is not None:
            yield Element("title", text, level=self._heading_level)
        else:
            yield Element("list_item" if self._n_open_lists else "text", text)


def _inline_text(token: "Token") -> str:
    """Text without markup: link texts stay, addresses go, pictures give their description."""
    pieces: list[str] = []
    for child in token.children or ():
        if child.type in ("text", "code_inline"):
            pieces.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            pieces.append("\n")
        elif child.type == "image":
            pieces.append(_inline_text(child))
    return "".join(pieces)
