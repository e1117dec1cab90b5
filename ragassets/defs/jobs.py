"""The phases of an ingestion as asset jobs: one run targets one partitions definition.

`ragassets ingest` runs them in order; automation and people launch the assets themselves.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import dagster as dg

# What `define_asset_job` returns has no public name.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


class Phase(NamedTuple):
    """The assets that one run makes."""

    assets: tuple[str, ...]
    description: str


OBSERVE_SOURCES = "observe_sources"
PROCESS_DOCUMENTS = "process_documents"
DECIDE_DUPLICATES = "decide_duplicates"
CHUNK_DOCUMENTS = "chunk_documents"
EMBED_CHUNKS = "embed_chunks"
INDEX_CHUNKS = "index_chunks"
SEAL_INDEX_VERSIONS = "seal_index_versions"
MOVE_ALIASES = "move_aliases"
UPDATE_CATALOG = "update_catalog"
AUDIT = "audit_everything"
FORGET = "forget_documents"

PHASES: Mapping[str, Phase] = {
    OBSERVE_SOURCES: Phase(
        ("source_objects",), "Look what the sources hold now. The one phase that looks outside."
    ),
    PROCESS_DOCUMENTS: Phase(
        (
            "raw_documents",
            "parsed_documents",
            "valid_documents",
            "clean_documents",
            "_document_signatures",
        ),
        "Fetch, parse, check and clean the documents of some source shards.",
    ),
    DECIDE_DUPLICATES: Phase(
        ("unique_documents",), "Decide over all shards which documents repeat another one."
    ),
    CHUNK_DOCUMENTS: Phase(("chunks",), "Split surviving documents under one chunking."),
    EMBED_CHUNKS: Phase(("embeddings",), "Embed new chunks under one embedding set."),
    INDEX_CHUNKS: Phase(("indexed_chunks",), "Write the points of one index version."),
    SEAL_INDEX_VERSIONS: Phase(("index_versions",), "Judge an index version and seal it."),
    MOVE_ALIASES: Phase(
        ("live_index",), "Start, promote or roll back an alias; the run config says which."
    ),
    UPDATE_CATALOG: Phase(
        ("dead_letters", "document_catalog"), "Gather the dead letters; write the SQL catalog."
    ),
    AUDIT: Phase(
        ("audit",), "Compare everything that is stored; with `repair`, mend what differs."
    ),
    FORGET: Phase(
        ("forgotten_documents",), "Remove documents for good; the run config names them by id."
    ),
}
"""In the order of an ingestion; audits and removals are jobs of their own."""

AUDIT_PRIORITY = "-20"
"""Everything else goes first: what a person starts has 0, what builds versions by itself -10."""


def build_audit_schedule(cron: str, *, repairs: bool) -> dg.ScheduleDefinition:
    """The audit at its times, UTC; running by default where a daemon runs."""
    return dg.ScheduleDefinition(
        name="audit_schedule",
        job_name=AUDIT,
        cron_schedule=cron,
        run_config={"ops": {"audit": {"config": {"repair": repairs}}}},
        tags={"dagster/priority": AUDIT_PRIORITY},
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compares tables, catalog, landing zone and collections"
        + (", and mends what differs." if repairs else "; mends nothing."),
    )


def build_jobs() -> Sequence[UnresolvedAssetJobDefinition]:
    """One job a phase."""
    return [
        dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
            name,
            selection=dg.AssetSelection.assets(*phase.assets),
            description=phase.description,
            executor_def=dg.in_process_executor,
        )
        for name, phase in PHASES.items()
    ]
