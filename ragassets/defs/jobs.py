"""The phases of an ingestion as asset jobs: one run targets one partitions definition.

`ragassets ingest` runs them in order; automation and people launch the assets themselves.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

OBSERVE_SOURCES = "observe_sources"
PROCESS_DOCUMENTS = "process_documents"
DECIDE_DUPLICATES = "decide_duplicates"
CHUNK_DOCUMENTS = "chunk_documents"
EMBED_CHUNKS = "embed_chunks"
INDEX_CHUNKS = "index_chunks"
SEAL_INDEX_VERSIONS = "seal_index_versions"
MOVE_ALIASES = "move_aliases"
UPDATE_CATALOG = "update_catalog"

PHASES: dict[str, tuple[str, ...]] = {
    OBSERVE_SOURCES: ("source_objects",),
    PROCESS_DOCUMENTS: (
        "raw_documents",
        "parsed_documents",
        "valid_documents",
        "clean_documents",
        "_document_signatures",
    ),
    DECIDE_DUPLICATES: ("unique_documents",),
    CHUNK_DOCUMENTS: ("chunks",),
    EMBED_CHUNKS: ("embeddings",),
    INDEX_CHUNKS: ("indexed_chunks",),
    SEAL_INDEX_VERSIONS: ("index_versions",),
    MOVE_ALIASES: ("live_index",),
    UPDATE_CATALOG: ("dead_letters", "document_catalog"),
}
"""Assets of every phase, in the order of an ingestion."""


def build_jobs() -> Sequence[UnresolvedAssetJobDefinition]:
    """One job a phase."""
    return [
        dg.define_asset_job(
            name, selection=dg.AssetSelection.assets(*assets), executor_def=dg.in_process_executor
        )
        for name, assets in PHASES.items()
    ]
