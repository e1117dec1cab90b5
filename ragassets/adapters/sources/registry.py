"""Which adapter reads which kind of source."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ragassets.adapters.sources.kafka_topic import KafkaTopic
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.local_folder import LocalFolder
from ragassets.adapters.sources.object_store import ObjectStoreSource
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.adapters.sources.patience import Patience
from ragassets.adapters.sources.reliable_source import ReliablePagedSource, ReliableSource
from ragassets.adapters.sources.s3_bucket import S3Bucket
from ragassets.adapters.sources.s3_events import S3EventQueue
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.config import SourceConfig
from ragassets.core.retries import ONE_TRY
from ragassets.core.sources import EventQueue, PagedSource, Source
from ragassets.core.web_settings import WEB_SCHEMES

OBJECT_STORES: Mapping[str, type[S3Bucket | ObjectStoreSource]] = MappingProxyType(
    {"s3": S3Bucket, "gs": ObjectStoreSource, "az": ObjectStoreSource}
)


def open_source(config: SourceConfig, bodies: LandedBodies, crawls: CrawlMemory) -> Source:
    """The source of one entry of `sources`; nothing is read or sent yet.

    Args:
        config: The entry.
        bodies: Where a source that cannot be asked for one object keeps what it reads. Its `fetch`
            reads that, so that it needs neither mirrors nor several tries.
        crawls: Where a web site keeps its crawls.
    """
    if config.scheme == "kafka":
        return _topic(config, bodies)
    source, base = _open(config, bodies, crawls), base_uri(config.uri)
    mirrors = {base_uri(uri): _open(config.at(uri), bodies, crawls) for uri in config.mirrors}
    # A local file that cannot be read now cannot be read in a second either.
    patience = Patience(ONE_TRY if config.scheme == "file" else config.fetch.retry)
    if isinstance(source, PagedSource):
        return ReliablePagedSource(source, base, mirrors, fetching=config.fetch, patience=patience)
    return ReliableSource(source, base, mirrors, fetching=config.fetch, patience=patience)


def open_event_queue(config: SourceConfig) -> EventQueue | None:
    """The queue with the events of a source; None where it has none."""
    if config.watching is None or config.watching.queue is None:
        return None
    bucket = S3Bucket(
        config.uri, config.include, config.exclude, store=config.store, fetching=config.fetch
    )
    return S3EventQueue(config.watching.queue, bucket, store=config.store, fetching=config.fetch)


def base_uri(uri: str) -> str:
    """What the URIs of a source's objects begin with, without a slash at its end."""
    return uri.rstrip("/") if "://" in uri else Path(uri).absolute().as_uri()


def _open(config: SourceConfig, bodies: LandedBodies, crawls: CrawlMemory) -> Source:
    if config.scheme == "file":
        return LocalFolder(config.uri, config.include, config.exclude)
    if config.scheme in WEB_SCHEMES:
        # Every run imports this module; what speaks HTTP and reads pages costs the others nothing.
        from ragassets.adapters.sources.web.web_site import WebSite

        return WebSite(config, bodies, crawls)
    return OBJECT_STORES[config.scheme](
        config.uri, config.include, config.exclude, store=config.store, fetching=config.fetch
    )


def _topic(config: SourceConfig, bodies: LandedBodies) -> KafkaTopic:
    # The usual `**/*` leaves hidden files out; a key that begins with a dot is not hidden.
    chooses = {"include", "exclude"} & config.model_fields_set
    return KafkaTopic(
        config.uri,
        PathPatterns(config.include, config.exclude) if chooses else None,
        bodies,
        config=config.kafka,
        fetching=config.fetch,
        group_id=config.kafka.group_id or f"ragassets-{bodies.source}",
    )
