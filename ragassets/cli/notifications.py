"""`ragassets notifications`: whether people would be told."""

from typing import Annotated

import typer

from ragassets.cli.failures import OUT_OF_REACH, CommandGroup
from ragassets.cli.output import write_json, write_table
from ragassets.cli.session import ConfigOption, JsonOption, Session

notifications = typer.Typer(
    cls=CommandGroup, help="Messages to people when something is wrong.", no_args_is_help=True
)


@notifications.callback()
def group() -> None:
    """Messages to people when something is wrong."""


@notifications.command("test")
def send_test(
    context: typer.Context,
    channels: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHANNEL]…", help="Names of channels; all where none is given."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test message to the channels of the configuration."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.defs.resources import now
    from ragassets.queries.notification_channels import try_channels

    found = try_channels(session.config, channels or [], now())
    if session.as_json:
        write_json({"channels": [entry.as_json() for entry in found]})
    else:
        write_table(
            [
                {
                    "channel": entry.channel,
                    "kind": entry.kind,
                    "sent": entry.is_sent,
                    "problem": entry.problem,
                }
                for entry in found
            ]
        )
    if not all(entry.is_sent for entry in found):
        raise typer.Exit(OUT_OF_REACH)
