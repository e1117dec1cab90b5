"""`ragassets ingest`, and how the report of a computing command is shown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ragassets.cli.failures import NEEDS_ATTENTION, wrong_use
from ragassets.cli.output import hint, note, write_json, write_line, write_table
from ragassets.cli.progress import stage_progress
from ragassets.cli.session import ConfigOption, JsonOption, Session
from ragassets.core.periods import parse_window

if TYPE_CHECKING:
    from ragassets.defs.ingest import IngestReport


def ingest(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Sources to ingest; all when none is named."),
    ] = None,
    confirm_deletions: Annotated[
        bool,
        typer.Option(
            "--confirm-deletions",
            help="The named sources really lost that many documents: delete them.",
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WINDOW",
            help="Fetch the documents that changed in this time again, changed or not: 7d, 4w,"
            " 2026-11-01 or 2026-11-01..2026-11-07.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when there are new dead letters.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for changes and bring every stage up to date, up to the search index."""
    session = Session(context, config=config, as_json=as_json)
    names = list(dict.fromkeys(sources or ()))
    if not confirm_deletions:
        # Before Dagster is imported. A source to confirm may have left the configuration.
        for name in names:
            session.config.source(name)
    if confirm_deletions and not names:
        raise wrong_use(
            option="--confirm-deletions", problem="name the sources whose deletions are meant"
        )
    window = parse_window(since, datetime.now(UTC)) if since is not None else None
    from ragassets.defs import ingest as ingestion
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance, stage_progress() as progress:
        report = ingestion.ingest(
            WorkspaceResource(session.config),
            instance,
            names,
            confirmed=names if confirm_deletions else (),
            window=window,
            progress=progress,
        )
    write_report(report, as_json=session.as_json)
    if report.problems or (strict and report.n_new_dead_letters):
        raise typer.Exit(NEEDS_ATTENTION)


def write_report(report: "IngestReport", *, as_json: bool) -> None:
    """What was done; problems go to standard error."""
    values = report.as_json()
    for problem in report.problems:
        note(f"attention: {problem}")
    for line in report.planned:
        note(line)
    if as_json:
        write_json(values)
        return
    rows: list[dict[str, object]] = []
    for name in ("documents", "chunks", "embeddings", "indexed_chunks"):
        counts = values[name]
        if isinstance(counts, dict):
            rows.append({"what": _words(name), "counts": _counts(cast("dict[str, int]", counts))})
    write_table(rows)
    write_line(f"{values['runs']} runs in {float(str(values['seconds'])):.1f} s")
    if report.n_new_dead_letters:
        hint(f"{report.n_new_dead_letters} new dead letters: ragassets dead-letters list")
    else:
        hint('Next: ragassets search "what you look for"')


def _counts(counts: Mapping[str, int]) -> str:
    """What there is any of, in words."""
    n_new, n_all = counts.get("dead_lettered", 0), counts.get("dead_letters", 0)
    texts = [
        f"{count} {_words(key)}"
        for key, count in counts.items()
        if count and key not in ("dead_lettered", "dead_letters")
    ]
    if n_all:
        texts.append(f"new dead letters {n_new} ({n_all} in all)")
    return ", ".join(texts) or "nothing"


def _words(name: str) -> str:
    return name.replace("_", " ")
