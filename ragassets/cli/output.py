"""What commands print: JSON for machines, tables for people, plain lines where nobody looks."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.style import StyleType

NONE = "-"
"""Stands for what is not there: an empty cell would shift the columns of plain output."""

SHORT_CELL_CHARS = 20
"""A time, a count or a state: on a narrow terminal the long columns fold instead."""


def write_json(value: object) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=not _is_unicode(), indent=2))


def write_json_line(value: object) -> None:
    """One JSON value on one line of standard output."""
    typer.echo(json.dumps(value, ensure_ascii=not _is_unicode()))


def write_line(text: str = "") -> None:
    """One line on standard output, as it is."""
    typer.echo(text)


def note(text: str) -> None:
    """One line for people on standard error."""
    typer.echo(text, err=True)


def hint(text: str) -> None:
    """What to do next, on standard error, where a person is looking."""
    if sys.stderr.isatty():
        typer.secho(text, err=True, dim=True)


def is_terminal() -> bool:
    """Whether a person is looking at standard output."""
    return sys.stdout.isatty()


def console() -> "Console":
    """A rich console on standard output; only for terminals, it wraps and cuts."""
    from rich.console import Console

    return Console(highlight=False)


def write_table(
    rows: Sequence[Mapping[str, object]],
    *,
    title: str = "",
    styles: Mapping[str, "StyleType"] | None = None,
) -> None:
    """Rows with the same keys: a table on a terminal, else aligned lines with a header line.

    Plain lines are never cut or wrapped, so that `grep` and `awk` find what is there.
    """
    if not rows:
        return
    cells = [[cell(value) for value in row.values()] for row in rows]
    if is_terminal():
        _write_rich_table(list(rows[0]), cells, title, styles or {})
        return
    if title:
        write_line(title)
    lines = [[name.replace(" ", "_") for name in rows[0]], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        write_line("  ".join(padded).rstrip())


def _write_rich_table(
    names: list[str], cells: list[list[str]], title: str, styles: Mapping[str, "StyleType"]
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(names):
        is_number = all(_is_number(line[index]) for line in cells)
        widest = max(len(line[index]) for line in cells)
        table.add_column(
            name,
            justify="right" if is_number else "left",
            style=styles.get(name, ""),
            overflow="fold",
            no_wrap=widest <= SHORT_CELL_CHARS,
        )
    for line in cells:
        table.add_row(*(Text(text) for text in line))
    console().print(table)


def write_pairs(pairs: Mapping[str, object]) -> None:
    """Named values, one a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        label = f"{name}:".ljust(width + 2)
        write_line(f"{typer.style(label, dim=True) if is_terminal() else label}{cell(value)}")


def cell(value: object) -> str:
    """A value as one line of text."""
    match value:
        case None | "" | () | []:
            return NONE
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        case list() | tuple():
            return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return " ".join(str(value).split())


def _is_number(text: str) -> bool:
    return text == NONE or text.replace(".", "", 1).replace(",", "").isdigit()


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
