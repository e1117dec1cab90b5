"""Few asset checks with rich metadata; never one per document."""

import dagster as dg

from ragassets.defs.metadata import markdown_table
from ragassets.defs.resources import WorkspaceResource

MAX_DEAD_LETTER_SHARE = 0.5
"""When half of a corpus cannot be read, the source or the configuration is wrong, not the
documents."""


@dg.asset_check(asset="index_versions", description="Every built index version is sealed.")
def index_versions_are_sealed(
    workspace: dg.ResourceParam[WorkspaceResource],
) -> dg.AssetCheckResult:
    """Fail when a version is incomplete, and say what it lacks."""
    from ragassets.core.asset_tables import INDEX_VERSIONS

    rows = workspace.workspace.tables.read(INDEX_VERSIONS).select(
        "index_version", "state", "n_chunks", "n_points", "problems"
    )
    incomplete = rows.filter(rows["state"] != "sealed")
    return dg.AssetCheckResult(
        passed=incomplete.is_empty(),
        metadata={"versions": markdown_table(rows.to_dicts()), "n_incomplete": incomplete.height},
    )


@dg.asset_check(asset="dead_letters", description="Most documents of every source can be read.")
def most_documents_are_readable(
    workspace: dg.ResourceParam[WorkspaceResource],
) -> dg.AssetCheckResult:
    """Warn when more than half of a source's documents are dead letters."""
    from ragassets.core.asset_tables import DEAD_LETTERS, SOURCE_OBJECTS

    tables = workspace.workspace.tables
    objects = tables.read(SOURCE_OBJECTS, columns=["source", "is_deleted"])
    n_alive = dict(objects.filter(~objects["is_deleted"])["source"].value_counts().iter_rows())
    letters = tables.read(DEAD_LETTERS, columns=["source", "document_id"]).unique()
    n_dead = dict(letters["source"].value_counts().iter_rows())
    rows = [
        {"source": name, "documents": count, "dead letters": n_dead.get(name, 0)}
        for name, count in sorted(n_alive.items())
    ]
    passed = all(n_dead.get(name, 0) <= MAX_DEAD_LETTER_SHARE * n for name, n in n_alive.items())
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"sources": markdown_table(rows)},
    )
