"""`ragassets index …`: list, build, evaluate, promote, roll back and drop index versions."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from ragassets.cli.drops import drop
from ragassets.cli.evaluations import write_evaluation
from ragassets.cli.failures import NEEDS_ATTENTION, CommandGroup
from ragassets.cli.ingestion import write_report
from ragassets.cli.inspection import write_versions
from ragassets.cli.output import hint, write_json, write_line, write_table
from ragassets.cli.plans import write_plan
from ragassets.cli.progress import stage_progress
from ragassets.cli.session import ConfigOption, JsonOption, Session, actor
from ragassets.core.periods import parse_since

index = typer.Typer(
    cls=CommandGroup, help="Index versions and the aliases that serve them.", no_args_is_help=True
)

index.command("drop")(drop)

AliasOption = Annotated[
    str | None, typer.Option("--alias", help=r"Which alias to move. \[default: documents]")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for the history.", show_default=False)
]


ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Serve it although it fails its gates; --reason has to say why."),
]


@index.command("list")
def list_versions(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List index versions: what they are made of, how far they are, who serves them."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries.index_versions import list_index_versions

    versions = list_index_versions(session.workspace)
    if session.as_json:
        write_json({"index_versions": {entry.index_version: entry.as_json() for entry in versions}})
        return
    write_versions(versions)
    write_line()
    write_table(
        [
            {
                "index": version.index_version,
                "chunking": version.chunking,
                "embedding model": version.embedding_model,
                "backfill": version.backfill,
            }
            for version in versions
        ]
    )


@index.command("plan")
def plan(
    context: typer.Context,
    index_version: Annotated[str, typer.Argument(metavar="VERSION", help="Which one to plan.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Split every document, however many there are.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a build would compute, reuse and cost; nothing is built."""
    session = Session(context, config=config, as_json=as_json)
    session.config.index_version(index_version)
    from ragassets.queries.plan import plan_build

    planned = plan_build(session.workspace, index_version, samples=not exact)
    if session.as_json:
        write_json(planned.as_json())
        return
    write_plan(planned)
    hint(f"Build it: ragassets index build {index_version}")


@index.command("build")
def build(
    context: typer.Context,
    index_version: Annotated[str, typer.Argument(metavar="VERSION", help="Which one to build.")],
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="PERIOD",
            help="Only documents modified since then, the others later: 12h, 7d, 2w or a date.",
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Chunk, embed, index and seal a version from the documents that are there."""
    session = Session(context, config=config, as_json=as_json)
    session.config.index_version(index_version)
    window = parse_since(since, datetime.now(UTC)) if since else None
    from ragassets.defs import ingest as ingestion
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance, stage_progress() as progress:
        report = ingestion.build(
            WorkspaceResource(session.config),
            instance,
            index_version,
            since=window,
            progress=progress,
        )
    write_report(report, as_json=session.as_json)
    if report.problems:
        raise typer.Exit(NEEDS_ATTENTION)


@index.command("evaluate")
def evaluate(
    context: typer.Context,
    index_version: Annotated[str, typer.Argument(metavar="VERSION", help="Which one to ask.")],
    alias: Annotated[
        str | None,
        typer.Option(
            "--alias", help="Whose golden queries and gates. [default: the version's own]"
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the golden queries on a version, and compare it with the live one; changes nothing."""
    session = Session(context, config=config, as_json=as_json)
    session.config.index_version(index_version)
    from ragassets.queries.evaluation import evaluate_version

    found = evaluate_version(session.workspace, index_version, alias=alias)
    if session.as_json:
        write_json(found.as_json())
    else:
        write_evaluation(found)
    if found.failed_gates:
        raise typer.Exit(NEEDS_ATTENTION)


@index.command("promote")
def promote(
    context: typer.Context,
    index_version: Annotated[str, typer.Argument(metavar="VERSION", help="Which one to serve.")],
    alias: AliasOption = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a sealed version."""
    session = Session(context, config=config, as_json=as_json)
    session.config.index_version(index_version)
    _move(session, alias, "promote", index_version, reason, is_forced=force)


@index.command("rollback")
def rollback(
    context: typer.Context,
    alias: AliasOption = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at the version that it served before."""
    session = Session(context, config=config, as_json=as_json)
    _move(session, alias, "rollback", "", reason, is_forced=force)


def _move(
    session: Session,
    alias: str | None,
    action: Literal["promote", "rollback"],
    to_version: str,
    reason: str,
    *,
    is_forced: bool,
) -> None:
    from ragassets.queries.canaries import read_canary
    from ragassets.queries.search import alias_targets, choose_alias

    before = alias_targets(session.workspace)
    name = alias or choose_alias(session.workspace, before)
    session.config.alias(name)
    canary = read_canary(session.workspace, name)
    from ragassets.defs import ingest as ingestion
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance:
        is_moved = ingestion.move_alias(
            WorkspaceResource(session.config),
            instance,
            alias=name,
            action=action,
            to_version=to_version,
            actor=actor(),
            reason=reason,
            is_forced=is_forced,
        )
    after = alias_targets(session.workspace)
    if session.as_json:
        ended = canary.index_version if canary and is_moved else None
        move = {"alias": name, "action": action, "from": before.get(name), "to": after.get(name)}
        write_json({**move, "canary_ended": ended})
        return
    if not is_moved:
        write_line(f"alias {name}: serves {after.get(name)} already; nothing to do")
        return
    write_line(f"alias {name}: {before.get(name) or 'nothing'} -> {after.get(name)}")
    if canary is not None:
        write_line(f"alias {name}: canary {canary.index_version} ended with it")
    if action == "promote" and before.get(name):
        hint(f"Back again: ragassets index rollback --alias {name}")
