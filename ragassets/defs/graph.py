"""All assets, checks, jobs and resources of a configuration."""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import dagster as dg

from ragassets.config import Config
from ragassets.defs.assets.audit import build_audit
from ragassets.defs.assets.chunks import build_chunks
from ragassets.defs.assets.clean_documents import build_clean_documents
from ragassets.defs.assets.dead_letters import build_dead_letters
from ragassets.defs.assets.document_catalog import build_document_catalog
from ragassets.defs.assets.document_signatures import build_document_signatures
from ragassets.defs.assets.embeddings import build_embeddings
from ragassets.defs.assets.forgotten_documents import build_forgotten_documents
from ragassets.defs.assets.index_versions import build_index_versions
from ragassets.defs.assets.indexed_chunks import build_indexed_chunks
from ragassets.defs.assets.live_index import build_live_index
from ragassets.defs.assets.parsed_documents import build_parsed_documents
from ragassets.defs.assets.raw_documents import build_raw_documents
from ragassets.defs.assets.source_objects import build_source_objects
from ragassets.defs.assets.unique_documents import build_unique_documents
from ragassets.defs.assets.valid_documents import build_valid_documents
from ragassets.defs.automation import build_automation_sensor
from ragassets.defs.checks import most_documents_are_readable
from ragassets.defs.drop_job import build_drop_schedule, drop_index_versions
from ragassets.defs.jobs import build_audit_schedule, build_jobs
from ragassets.defs.notifications import build_notification_sensors
from ragassets.defs.partitions import build_partitions
from ragassets.defs.replay_job import replay_window
from ragassets.defs.resources import S3Access, WorkspaceResource
from ragassets.defs.retry_sensor import build_retry_sensor
from ragassets.defs.source_sensors import build_source_schedules, build_source_sensors, identifier
from ragassets.defs.version_keys import VersionKeys

AUTOMATED = (
    "unique_documents",
    "chunks",
    "embeddings",
    "indexed_chunks",
    "index_versions",
    "live_index",
    "dead_letters",
    "document_catalog",
)
"""Assets that Dagster brings up to date by itself."""


def build_definitions(
    config: Config, s3: Mapping[str, S3Access] = MappingProxyType({})
) -> dg.Definitions:
    """All assets, checks and resources for a configuration.

    Args:
        config: What is built.
        s3: By source in S3, the resource that gives its client instead of `store`, such as a
            `dagster_aws.s3.S3Resource`. Assets of others find it as `s3_<source>`.

    Raises:
        ConfigurationError: A name under `s3` is no source in S3.
    """
    with warnings.catch_warnings():
        # Dagster calls these beta, and the graph is made of them.
        for name in (
            "MultiPartitionMapping",
            "MultiToSingleDimensionPartitionMapping",
            "multi_observable_source_asset",
            "backfill_policy",
            "use_user_code_server",
        ):
            warnings.filterwarnings("ignore", f".*`{name}`.*beta", dg.BetaWarning)
        warnings.filterwarnings(
            "ignore", ".*partitions_def on an AssetCheckSpec", dg.PreviewWarning
        )
        partitions, resource = build_partitions(config), WorkspaceResource(config, s3)
        keys = VersionKeys(resource)
        assets = [
            build_source_objects(partitions, config),
            build_raw_documents(partitions),
            build_parsed_documents(partitions),
            build_valid_documents(partitions),
            build_clean_documents(partitions),
            build_document_signatures(partitions),
            build_unique_documents(partitions),
            build_chunks(partitions, keys),
            build_embeddings(partitions, keys),
            build_indexed_chunks(partitions, keys),
            build_index_versions(partitions, keys),
            build_live_index(),
            build_dead_letters(partitions),
            build_document_catalog(partitions),
            build_audit(),
            build_forgotten_documents(),
        ]
        cron = config.audit.schedule
        schedules = [build_audit_schedule(cron, repairs=config.audit.repair)] if cron else []
        return dg.Definitions(
            assets=assets,
            asset_checks=[most_documents_are_readable],
            jobs=[*build_jobs(), drop_index_versions, replay_window],
            schedules=[build_drop_schedule(), *build_source_schedules(config), *schedules],
            sensors=[
                build_automation_sensor(keys, *AUTOMATED),
                build_retry_sensor(),
                *build_source_sensors(config),
                *build_notification_sensors(config, _check_keys(assets)),
            ],
            resources={
                "workspace": resource,
                **{f"s3_{identifier(name)}": access for name, access in s3.items()},
            },
            # A run's steps share one process, so that models and parsers load once a run.
            executor=dg.in_process_executor,
        )


def _check_keys(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetCheckKey]:
    """All asset checks, those beside the assets too."""
    inside = {key for asset in assets for key in asset.check_keys}
    return sorted(inside | set(most_documents_are_readable.check_keys), key=str)
