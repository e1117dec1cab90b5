"""Commands that look and change nothing: status, why, dead-letters."""

from typing import TYPE_CHECKING, Annotated

import typer

from ragassets.cli.failures import CommandGroup
from ragassets.cli.output import (
    cell,
    hint,
    write_json,
    write_line,
    write_pairs,
    write_table,
)
from ragassets.cli.session import ConfigOption, JsonOption, Session
from ragassets.core.canaries import format_share

if TYPE_CHECKING:
    from ragassets.queries.document_steps import Step
    from ragassets.queries.index_versions import VersionStatus
    from ragassets.queries.status import SourceStatus

HASH_DIGITS = 32
"""Digits of the shortest hash that is stored."""

dead_letters = typer.Typer(
    cls=CommandGroup, help="Documents that a stage gave up on, and why.", no_args_is_help=True
)


def status(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show where every source and every index version stands."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.core.discovery import describe_listing_problem
    from ragassets.queries.status import read_status

    found = read_status(session.workspace)
    if session.as_json:
        write_json(found.as_json())
        return
    has_tenants = any(source.tenant for source in found.sources.values())
    streams = {name for name, one in session.config.sources.items() if one.is_stream}
    write_table(
        [
            {
                "source": name,
                "documents": source.documents,
                "unique": source.unique_documents,
                "duplicates": source.duplicates,
                "dead letters": source.dead_letters,
                "pending": source.pending,
                "forgotten": source.forgotten,
                "last listed": source.last_listed_at,
                "newest change": source.newest_change_at,
            }
            | ({"tenant": source.tenant} if has_tenants else {})
            | ({"messages behind": _behind(source) if name in streams else ""} if streams else {})
            for name, source in found.sources.items()
        ],
        title="Sources",
    )
    for name, source in found.sources.items():
        if source.listing_problem:
            write_line(f"attention: {describe_listing_problem(name, source.listing_problem)}")
    write_line()
    write_versions(list(found.index_versions.values()))
    if not found.is_ingested:
        hint("Nothing was ingested yet: ragassets ingest")
    elif any(source.dead_letters for source in found.sources.values()):
        hint("Why documents are missing: ragassets dead-letters list")


def _behind(source: "SourceStatus") -> int | str:
    return "no answer" if source.messages_behind is None else source.messages_behind


def write_versions(versions: "list[VersionStatus]") -> None:
    """The table of index versions that `status` and `index list` share."""
    write_table(
        [
            {
                "index": version.index_version,
                "state": version.state,
                "live": _served_by(version),
                "documents": version.documents,
                "chunks": version.chunks,
                "embeddings": version.embeddings,
                "points": version.points,
                "stale": version.stale,
                "nDCG@10": None
                if version.quality_note
                else (version.quality or {}).get("ndcg_at_10"),
                "sealed": version.sealed_at,
            }
            for version in versions
        ],
        title="Index versions",
    )
    for version in versions:
        if version.state == "incomplete":
            write_line(
                f"attention: {version.index_version} is incomplete: {'; '.join(version.problems)}"
            )
        if version.state == "failed_gates":
            failed = "; ".join(version.failed_gates)
            write_line(f"attention: {version.index_version} failed its gates: {failed}")
        if version.quality_note:
            write_line(f"attention: {version.index_version} is not judged: {version.quality_note}")
        if version.dropped is not None and not version.dropped["is_finished"]:
            name = version.index_version
            write_line(
                f"attention: the drop of {name} was interrupted: ragassets index drop {name}"
            )
    for text in sorted({version.note for version in versions if version.note}):
        write_line(f"attention: points are not known: {text}")


def _served_by(version: "VersionStatus") -> str:
    canaries = (f"{format_share(share)} of {alias}" for alias, share in version.canary_of.items())
    return ", ".join([*version.aliases, *canaries]) or "no"


def why(
    context: typer.Context,
    document: Annotated[str, typer.Argument(metavar="URI", help="A URI, or a path.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain why a document is searchable, or not, stage by stage."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries.why import explain_document

    found = explain_document(session.workspace, document)
    if session.as_json:
        write_json(found.as_json())
        return
    write_line(found.verdict)
    if found.remedy:
        write_line(found.remedy)
    write_line()
    if found.forgotten:
        write_pairs({"uri": found.uri, "source": found.source, "document id": found.document_id})
        return
    write_pairs(
        {
            "uri": found.uri,
            "source": found.source,
            **({"tenant": found.tenant} if found.tenant else {}),
            "source shard": found.source_shard,
            "document id": found.document_id,
            "modified": found.modified_at,
        }
    )
    if found.other_sources:
        write_pairs({"also in": list(found.other_sources)})
    write_line()
    write_table([_step_row(step) for step in found.stages])
    for step in found.stages:
        if step.failure is not None:
            write_line(f"{step.stage}: {step.failure.error_type}: {step.failure.message}")
    if any(step.failure is not None for step in found.stages):
        hint(f"Stack trace: ragassets dead-letters show {found.document_id[:8]}")


def _step_row(step: "Step") -> dict[str, object]:
    details = {name: value for name, value in step.details.items() if value not in (None, "")}
    return {
        "stage": step.stage,
        "under": step.under,
        "state": step.state,
        "rows": step.n_rows,
        "attempts": step.failure.attempts if step.failure else None,
        "computed": step.failure.last_failed_at if step.failure else step.computed_at,
        "run": ((step.failure.run_id if step.failure else step.run_id) or "")[:8],
        "details": ", ".join(f"{name}={_short(value)}" for name, value in details.items()),
    }


def _short(value: object) -> str:
    """Hashes are told apart by their first digits."""
    text = cell(value)
    is_hash = len(text) >= HASH_DIGITS and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if is_hash else text


@dead_letters.command("list")
def list_dead_letters(
    context: typer.Context,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only for this reason.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what every stage gave up on, with the reason."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries import dead_letters as letters

    found = letters.list_dead_letters(session.workspace, source=source, stage=stage, reason=reason)
    if session.as_json:
        write_json({"dead_letters": [letter.as_json() for letter in found]})
        return
    if not found:
        write_line("No dead letters.")
        return
    write_table(
        [
            {
                "id": letter.dead_letter_id[:8],
                "source": letter.source,
                "stage": letter.stage,
                "reason": letter.reason,
                "attempts": letter.attempts,
                "uri": letter.uri,
                "message": letter.message.removeprefix(f"{letter.uri}: "),
            }
            for letter in found
        ],
        styles={"reason": "yellow"},
    )
    hint(f"More: ragassets dead-letters show {found[0].dead_letter_id[:8]}")


@dead_letters.command("show")
def show_dead_letter(
    context: typer.Context,
    identifier: Annotated[
        str, typer.Argument(metavar="ID", help="A dead letter's or document's id, or its start.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dead letter with its stack trace and where the raw bytes are."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries import dead_letters as letters

    found = letters.show_dead_letters(session.workspace, identifier)
    if session.as_json:
        write_json({"dead_letters": [detail.as_json() for detail in found]})
        return
    for detail in found:
        values = detail.as_json()
        trace = values.pop("stack_trace")
        write_pairs({name.replace("_", " "): value for name, value in values.items()})
        write_line("stack trace:")
        write_line("\n".join(f"  {line}" for line in str(trace).splitlines()) or "  none")
        write_line()
