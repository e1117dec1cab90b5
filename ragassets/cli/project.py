"""`ragassets init` and `ragassets doctor`."""

import typer


def init(context: typer.Context) -> None:
    """X."""


def doctor(context: typer.Context) -> None:
    """X."""
