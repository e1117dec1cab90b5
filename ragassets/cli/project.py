"""`ragassets init` and `ragassets doctor`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragassets.cli.failures import NEEDS_ATTENTION, wrong_use
from ragassets.cli.output import hint, write_json, write_line, write_table
from ragassets.cli.session import ConfigOption, JsonOption, Session

if TYPE_CHECKING:
    from ragassets.config import Config
    from ragassets.queries.doctor import Check


def init(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where; it is made when it is not there.")
    ] = Path(),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented configuration and a sample corpus."""
    session = Session(context, config=config, as_json=as_json)
    if session.config_file is not None:
        raise wrong_use(
            option="--config", problem="init always writes ragassets.yaml; name a folder instead"
        )
    from ragassets.adapters.project_files import create_project

    created = create_project(directory)
    if session.as_json:
        write_json({"directory": str(created.folder), "files": list(created.files)})
        return
    n_documents = sum(name.startswith("documents/") for name in created.files)
    others = [name for name in created.files if not name.startswith("documents/")]
    write_line(f"{created.folder}: {', '.join(others)} and {n_documents} sample documents")
    place = "" if created.folder == Path.cwd() else f"cd {os.path.relpath(created.folder)} && "
    hint(f"Next: {place}ragassets ingest")


def doctor(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Check configuration, storage, models and what else a run needs."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries.doctor import examine

    checks = [
        *examine(session.workspace, session.config_file),
        *_check_instance(session.config),
    ]
    is_fine = all(check.outcome != "fail" for check in checks)
    if session.as_json:
        write_json({"ok": is_fine, "checks": [check.as_json() for check in checks]})
    else:
        write_table(
            [
                {
                    "outcome": check.outcome,
                    "check": check.name,
                    "value": check.value,
                    "remedy": check.remedy,
                }
                for check in checks
            ]
        )
    if not is_fine:
        raise typer.Exit(NEEDS_ATTENTION)


def _check_instance(config: "Config") -> "Iterator[Check]":
    """Whether runs can be recorded; queries know no Dagster."""
    from ragassets.defs.instance import open_instance
    from ragassets.errors import RagAssetsError
    from ragassets.queries.doctor import Check

    try:
        with open_instance(config.folder) as instance:
            n_runs = instance.get_runs_count()
            yield Check("dagster", "ok", f"{instance.root_directory}: {n_runs} runs")
    except RagAssetsError as error:
        yield Check("dagster", "fail", str(error))
