"""`ragassets index …`: list, build, promote and roll back index versions."""

import typer

index = typer.Typer(help="Index versions and the aliases that serve them.", no_args_is_help=True)
