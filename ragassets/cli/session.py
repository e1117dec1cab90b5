"""What every command shares: the global options, and the configuration that they lead to."""

import getpass
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.config import Config

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help=r"The configuration file. \[default: $RAGASSETS_CONFIG, else ragassets.yaml here]",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write one JSON value to standard output.")
]


@dataclass(frozen=True)
class GlobalOptions:
    """The options before the command; those after it win."""

    config: str | None = None
    as_json: bool = False


class Session:
    """One call of a command."""

    def __init__(
        self, context: typer.Context, *, config: str | None = None, as_json: bool = False
    ) -> None:
        """Merge the options before and after the command; nothing is read yet."""
        outer = context.obj if isinstance(context.obj, GlobalOptions) else GlobalOptions()
        self.config_file = config or outer.config
        self.as_json = as_json or outer.as_json

    @cached_property
    def config(self) -> "Config":
        """The configuration."""
        from ragassets.config import load_config

        return load_config(self.config_file)

    @cached_property
    def workspace(self) -> "Workspace":
        """What the configuration opens."""
        from ragassets.adapters.workspace import Workspace

        return Workspace(self.config)


def actor() -> str:
    """Who does it, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
