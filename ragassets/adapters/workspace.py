"""Everything that a configuration opens: tables, landing zone, catalog, models, vector store.

Opening is lazy: a workspace costs nothing until one of its parts is used, because every run, every
sensor tick and every command makes one.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import cast

from ragassets.adapters.catalog import Catalog
from ragassets.adapters.checkpoints import ObjectCheckpoints
from ragassets.adapters.embedders.registry import open_embedder
from ragassets.adapters.fenced_store import FencedStore
from ragassets.adapters.landing_zone import LandingZone
from ragassets.adapters.object_lease import ObjectLease
from ragassets.adapters.object_storage import open_root
from ragassets.adapters.rerankers.registry import open_reranker
from ragassets.adapters.search_log import SearchLog
from ragassets.adapters.sources.aws import ClientOpener
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.registry import open_event_queue, open_source
from ragassets.adapters.sources.web.crawl_memory import CrawlMemory
from ragassets.adapters.store_lock import StoreLock
from ragassets.adapters.table_aliases import TableAliases
from ragassets.adapters.table_files import TableFiles
from ragassets.adapters.tables import DeltaTables
from ragassets.adapters.tokenizers import load_tokenizer
from ragassets.adapters.vector_ledger import VectorLedger
from ragassets.adapters.vector_store import StoreSettings, open_vector_store
from ragassets.config import Config
from ragassets.core.asset_tables import FORGOTTEN_DOCUMENTS
from ragassets.core.chunk_tokens import Tokenizer
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.embedding import Embedder
from ragassets.core.indexing import VectorStore
from ragassets.core.reranking import Reranker
from ragassets.core.sources import EventQueue, Source
from ragassets.core.versions import model_version
from ragassets.errors import SourceBusyError, VectorStoreLockedError

LANDING_WAIT_SECONDS = 15.0
"""For somebody else who reads the same source: a batch takes seconds, a sensor's tick has 60 s."""


class Workspace:
    """The opened parts of one configuration."""

    def __init__(
        self, config: Config, s3_clients: Mapping[str, ClientOpener] = MappingProxyType({})
    ) -> None:
        """Remember the configuration; nothing is opened yet.

        Args:
            config: What is opened.
            s3_clients: By source, what gives its client where somebody else configured it.
        """
        self.config = config
        self._s3_clients = s3_clients
        self._embedders: dict[str, Embedder] = {}
        self._sources: dict[str, Source] = {}

    @cached_property
    def tables(self) -> DeltaTables:
        """The Delta tables below the root."""
        opened = open_root(self.config.root)
        return DeltaTables(opened.uri, opened.storage_options)

    @cached_property
    def table_files(self) -> TableFiles:
        """The data files of the tables, those of earlier versions too."""
        return TableFiles(self.config.root, self.tables)

    @cached_property
    def landing_zone(self) -> LandingZone:
        """The bytes as fetched."""
        return LandingZone(self.config.root)

    @cached_property
    def ledger(self) -> VectorLedger:
        """The vectors of all texts that were ever embedded."""
        return VectorLedger(self.tables)

    @cached_property
    def search_log(self) -> SearchLog:
        """What searches during a canary leave behind."""
        return SearchLog(self.config.root)

    @cached_property
    def checkpoints(self) -> ObjectCheckpoints:
        """Finished rows of uncommitted stages."""
        return ObjectCheckpoints(self.config.root)

    @cached_property
    def catalog(self) -> Catalog:
        """The metadata catalog, its schema up to date."""
        catalog = Catalog(self.config.catalog)
        catalog.migrate()
        return catalog

    def vector_store(self, *, timeout_seconds: float | None = None) -> VectorStore:
        """A new session with the vector store; close it soon, an embedded store has one owner.

        Args:
            timeout_seconds: How long to wait for its owner or server at most, where that is less
                than the configuration says.
        """
        config, longest = self.config, self.config.vector_store_timeout_seconds
        return open_vector_store(
            config.vector_store,
            timeout_seconds=longest if timeout_seconds is None else min(longest, timeout_seconds),
            settings=StoreSettings(config.qdrant, config.chroma, config.pinecone),
            aliases=TableAliases(lambda: self.tables, config.vector_store),
        )

    @contextmanager
    def index_writer(self, index_version: str) -> Generator[VectorStore]:
        """A session in which nobody else of this project writes points of an index version.

        An embedded store sees to that itself. For a server it is a lock below the root: of a folder
        one that the kernel frees with its owner, of an object store a lease (`ObjectLease`), which
        is asked before every write. Two writers would delete each other's points, because points
        that no committed row has look like those of a run that died.

        Raises:
            VectorStoreLockedError: somebody else writes them for longer than the time-out.
            LeaseLostError: somebody else took over meanwhile; raised by writes of the session.
        """
        with self.vector_store() as store:
            if not store.capabilities.is_shared:
                yield store
                return
            lock = self._lock(index_version, self.config.vector_store_timeout_seconds)
            lock.acquire()
            try:
                yield (
                    cast("VectorStore", FencedStore(store, lock))
                    if isinstance(lock, ObjectLease)
                    else store
                )
            finally:
                lock.release()

    @contextmanager
    def landing(self, *sources: str) -> Generator[Callable[[], None]]:
        """A time in which nobody else of this project lands messages of some sources.

        Whoever reads such a source holds it from the first landed byte to the recorded row, and
        whoever removes bytes that nothing names holds it meanwhile: else both would be right, and
        the bytes gone. What a site or an API says can be asked for again: they need none of it.

        Yields:
            Raises `LeaseLostError` where somebody else took over; to be called before a write.

        Raises:
            SourceBusyError: Somebody else reads one of them.
        """
        locks = {
            name: self._lock(f"landing-{name}", LANDING_WAIT_SECONDS)
            for name in sources
            if self.config.source(name).is_stream
        }
        with ExitStack() as stack:
            for name, lock in locks.items():
                try:
                    lock.acquire()
                except VectorStoreLockedError as error:
                    raise SourceBusyError(source=name, detail=error.detail) from error
                stack.callback(lock.release)

            def confirm() -> None:
                for lock in locks.values():
                    if isinstance(lock, ObjectLease):
                        lock.confirm()

            yield confirm

    def _lock(self, name: str, timeout_seconds: float) -> StoreLock | ObjectLease:
        opened = open_root(self.config.root)
        place = f"locks/{name}"
        if opened.is_local:
            folder = Path(opened.uri) / place
            folder.mkdir(parents=True, exist_ok=True)
            return StoreLock(folder, timeout_seconds=timeout_seconds)
        return ObjectLease(
            opened.store,
            f"{place}/lease.json",
            name=f"{opened.uri}/{place}",
            timeout_seconds=timeout_seconds,
        )

    def source(self, name: str) -> Source:
        """The named source; opened once, since its connections and its troubles last."""
        if name not in self._sources:
            config, bodies = self.config.source(name), self.landed_bodies(name)
            client = self._s3_clients.get(name)
            self._sources[name] = open_source(config, bodies, self.crawl_memory(name), client)
        return self._sources[name]

    def landed_bodies(self, source: str) -> LandedBodies:
        """Where the named source keeps bodies that come with its listing or its stream."""

        def forgotten() -> frozenset[str]:
            place = [{"source": source}]
            rows = self.tables.read(FORGOTTEN_DOCUMENTS, place, columns=["document_id"])
            return frozenset(rows["document_id"])

        return LandedBodies(source, lambda: self.landing_zone, forgotten)

    def crawl_memory(self, source: str) -> CrawlMemory:
        """Where the named source keeps its crawls, if it is a web site."""
        return CrawlMemory(lambda: self.checkpoints, source)

    def event_queue(self, source: str) -> EventQueue | None:
        """Where the named source tells what happened to its objects, if it does."""
        return open_event_queue(self.config.source(source), self._s3_clients.get(source))

    def model_version(self, name: str) -> str:
        """Which weights the named embedding model is made of."""
        config = self.config.embedding_model(name)
        return model_version(config.model, config.revision, self.embedder(name).fingerprint)

    def embedder(self, name: str) -> Embedder:
        """The named embedding model; opened once, since a service's limits and circuits last."""
        if name not in self._embedders:
            self._embedders[name] = open_embedder(name, self.config.embedding_model(name))
        return self._embedders[name]

    def reranker(self, name: str) -> Reranker:
        """The named reranker."""
        return open_reranker(name, self.config.reranker(name))

    def tokenizer(self, chunking: str) -> Tokenizer:
        """The tokenizer that counts a chunking's tokens."""
        named = self.config.chunking(chunking).tokenizer
        model = self.config.embedding_models.get(named) if named else None
        return load_tokenizer((model.tokenizer or model.model) if model else named)

    def collection_config(self, index_version: str) -> CollectionConfig:
        """What the index version's collection is made with."""
        version = self.config.index_version(index_version)
        return CollectionConfig(
            dim=self.config.embedding_model(version.embedding_model).dim,
            distance=version.distance,
            sparse=version.sparse,
            quantization=version.quantization,
        )
