"""The catalog, on SQLite always and on PostgreSQL where a server can be started."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from ragassets.adapters.catalog import Base, Catalog, CatalogDocument
from ragassets.errors import ConfigurationError, StorageUnavailableError
from ragassets_tests.services import program

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def document(number: int, **changes: object) -> CatalogDocument:
    """A document of shard `handbook-000`."""
    values: dict[str, object] = {
        "document_id": f"{number:032x}",
        "source": "handbook",
        "source_shard": "handbook-000",
        "uri": f"file:///{number}.md",
        "status": "pending",
        "updated_at": NOW,
        "run_id": "run-1",
    }
    return CatalogDocument(**values | changes)


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL prefix of a PostgreSQL server of this test run."""
    initdb = program("initdb", package="postgresql", also_in="/usr/lib/postgresql/*/bin")
    pytest.importorskip("psycopg")
    # Not below pytest's own folder, which the user `postgres` may not enter.
    folder = Path(tempfile.mkdtemp(prefix="ragassets-postgresql-"))
    is_root = os.geteuid() == 0
    prefix = ["runuser", "-u", "postgres", "--"] if is_root else []
    if is_root:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()
    control = [*prefix, str(initdb.with_name("pg_ctl")), "-D", str(data), "-w"]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    run(*prefix, str(initdb), "-D", str(data), "-A", "trust", "-U", "test", "-E", "UTF8")
    run(*control, "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+psycopg://test:secret@127.0.0.1:{port}"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)],
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog/catalog.db"
    server = request.getfixturevalue("postgresql_server")
    name = f"test_{os.urandom(4).hex()}"
    engine = sa.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """An empty catalog with the newest schema."""
    catalog = Catalog(url)
    catalog.migrate()
    yield catalog
    catalog.close()


def test_a_document_comes_back_as_written(catalog: Catalog) -> None:
    """Every column survives, times with their zone."""
    written = CatalogDocument(
        document_id="a" * 32,
        source="handbook",
        source_shard="handbook-000",
        uri="file:///a%20b.md",
        title="Título 😀",
        media_type="text/markdown",
        size_bytes=2**40,
        content_hash="c" * 64,
        etag='"e"',
        modified_at=datetime(2025, 12, 31, 23, 0, tzinfo=timezone(timedelta(hours=-1))),
        language="pt",
        parser="markdown",
        n_pages=3,
        status="searchable",
        stage="indexed_chunks",
        reason=None,
        duplicate_of=None,
        n_chunks=4,
        n_tokens=1000,
        index_versions=("v1", "v2"),
        updated_at=NOW,
        run_id="run-1",
        first_seen_at=NOW,
    )
    catalog.replace_documents("handbook-000", [written])
    read = catalog.document("file:///a%20b.md")
    assert read == written
    assert read is not None
    assert read.modified_at is not None
    assert read.modified_at.utcoffset() == timedelta(0)
    assert catalog.document("file:///none") is None


def test_replacing_a_shard_adds_changes_and_deletes(catalog: Catalog) -> None:
    """The catalog of a shard is what its last run says, and nothing of other shards."""
    other = document(9, source_shard="handbook-001")
    catalog.replace_documents("handbook-001", [other])
    catalog.replace_documents("handbook-000", [document(1), document(2)])
    catalog.replace_documents("handbook-000", [document(2, status="searchable"), document(3)])
    found = {(d.uri, d.status) for d in catalog.documents()}
    assert found == {
        ("file:///2.md", "searchable"),
        ("file:///3.md", "pending"),
        ("file:///9.md", "pending"),
    }
    catalog.replace_documents("handbook-000", [])
    assert [d.uri for d in catalog.documents()] == ["file:///9.md"]


def test_a_row_keeps_its_time_and_run_until_it_changes(catalog: Catalog) -> None:
    """Otherwise nobody could see which run changed a document."""
    later = NOW + timedelta(hours=1)
    catalog.replace_documents("handbook-000", [document(1), document(2)])
    catalog.replace_documents(
        "handbook-000",
        [
            document(1, updated_at=later, run_id="run-2"),
            document(2, updated_at=later, run_id="run-2", index_versions=("v1",)),
        ],
    )
    same, changed = catalog.documents()
    assert (same.updated_at, same.run_id) == (NOW, "run-1")
    assert (changed.updated_at, changed.run_id) == (later, "run-2")
    assert changed.first_seen_at == NOW


def test_a_document_moves_between_shards(catalog: Catalog) -> None:
    """Changing the number of shards moves documents, in any order of runs."""
    catalog.replace_documents("handbook-000", [document(1)])
    catalog.replace_documents("handbook-001", [document(1, source_shard="handbook-001")])
    catalog.replace_documents("handbook-000", [])
    assert [d.source_shard for d in catalog.documents()] == ["handbook-001"]


def test_a_row_of_another_shard_is_refused(catalog: Catalog) -> None:
    """It would be deleted by the next run of its own shard."""
    with pytest.raises(ValueError, match="not of shard 'handbook-001'"):
        catalog.replace_documents("handbook-001", [document(1)])


def test_text_that_postgresql_cannot_store_is_replaced(catalog: Catalog) -> None:
    """Titles come from documents, and hold anything."""
    catalog.replace_documents("handbook-000", [document(1, title="a\0b\ud800")])
    assert catalog.documents()[0].title == "a\ufffdb?"


def test_documents_are_filtered_counted_and_ordered(catalog: Catalog) -> None:
    """`status` and `why` ask these questions."""
    rows = [
        document(number, status="duplicate" if number % 2 else "pending") for number in range(5)
    ]
    catalog.replace_documents("handbook-000", list(reversed(rows)))
    catalog.replace_documents(
        "wiki-000", [document(7, source="wiki", source_shard="wiki-000", uri="file:///1.md")]
    )
    assert catalog.counts() == {"handbook": {"duplicate": 2, "pending": 3}, "wiki": {"pending": 1}}
    assert [d.uri for d in catalog.documents(source="handbook", status="duplicate")] == [
        "file:///1.md",
        "file:///3.md",
    ]
    assert [d.source for d in catalog.documents(uri="file:///1.md")] == ["handbook", "wiki"]
    assert len(catalog.documents(source_shard="handbook-000", limit=2)) == 2


def test_a_large_shard_fits_into_statements(catalog: Catalog) -> None:
    """Databases limit the parameters of a statement."""
    rows = [document(number) for number in range(12_000)]
    catalog.replace_documents("handbook-000", rows)
    catalog.replace_documents("handbook-000", rows[:1])
    assert catalog.counts() == {"handbook": {"pending": 1}}


def test_migrating_twice_changes_nothing(catalog: Catalog) -> None:
    """Every process migrates when it starts."""
    catalog.replace_documents("handbook-000", [document(1)])
    catalog.migrate()
    assert len(catalog.documents()) == 1


def test_the_migrations_build_the_schema_of_the_model(catalog: Catalog, url: str) -> None:
    """A column that is added to the model needs a migration."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = sa.create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
        revision = context.get_current_revision()
    engine.dispose()
    assert differences == []
    assert revision == "0001"


@pytest.mark.slow
def test_processes_that_migrate_at_once_all_succeed(url: str) -> None:
    """`ragassets ingest` and the Dagster daemon may start in the same second."""
    code = (
        "import sys; from ragassets.adapters.catalog import Catalog; Catalog(sys.argv[1]).migrate()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert errors == ["", "", ""]
    catalog = Catalog(url)
    assert catalog.counts() == {}
    catalog.close()


def test_writers_of_different_shards_do_not_disturb_each_other(catalog: Catalog, url: str) -> None:
    """SQLite has one writer at a time: the others must wait, not fail."""

    def write(shard: int) -> None:
        own = Catalog(url)
        for _ in range(5):
            name = f"handbook-{shard:03}"
            own.replace_documents(
                name, [document(shard * 100 + i, source_shard=name) for i in range(20)]
            )
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert catalog.counts() == {"handbook": {"pending": 80}}


def test_a_schema_from_the_future_is_a_configuration_error(catalog: Catalog, url: str) -> None:
    """An old release must not write into a catalog that it does not understand."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="does not know") as caught:
        catalog.migrate()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["user:hunter2", "mysql://user:hunter2@host/db", "postgresql+nodriver://user:hunter2@host/db"],
)
def test_a_wrong_url_is_a_configuration_error_without_its_password(url: str) -> None:
    """The message goes to logs and to the UI."""
    with pytest.raises(ConfigurationError) as caught:
        Catalog(url)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_away_is_unavailable_and_its_password_hidden() -> None:
    """Port 1 of loopback refuses connections."""
    pytest.importorskip("psycopg")
    with pytest.raises(StorageUnavailableError, match=r"user:\*\*\*@127\.0\.0\.1") as caught:
        Catalog("postgresql://user:hunter2@127.0.0.1:1/db").counts()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    """So is a folder that cannot be created."""
    (tmp_path / "catalog.db").write_text("not a database, but long enough to look at" * 50)
    with pytest.raises(StorageUnavailableError, match="not a database"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db").migrate()
    with pytest.raises(StorageUnavailableError, match="cannot be created"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db/below/catalog.db").migrate()


def test_sqlite_lets_readers_in_while_a_writer_works(tmp_path: Path) -> None:
    """Write-ahead logging: `ragassets status` answers during a run."""
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.migrate()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/catalog.db")
    with engine.connect() as writer:
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        assert catalog.counts() == {}
    engine.dispose()
    catalog.close()


def test_a_forgotten_document_leaves_no_byte_in_the_file(tmp_path: Path) -> None:
    """SQLite keeps deleted rows in free pages and in its log."""
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.migrate()
    rows = [document(number, title=f"zeppelin {number:03d}") for number in range(50)]
    catalog.replace_documents("handbook-000", rows)
    assert catalog.forget([rows[7].document_id]) == 1
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"zeppelin 007" not in content
    assert b"zeppelin 008" in content
    assert len(catalog.documents()) == 49
    assert catalog.forget([rows[7].document_id]) == 0
