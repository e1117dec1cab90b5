"""`ragassets index drop`: remove index versions that nobody uses any more."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ragassets.cli.failures import wrong_use
from ragassets.cli.output import hint, write_json, write_line, write_table
from ragassets.cli.plans import size
from ragassets.cli.session import ConfigOption, JsonOption, Session, actor

if TYPE_CHECKING:
    from ragassets.queries.drops import PlannedDrop


def drop(
    context: typer.Context,
    index_versions: Annotated[
        list[str] | None, typer.Argument(metavar="VERSION", help="Which ones to drop.")
    ] = None,
    expired: Annotated[
        bool,
        typer.Option(
            "--expired",
            help="All that the configuration no longer has and whose retention is over.",
        ),
    ] = False,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Do not wait for the retention to end; --reason has to say why."
        ),
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the history.", show_default=False)
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; nothing is removed.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove versions that no alias uses, with all that only they need; nothing starts them again.

    What an alias serves, tries or starts at is refused, and so is what it served until just now.
    """
    session = Session(context, config=config, as_json=as_json)
    names = list(dict.fromkeys(index_versions or ()))
    if bool(names) == expired:
        raise wrong_use(option="VERSION", problem="name what to drop, or use --expired")
    from ragassets.queries.drops import plan_drops
    from ragassets.stages.dropping import expired_versions

    moment = datetime.now(UTC)
    kept: dict[str, str] = {}
    if expired:
        found = expired_versions(session.workspace, moment)
        kept = {name: obstacle for name, obstacle in found.items() if obstacle is not None}
        names = [name for name in found if name not in kept]
    planned = plan_drops(session.workspace, names, moment, is_now=now, reason=reason)
    going = [entry for entry in planned if not entry.is_dropped]
    if not dry_run:
        _drop(session, [entry.index_version for entry in going], reason=reason, is_now=now)
    _write(going, kept, session=session, is_dry=dry_run)


def _drop(session: Session, names: Sequence[str], *, reason: str, is_now: bool) -> None:
    if not names:
        return
    from ragassets.defs.ingest import drop_versions
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance:
        drop_versions(
            WorkspaceResource(session.config),
            instance,
            names,
            actor=actor(),
            reason=reason,
            is_now=is_now,
        )


def _write(
    going: "Sequence[PlannedDrop]", kept: dict[str, str], *, session: Session, is_dry: bool
) -> None:
    if session.as_json:
        write_json(
            {
                "dry_run": is_dry,
                "dropped": [entry.as_json() for entry in going],
                "kept": [{"index_version": name, "why": why} for name, why in kept.items()],
            }
        )
        return
    for why in kept.values():
        write_line(f"kept: {why}")
    if not going:
        write_line("nothing to drop")
        return
    write_line("would be dropped:" if is_dry else "dropped:")
    write_table(
        [
            {
                "index": entry.index_version,
                "points": entry.points,
                "embeddings": entry.embeddings,
                "chunks": entry.chunks,
                "vector store": size(entry.vector_store_bytes),
                "disk": size(entry.disk_bytes),
            }
            for entry in going
        ]
    )
    if not is_dry:
        hint(f"Back again: ragassets index build {going[0].index_version}")
