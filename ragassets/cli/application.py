"""The command tree. Command modules import what they need when they run: `--help` stays fast."""

from typing import Annotated

import typer

from ragassets.cli import (
    canaries,
    indexes,
    ingestion,
    inspection,
    notifications,
    project,
    searching,
    truth,
)
from ragassets.cli.failures import CommandGroup
from ragassets.cli.session import ConfigOption, GlobalOptions, JsonOption

app = typer.Typer(
    name="ragassets",
    cls=CommandGroup,
    help="A live, searchable vector index of your documents, as Dagster assets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command("init")(project.init)
app.command("ingest")(ingestion.ingest)
app.command("search")(searching.search)
app.command("show")(searching.show)
app.command("status")(inspection.status)
app.command("why")(inspection.why)

app.add_typer(inspection.dead_letters, name="dead-letters")
app.add_typer(indexes.index, name="index")
indexes.index.command("canary")(canaries.canary)
indexes.index.command("feedback")(canaries.feedback)
indexes.index.command("compare")(canaries.compare)
app.command("audit")(truth.audit)
app.command("forget")(truth.forget)

app.add_typer(notifications.notifications, name="notifications")
app.command("doctor")(project.doctor)


def _show_version(is_wanted: bool) -> None:
    if not is_wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"ragassets {version('ragassets')}")
    except PackageNotFoundError:
        typer.echo("ragassets (not installed as a package)")
    raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """A live, searchable vector index of your documents, as Dagster assets."""
    context.obj = GlobalOptions(config=config, as_json=as_json)
