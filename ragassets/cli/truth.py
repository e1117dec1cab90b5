"""`ragassets audit`: is everything stored true; `ragassets forget`: is everything of it gone."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ragassets.cli.failures import NEEDS_ATTENTION, wrong_use
from ragassets.cli.indexes import actor
from ragassets.cli.output import hint, note, write_json, write_line, write_pairs, write_table
from ragassets.cli.progress import stage_progress
from ragassets.cli.session import ConfigOption, JsonOption, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ragassets.defs.forget import ForgetReport
    from ragassets.defs.repair import RepairReport
    from ragassets.queries.audit import Audit
    from ragassets.queries.forgotten import Kin, Meant


def audit(
    context: typer.Context,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Mend what differs by the ordinary stages, and look again."),
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare tables, catalog, landing zone and collections in both directions."""
    session = Session(context, config=config, as_json=as_json)
    is_clean = _repair(session) if repair else _audit(session)
    if not is_clean:
        raise typer.Exit(NEEDS_ATTENTION)


def _audit(session: Session) -> bool:
    from ragassets.queries.audit import run_audit

    found = run_audit(session.workspace)
    if session.as_json:
        write_json(found.as_json())
        return found.is_clean
    _write_audit(found)
    if not found.is_clean:
        hint("Mend it: ragassets audit --repair")
    return found.is_clean


def _write_audit(found: "Audit") -> None:
    write_line("clean" if found.is_clean else "not clean")
    write_table(
        [
            {
                "check": finding.name,
                "found": finding.count,
                "meaning": finding.meaning,
                "examples": list(finding.examples),
            }
            for finding in found.findings
        ]
    )


def _repair(session: Session) -> bool:
    from ragassets.defs.instance import open_instance
    from ragassets.defs.repair import audit_as_run
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance, stage_progress() as progress:
        report = audit_as_run(
            WorkspaceResource(session.config), instance, repairs=True, progress=progress
        )
    if session.as_json:
        write_json(report.as_json())
    else:
        _write_repair(report)
    return report.after.is_clean


def _write_repair(report: "RepairReport") -> None:
    """What was found, what was mended, what could not be."""
    left = {finding.name: finding.count for finding in report.after.findings}
    repaired = report.repaired
    rows = [
        {
            "check": finding.name,
            "found": finding.count,
            "mended": repaired.get(finding.name, 0),
            "left": left[finding.name],
            "meaning": finding.meaning,
            "examples": list(finding.examples),
        }
        for finding in report.before.findings
        if finding.count or left[finding.name]
    ]
    write_table(rows)
    for entry in report.unmended:
        things = ", ".join(entry.finding.examples)
        write_line(
            f"not mended: {entry.finding.count} {entry.finding.meaning} ({things}): {entry.way_out}"
        )
    write_line("clean" if report.after.is_clean else "not clean")


def forget(
    context: typer.Context,
    documents: Annotated[
        list[str],
        typer.Argument(metavar="URI", help="URIs or paths; they may be gone from the source."),
    ],
    undo: Annotated[
        bool, typer.Option("--undo", help="Let the next ingestion take them in again.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the tombstone.", show_default=False)
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove documents from every layer and version for good, and prove it."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries.forgotten import find_kin, find_meant

    meant = [find_meant(session.workspace, document) for document in dict.fromkeys(documents)]
    if undo:
        _undo(session, meant, reason)
        return
    kin = find_kin(session.workspace, [named for entry in meant for named in entry.documents])
    _confirm(meant, kin, is_sure=yes)
    report = _forget(session, meant, reason)
    if session.as_json:
        write_json(
            {
                "uris": [entry.uri for entry in meant],
                **report.as_json(),
                "same_bytes": list(kin.same_bytes),
                "next_in_line": list(kin.next_in_line),
            }
        )
    else:
        _write_forgotten(meant, kin, report)
    if not report.is_gone:
        raise typer.Exit(NEEDS_ATTENTION)


def _confirm(meant: "Sequence[Meant]", kin: "Kin", *, is_sure: bool) -> None:
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise wrong_use(option="--yes", problem="this cannot be taken back: say --yes")
    for entry in meant:
        note(f"forget {entry.uri}")
    for uri in kin.same_bytes:
        note(f"the same bytes stay searchable as {uri}")
    typer.confirm("Remove for good?", abort=True, err=True)


def _forget(session: Session, meant: "Sequence[Meant]", reason: str) -> "ForgetReport":
    from ragassets.defs.forget import forget_as_run
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    with open_instance(session.config.folder) as instance, stage_progress() as progress:
        return forget_as_run(
            WorkspaceResource(session.config),
            instance,
            [named for entry in meant for named in entry.documents],
            uris=[entry.uri for entry in meant],
            actor=actor(),
            reason=reason,
            progress=progress,
        )


def _write_forgotten(meant: "Sequence[Meant]", kin: "Kin", report: "ForgetReport") -> None:
    removed, proof = report.removed, report.proof
    for entry in meant:
        write_line(f"forgotten: {entry.uri}" if report.is_gone else f"not gone: {entry.uri}")
    write_pairs(
        {
            "removed": f"{removed.n_points} points, {removed.n_rows} rows, {removed.n_files} files"
            f" of earlier table versions, {removed.n_objects} objects of the landing zone,"
            f" {removed.n_vectors} vectors of the ledger, {report.n_events} entries of the history",
            "proof": f"{proof.n_searches} searches for its own text and vectors, {proof.n_files}"
            " data files read",
            "left": list(proof.left) or "nothing",
        }
    )
    for text in report.notes:
        write_line(f"note: {text}")
    for uri in kin.same_bytes:
        write_line(f"note: the same bytes are another document and stay: {uri}")
    for uri in kin.next_in_line:
        write_line(f"note: a duplicate that it stood for takes its place: {uri}")


def _undo(session: Session, meant: "Sequence[Meant]", reason: str) -> None:
    from ragassets.defs.forget import remember_as_run
    from ragassets.defs.instance import open_instance
    from ragassets.defs.resources import WorkspaceResource

    for entry in meant:
        if not entry.is_forgotten:
            raise wrong_use(option="--undo", problem=f"{entry.uri} is not forgotten")
    with open_instance(session.config.folder) as instance:
        remember_as_run(
            WorkspaceResource(session.config),
            instance,
            [named for entry in meant for named in entry.documents],
            actor=actor(),
            reason=reason,
        )
    if session.as_json:
        write_json({"uris": [entry.uri for entry in meant], "forgotten": False})
        return
    for entry in meant:
        write_line(f"no longer forgotten: {entry.uri}; the next `ragassets ingest` takes it in")
