"""`ragassets index canary`, `feedback` and `compare`: a second version for some of the searches."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragassets.cli.failures import wrong_use
from ragassets.cli.indexes import AliasOption, ForceOption, ReasonOption
from ragassets.cli.output import cell, hint, write_json, write_line, write_table
from ragassets.cli.session import ConfigOption, JsonOption, Session, actor
from ragassets.core.canaries import Canary, format_share, parse_share
from ragassets.core.periods import parse_since

if TYPE_CHECKING:
    from ragassets.queries.canary_comparison import CanaryComparison


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


def feedback(
    context: typer.Context,
    search_id: Annotated[
        str, typer.Argument(metavar="SEARCH_ID", help="As a search with --json wrote it.")
    ],
    uri: Annotated[str, typer.Argument(metavar="URI", help="Of the hit; a path works too.")],
    is_irrelevant: Annotated[
        bool, typer.Option("--not-relevant", help="It was of no use.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a hit of a canary's search was useful, or was not."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.stages.search_log import record_feedback

    uri = uri if "://" in uri else Path(uri).absolute().as_uri()
    said = record_feedback(
        session.workspace, search_id, uri, datetime.now(UTC), is_relevant=not is_irrelevant
    )
    if session.as_json:
        write_json({"search_id": search_id, "rank": said.rank, "is_relevant": said.is_relevant})
        return
    write_line(f"hit {said.rank} was {'useful' if said.is_relevant else 'of no use'}")


def compare(
    context: typer.Context,
    alias: Annotated[
        str | None, typer.Option("--alias", help=r"Whose canary. \[default: documents]")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="PERIOD", help="Only searches since then: 12h, 7d, a date."
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the two arms of a canary: hits, latency, feedback, golden queries."""
    session = Session(context, config=config, as_json=as_json)
    now = datetime.now(UTC)
    window = parse_since(since, now) if since else None
    from ragassets.queries.canary_comparison import compare_canary
    from ragassets.queries.search import alias_targets, choose_alias
    from ragassets.stages.search_log import fold_search_log

    name = alias or choose_alias(session.workspace, alias_targets(session.workspace))
    session.config.alias(name)
    fold_search_log(session.workspace, now)
    found = compare_canary(session.workspace, name, since=window)
    if session.as_json:
        write_json(found.as_json())
        return
    _write_comparison(found)


def _write_comparison(found: "CanaryComparison") -> None:
    running = "is running" if found.is_running else "has ended"
    write_line(
        f"alias {found.alias}: canary {found.index_version}, {format_share(found.share)}, beside"
        f" {found.live_version}, {running}; searches since {cell(found.since)}"
    )
    write_line()
    write_table(
        [
            {
                "arm": arm.arm,
                "searches": arm.searches,
                "users or queries": arm.units,
                "fallbacks": arm.fallbacks,
                "p50 ms": arm.latency_ms_p50,
                "p95 ms": arm.latency_ms_p95,
                "of": f"{arm.timed} {'first' if arm.is_cold else 'warm'}",
                "feedback": arm.feedback,
            }
            for arm in found.searches.arms
        ],
        title="Arms",
    )
    write_line()
    write_table(
        [
            {
                "metric": entry.metric,
                "live": entry.live,
                "canary": entry.canary,
                "difference": entry.difference,
                "95 % interval": _interval(entry.low, entry.high),
                "p": entry.p_value,
                "verdict": entry.verdict,
            }
            for entry in found.searches.differences
        ],
        title="Canary minus live",
    )
    write_line()
    write_line(f"golden queries: {found.describe_golden()}")


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
