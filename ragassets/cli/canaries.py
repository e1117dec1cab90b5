"""`ragassets index canary`: a second version for a share of an alias's searches."""

from typing import Annotated

import typer

from ragassets.cli.failures import wrong_use
from ragassets.cli.indexes import AliasOption, ForceOption, ReasonOption
from ragassets.cli.output import hint, write_json, write_line
from ragassets.cli.session import ConfigOption, JsonOption, Session, actor
from ragassets.core.canaries import Canary, format_share, parse_share


def canary(
    context: typer.Context,
    index_version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="Which one to try.", show_default=False),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option("--share", metavar="SHARE", help="Of the searches: 10% or 0.1."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the canary.")] = False,
    alias: AliasOption = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a second version answer a share of the searches; change the share, or end it."""
    session = Session(context, config=config, as_json=as_json)
    if off in (index_version is not None, share is not None):
        raise wrong_use(option="--off", problem="give either VERSION and --share, or --off alone")
    wanted = None if share is None else parse_share(share)
    from ragassets.queries.canaries import read_canary
    from ragassets.queries.search import alias_targets, choose_alias

    name = alias or choose_alias(session.workspace, alias_targets(session.workspace))
    session.config.alias(name)
    before = read_canary(session.workspace, name)
    from ragassets.defs import ingest as ingestion
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance:
        is_changed = ingestion.change_canary(
            WorkspaceResource(session.config),
            instance,
            alias=name,
            index_version=index_version or "",
            share=wanted,
            actor=actor(),
            reason=reason,
            is_forced=force,
        )
    after = read_canary(session.workspace, name)
    if session.as_json:
        write_json({"alias": name, "from": _as_json(before), "to": _as_json(after)})
        return
    if not is_changed:
        write_line(f"alias {name}: {_describe(after)} already; nothing to do")
        return
    write_line(f"alias {name}: {_describe(before)} -> {_describe(after)}")
    if after is not None:
        hint(f"How it does: ragassets index compare --alias {name}")


def _describe(canary: Canary | None) -> str:
    return (
        "no canary"
        if canary is None
        else (f"canary {canary.index_version}, {format_share(canary.share)}")
    )


def _as_json(canary: Canary | None) -> dict[str, object] | None:
    if canary is None:
        return None
    return {
        "canary_id": canary.canary_id,
        "index_version": canary.index_version,
        "live_version": canary.live_version,
        "share": canary.share,
    }
