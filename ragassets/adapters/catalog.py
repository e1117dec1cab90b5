"""The document catalog: one row per document in SQL, for people and dashboards to query.

It is derived: everything in it can be written again from the tables, so no stage reads it. SQLite
and PostgreSQL are supported; the schema is versioned with Alembic (`catalog_migrations`).
"""

import logging
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event, exc, orm
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ragassets.adapters.object_storage import one_line
from ragassets.errors import ConfigurationError, StorageUnavailableError, SystemResourceError

DocumentStatus = Literal["pending", "searchable", "duplicate", "dead_letter"]

# A shard's transaction takes milliseconds; a minute covers a queue of them on a slow disk.
LOCK_TIMEOUT_SECONDS = 60
CONNECT_TIMEOUT_SECONDS = 10

# An exclusive lock on one small table, for a moment; without FULL the old rows stay in its pages.
_POSTGRES_REWRITE = ("VACUUM (FULL) documents",)

# Any constant that nobody else uses as an advisory lock in this database: "ragasset" in ASCII.
_MIGRATION_LOCK = 0x7261676173736574

# Alembic keeps the migration under way in module globals, so two threads must take turns.
_migrating = threading.Lock()

# Keeps a statement below the limits on bound parameters (SQLite 32,766, PostgreSQL 65,535).
_IDS_PER_STATEMENT = 10_000


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware time, stored in UTC; SQLite forgets time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: sa.Dialect,  # noqa: ARG002 - SQLAlchemy passes it
    ) -> datetime | None:
        """Convert to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: sa.Dialect,  # noqa: ARG002 - SQLAlchemy passes it
    ) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(orm.DeclarativeBase):
    """The declarative base of the catalog."""


class DocumentRow(Base):
    """The table `documents`; the meaning of the columns is told at `CatalogDocument`."""

    __tablename__ = "documents"
    __table_args__ = (sa.Index("ix_documents_source_status", "source", "status"),)

    document_id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    source: orm.Mapped[str]
    source_shard: orm.Mapped[str] = orm.mapped_column(index=True)
    uri: orm.Mapped[str] = orm.mapped_column(index=True)
    title: orm.Mapped[str | None]
    media_type: orm.Mapped[str | None]
    size_bytes: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger)
    content_hash: orm.Mapped[str | None]
    etag: orm.Mapped[str | None]
    modified_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    language: orm.Mapped[str | None]
    parser: orm.Mapped[str | None]
    n_pages: orm.Mapped[int | None]
    status: orm.Mapped[str]
    stage: orm.Mapped[str | None]
    reason: orm.Mapped[str | None]
    duplicate_of: orm.Mapped[str | None]
    n_chunks: orm.Mapped[int]
    n_tokens: orm.Mapped[int]
    index_versions: orm.Mapped[list[str]] = orm.mapped_column(
        sa.JSON().with_variant(JSONB(), "postgresql")
    )
    first_seen_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime)
    updated_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime)
    run_id: orm.Mapped[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogDocument:
    """What the catalog says about one document."""

    document_id: str
    source: str
    source_shard: str
    uri: str
    title: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    content_hash: str | None = None
    etag: str | None = None
    modified_at: datetime | None = None
    """When the source says that it changed."""
    language: str | None = None
    parser: str | None = None
    n_pages: int | None = None
    status: DocumentStatus
    stage: str | None = None
    """The last stage that the document went through."""
    reason: str | None = None
    """Why it is not searchable, as a short code."""
    duplicate_of: str | None = None
    """The `document_id` of the survivor."""
    n_chunks: int = 0
    n_tokens: int = 0
    index_versions: tuple[str, ...] = ()
    """The index versions that hold its chunks."""
    updated_at: datetime
    """When this row last changed; a write that changes nothing leaves it alone."""
    run_id: str | None = None
    """The run that last changed this row."""
    first_seen_at: datetime | None = None
    """When the row was first written; the catalog sets it."""


_FIELDS = tuple(field.name for field in fields(CatalogDocument))


class Catalog:
    """The catalog behind a SQLAlchemy URL. Nothing is opened before the first call."""

    def __init__(self, url: str) -> None:
        """Prepare the engine.

        Args:
            url: `sqlite:///path/to.db` or `postgresql+psycopg://user:password@host/database`.

        Raises:
            ConfigurationError: The URL cannot be read, or its driver is not installed.
        """
        self._url = _parse_url(url)
        self._service = f"catalog {self._url.render_as_string(hide_password=True)}"
        self._engine = _create_engine(self._url)

    def migrate(self) -> None:
        """Bring the schema to the newest version; safe when several processes do it at once.

        Raises:
            ConfigurationError: The schema comes from a newer ragassets.
            StorageUnavailableError: The database cannot be opened or changed.
        """
        # Before the import, which already logs its plugins.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # Imported here: Alembic takes 0.2 s, and only the first step of a process needs it.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        _create_folder(self._url, self._service)
        with (
            _migrating,
            as_file(files("ragassets.adapters") / "catalog_migrations") as scripts,
            self._connection(is_write=True) as connection,
        ):
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config = Config()
            # The option goes through ConfigParser, where a percent sign starts an interpolation.
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise ConfigurationError(
                    key="catalog",
                    value=self._url.render_as_string(hide_password=True),
                    problem=f"has a schema that this version does not know ({one_line(error)})",
                    fix="Upgrade ragassets, or name another catalog",
                ) from error

    def replace_documents(self, source_shard: str, rows: Sequence[CatalogDocument]) -> None:
        """Make `rows` the whole content of a shard, in one transaction.

        Rows that did not change are not written; rows of the shard that are not in `rows` are
        deleted. A document that another shard wrote before moves to this one.

        Raises:
            ValueError: A row names another shard.
            StorageUnavailableError: The database cannot be written.
        """
        strays = [row.document_id for row in rows if row.source_shard != source_shard]
        if strays:
            msg = f"document {strays[0]!r} is not of shard {source_shard!r}"
            raise ValueError(msg)
        # In order of the key, so that two writers lock rows in the same order and never deadlock.
        values = [_values(row) for row in sorted(rows, key=lambda row: row.document_id)]
        kept = {row.document_id for row in rows}
        with self._connection(is_write=True) as connection:
            known = connection.scalars(
                sa.select(DocumentRow.document_id)
                .where(DocumentRow.source_shard == source_shard)
                .order_by(DocumentRow.document_id)
            )
            gone = [document_id for document_id in known if document_id not in kept]
            for start in range(0, len(gone), _IDS_PER_STATEMENT):
                ids = gone[start : start + _IDS_PER_STATEMENT]
                connection.execute(sa.delete(DocumentRow).where(DocumentRow.document_id.in_(ids)))
            if values:
                connection.execute(_upsert(connection.dialect.name), values)

    def forget(self, document_ids: Collection[str]) -> int:
        """Delete the rows of these documents, and what the database keeps of deleted rows.

        A database leaves the bytes of deleted rows in its file until they are overwritten, so the
        file is written anew. Backups and archived logs of a server are not within reach.

        Returns:
            How many rows were deleted.

        Raises:
            StorageUnavailableError: The database cannot be written.
        """
        ids = sorted(document_ids)
        with self._connection(is_write=True) as connection:
            deleted = connection.execute(
                sa.delete(DocumentRow).where(DocumentRow.document_id.in_(ids))
            )
        self._rewrite()
        return deleted.rowcount

    def _rewrite(self) -> None:
        """Write the table, or SQLite's file with its log, anew."""
        is_sqlite = self._url.get_backend_name() == "sqlite"
        statements = (
            ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)") if is_sqlite else _POSTGRES_REWRITE
        )
        try:
            with self._engine.connect() as connection:
                autocommit = connection.execution_options(
                    isolation_level="AUTOCOMMIT", is_outside_transaction=True
                )
                for statement in statements:
                    autocommit.exec_driver_sql(statement)
        except exc.DBAPIError as error:
            cause = error.orig or error
            raise StorageUnavailableError(service=self._service, detail=one_line(cause)) from error

    def document(self, uri: str) -> CatalogDocument | None:
        """The document with this URI, or `None`; of several sources, the first by name."""
        found = self.documents(uri=uri, limit=1)
        return found[0] if found else None

    def documents(
        self,
        *,
        uri: str | None = None,
        source: str | None = None,
        source_shard: str | None = None,
        status: DocumentStatus | None = None,
        limit: int | None = None,
    ) -> list[CatalogDocument]:
        """The documents for which all given values hold, ordered by URI and source."""
        wanted = {"uri": uri, "source": source, "source_shard": source_shard, "status": status}
        query = (
            sa.select(*DocumentRow.__table__.columns)
            .filter_by(**{name: value for name, value in wanted.items() if value is not None})
            .order_by(DocumentRow.uri, DocumentRow.source)
            .limit(limit)
        )
        with self._connection() as connection:
            return [_document(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of documents by source and status."""
        query = sa.select(DocumentRow.source, DocumentRow.status, sa.func.count()).group_by(
            DocumentRow.source, DocumentRow.status
        )
        counts: dict[str, dict[str, int]] = {}
        with self._connection() as connection:
            for source, status, n_documents in connection.execute(query.order_by(sa.text("1, 2"))):
                counts.setdefault(source, {})[status] = n_documents
        return counts

    def close(self) -> None:
        """Give back the connections; the catalog can be used again."""
        self._engine.dispose()

    @contextmanager
    def _connection(self, *, is_write: bool = False) -> Generator[sa.Connection]:
        """A connection in a transaction, its errors turned into ours."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(is_write=is_write)
                with connection.begin():
                    yield connection
        except exc.DBAPIError as error:
            cause = error.orig or error
            if "disk is full" in str(cause) or "No space left" in str(cause):
                raise SystemResourceError(
                    resource=f"disk space of {self._service}",
                    detail=one_line(cause),
                    fix="Free some space, then run again",
                ) from error
            raise StorageUnavailableError(service=self._service, detail=one_line(cause)) from error


def _parse_url(url: str) -> sa.URL:
    """The URL, with our driver where the user named none.

    Raises:
        ConfigurationError: Not a URL, or a database that is not supported.
    """
    fix = "Use sqlite:///path/to/catalog.db or postgresql+psycopg://user:password@host/database"
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (exc.ArgumentError, ValueError) as error:
        # The text may hold a password, and without a structure nobody can tell where.
        raise ConfigurationError(
            key="catalog", value="(hidden)", problem="is not a database URL", fix=fix
        ) from error
    if backend not in {"sqlite", "postgresql"}:
        shown = parsed.render_as_string(hide_password=True)
        raise ConfigurationError(key="catalog", value=shown, problem="is not supported", fix=fix)
    return parsed.set(drivername="postgresql+psycopg") if url.startswith("postgresql:") else parsed


def _create_folder(url: sa.URL, service: str) -> None:
    """Create the folder of an SQLite file."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailableError(
            service=service,
            detail=f"its folder cannot be created ({error.strerror})",
            fix="Name another file under `catalog`",
        ) from error


def _create_engine(url: sa.URL) -> sa.Engine:
    """An engine that waits for locks, and starts transactions itself on SQLite.

    Raises:
        ConfigurationError: The driver is not installed.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    connect_args = (
        {"timeout": LOCK_TIMEOUT_SECONDS}
        if is_sqlite
        else {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    )
    try:
        engine = sa.create_engine(url, connect_args=connect_args, pool_pre_ping=not is_sqlite)
    except (ModuleNotFoundError, exc.NoSuchModuleError) as error:
        raise ConfigurationError(
            key="catalog",
            value=url.render_as_string(hide_password=True),
            problem="needs a database driver that is not installed",
            fix="Install ragassets[postgres]",
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Set up one SQLite connection.

    `isolation_level = None` stops the driver from starting transactions when it likes.
    Source: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    # With WAL this survives a killed process; only a power cut can lose the last commits.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """Start a transaction.

    A writer takes the lock at once: a transaction that reads first and then wants to write fails
    without waiting when somebody else wrote in between.
    """
    options = connection.get_execution_options()
    if options.get("is_outside_transaction", False):
        return
    is_write = options.get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _upsert(dialect: str) -> sa.Insert:
    """Insert a row, or update it when anything but its time and run changed."""
    insert = postgresql_insert if dialect == "postgresql" else sqlite_insert
    statement = insert(DocumentRow)
    stored: dict[str, sa.ColumnElement[Any]] = dict(DocumentRow.__table__.columns.items())
    updated = [name for name in stored if name not in {"document_id", "first_seen_at"}]
    compared = [name for name in updated if name not in {"updated_at", "run_id"}]
    changes = [stored[name].is_distinct_from(statement.excluded[name]) for name in compared]
    return statement.on_conflict_do_update(
        index_elements=["document_id"],
        set_={name: statement.excluded[name] for name in updated},
        where=sa.or_(sa.false(), *changes),
    )


def _values(document: CatalogDocument) -> dict[str, object]:
    """The row of a document, without what PostgreSQL cannot store."""
    values = {name: _storable(getattr(document, name)) for name in _FIELDS}
    values["index_versions"] = sorted(document.index_versions)
    values["first_seen_at"] = document.updated_at
    return values


def comparable(document: CatalogDocument) -> dict[str, object]:
    """What a row says of its document: as it is stored, without when and by which run."""
    values = _values(document)
    return {k: v for k, v in values.items() if k not in {"updated_at", "run_id", "first_seen_at"}}


def _storable(value: object) -> object:
    """Text without NUL characters and lone surrogates, which PostgreSQL refuses."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _document(row: Mapping[Any, Any]) -> CatalogDocument:
    """The value of a row."""
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    values["index_versions"] = tuple(row["index_versions"])
    return CatalogDocument(**values)
