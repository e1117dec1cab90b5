"""Commands that look and change nothing: status, why, dead-letters, audit."""

from typing import TYPE_CHECKING, Annotated

import typer

from ragassets.cli.failures import NEEDS_ATTENTION
from ragassets.cli.output import (
    hint,
    write_json,
    write_line,
    write_pairs,
    write_table,
)
from ragassets.cli.session import ConfigOption, JsonOption, Session

if TYPE_CHECKING:
    from ragassets.queries.index_versions import VersionStatus

dead_letters = typer.Typer(help="Documents that a stage gave up on, and why.", no_args_is_help=True)


def status(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show where every source and every index version stands."""
    session = Session(context, config=config, as_json=as_json)
    from ragassets.queries.status import read_status

    found = read_status(session.workspace)
    if session.as_json:
        write_json(found.as_json())
        return
    write_table(
        [
            {
                "source": name,
                "documents": source.documents,
                "unique": source.unique_documents,
                "duplicates": source.duplicates,
                "dead letters": source.dead_letters,
                "pending": source.pending,
                "last listed": source.last_listed_at,
                "newest change": source.newest_change_at,
            }
            for name, source in found.sources.items()
        ],
        title="Sources",
    )
    for name, source in found.sources.items():
        if source.listing_problem:
            write_line(f"attention: source {name}: {source.listing_problem}")
    write_line()
    write_versions(list(found.index_versions.values()))
    if not found.is_ingested:
        hint("Nothing was ingested yet: ragassets ingest")
    elif any(source.dead_letters for source in found.sources.values()):
        hint("Why documents are missing: ragassets dead-letters list")


def write_versions(versions: "list[VersionStatus]") -> None:
    """The table of index versions that `status` and `index list` share."""
    write_table(
        [
            {
                "index": version.index_version,
                "state": version.state,
                "live": ", ".join(version.aliases) or "no",
                "documents": version.documents,
                "chunks": version.chunks,
                "embeddings": version.embeddings,
                "points": version.points,
                "stale": version.stale,
                "nDCG@10": (version.quality or {}).get("ndcg_at_10"),
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
    for text in sorted({version.note for version in versions if version.note}):
        write_line(f"attention: points are not known: {text}")
