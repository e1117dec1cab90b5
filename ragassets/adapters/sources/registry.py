"""Which adapter reads which kind of source."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from wcmatch import glob

from ragassets.adapters.sources.aws import ClientOpener
from ragassets.adapters.sources.json_api import JsonApi
from ragassets.adapters.sources.kafka_topic import KafkaTopic
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.local_folder import LocalFolder
from ragassets.adapters.sources.object_store import ObjectStoreSource
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.adapters.sources.patience import Patience
from ragassets.adapters.sources.record_files import RecordFiles
from ragassets.adapters.sources.reliable_source import ReliablePagedSource, ReliableSource
from ragassets.adapters.sources.s3_bucket import S3Bucket
from ragassets.adapters.sources.s3_events import S3EventQueue
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.config import SourceConfig
from ragassets.core.record_settings import API_SCHEMES, ApiConfig, RecordConfig
from ragassets.core.records import RecordMapping
from ragassets.core.retries import ONE_TRY
from ragassets.core.sources import EventQueue, PagedSource, Source, StreamedSource
from ragassets.core.web_settings import WEB_SCHEMES

OBJECT_STORES: Mapping[str, type[ObjectStoreSource]] = MappingProxyType(
    {"gs": ObjectStoreSource, "az": ObjectStoreSource}
)

DUMP_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
"""A local address with such an end names a file, not a folder."""


def open_source(
    config: SourceConfig,
    bodies: LandedBodies,
    crawls: CrawlMemory,
    s3_client: ClientOpener | None = None,
) -> Source:
    """The source of one entry of `sources`; nothing is read or sent yet.

    Args:
        config: The entry.
        bodies: Where a source that cannot be asked for one object keeps what it reads. Its `fetch`
            reads that, so that it needs neither mirrors nor several tries.
        crawls: Where a web site keeps its crawls.
        s3_client: What gives the client of a source in S3, where somebody else configured it.
    """
    if config.scheme == "kafka":
        return _topic(config, bodies)
    # A local file that cannot be read now cannot be read in a second either.
    patience = Patience(ONE_TRY if config.scheme == "file" else config.fetch.retry)
    if config.has_records:
        return _open_records(config, bodies, patience, s3_client)
    source, base = _open(config, bodies, crawls, s3_client), base_uri(config.uri)
    mirrors = {
        base_uri(uri): _open(config.at(uri), bodies, crawls, s3_client) for uri in config.mirrors
    }
    if isinstance(source, PagedSource):
        return ReliablePagedSource(source, base, mirrors, fetching=config.fetch, patience=patience)
    return ReliableSource(source, base, mirrors, fetching=config.fetch, patience=patience)


def open_event_queue(
    config: SourceConfig, s3_client: ClientOpener | None = None
) -> EventQueue | None:
    """The queue with the events of a source; None where it has none."""
    if config.watching is None or config.watching.queue is None:
        return None
    bucket = _bucket(config, s3_client)
    return S3EventQueue(config.watching.queue, bucket, store=config.store, fetching=config.fetch)


def base_uri(uri: str) -> str:
    """What the URIs of a source's objects begin with, without a slash at its end."""
    return uri.rstrip("/") if "://" in uri else Path(uri).absolute().as_uri()


def _open_records(
    config: SourceConfig,
    bodies: LandedBodies,
    patience: Patience,
    s3_client: ClientOpener | None,
) -> Source:
    """A source whose documents are records: of files, or of an API."""
    mapping = RecordMapping(config.records or RecordConfig())
    if config.scheme in API_SCHEMES:
        return JsonApi(
            config.uri,
            config.api or ApiConfig(),
            mapping,
            bodies,
            fetching=config.fetch,
            patience=patience,
        )
    return RecordFiles(
        _open_files(config, s3_client), mapping, bodies, fetching=config.fetch, patience=patience
    )


def _open_files(config: SourceConfig, s3_client: ClientOpener | None) -> StreamedSource:
    """The files of a source of dumps; its address may name one of them."""
    uri = config.uri
    if config.scheme == "file" and uri.lower().endswith(DUMP_SUFFIXES):
        path = Path(unquote(urlsplit(uri).path)) if "://" in uri else Path(uri)
        return LocalFolder(str(path.parent), [glob.escape(path.name)], [])
    return _open_store(config, s3_client)


def _open(
    config: SourceConfig,
    bodies: LandedBodies,
    crawls: CrawlMemory,
    s3_client: ClientOpener | None,
) -> Source:
    if config.scheme in WEB_SCHEMES:
        # Every run imports this module; what speaks HTTP and reads pages costs the others nothing.
        from ragassets.adapters.sources.web.web_site import WebSite

        return WebSite(config, bodies, crawls)
    return _open_store(config, s3_client)


def _open_store(
    config: SourceConfig, s3_client: ClientOpener | None
) -> LocalFolder | S3Bucket | ObjectStoreSource:
    if config.scheme == "file":
        return LocalFolder(config.uri, config.include, config.exclude)
    if config.scheme == "s3":
        return _bucket(config, s3_client)
    return OBJECT_STORES[config.scheme](
        config.uri, config.include, config.exclude, store=config.store, fetching=config.fetch
    )


def _bucket(config: SourceConfig, s3_client: ClientOpener | None) -> S3Bucket:
    return S3Bucket(
        config.uri,
        config.include,
        config.exclude,
        store=config.store,
        fetching=config.fetch,
        open_client=s3_client,
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
        mapping=RecordMapping(config.records) if config.records else None,
    )
