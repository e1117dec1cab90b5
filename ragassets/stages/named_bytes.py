"""Which bytes of the landing zone somebody needs."""

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import RAW_DOCUMENTS, SOURCE_OBJECTS
from ragassets.core.sources import landed_hash


def named_content_hashes(workspace: Workspace) -> set[str]:
    """Hashes of the bytes that documents have, or will have with the next run.

    The second are those that a source landed with its listing: for some time nothing but the
    listing names them, and nobody could fetch them again.
    """
    fetched = workspace.tables.read(
        RAW_DOCUMENTS.outputs,
        columns=["content_hash"],
        where=pl.col("output_hash").is_not_null(),
    )
    listed = workspace.tables.read(SOURCE_OBJECTS, columns=["etag"], where=~pl.col("is_deleted"))
    landed = {name for etag in listed["etag"] if (name := landed_hash(etag))}
    return set(fetched["content_hash"]) | landed
