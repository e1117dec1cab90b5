"""Each check once passing, once failing."""

import dagster as dg
import pytest

from ragassets.core.asset_tables import DEAD_LETTERS, INDEX_VERSIONS, SOURCE_OBJECTS
from ragassets.core.tables import TableSpec
from ragassets.defs.checks import index_versions_are_sealed, most_documents_are_readable
from ragassets_tests.fakes import InMemoryTables


class FakeResource:
    """A workspace that has tables only."""

    def __init__(self) -> None:
        """Start empty."""
        self.tables = InMemoryTables()

    @property
    def workspace(self) -> "FakeResource":
        """Itself: what the checks open."""
        return self

    def put(self, spec: TableSpec, rows: list[dict[str, object]]) -> None:
        """Fill a table; columns that are not given are null."""
        import polars as pl

        frame = pl.DataFrame(
            [{name: row.get(name) for name in spec.schema} for row in rows], schema=spec.schema
        )
        partitions = [
            dict(zip(spec.partition_by, key, strict=True))
            for key in {tuple(str(row[c]) for c in spec.partition_by) for row in rows}
        ]
        self.tables.replace(self.tables.snapshot(spec), partitions, frame)


@pytest.fixture
def resource() -> FakeResource:
    """An empty workspace."""
    return FakeResource()


def version(name: str, state: str, problems: list[str]) -> dict[str, object]:
    return {
        "index_version": name,
        "state": state,
        "n_chunks": 3,
        "n_points": 3,
        "problems": problems,
    }


def test_sealed_versions_pass(resource: FakeResource) -> None:
    """Every built version may be served."""
    resource.put(INDEX_VERSIONS, [version("v1", "sealed", [])])

    result = index_versions_are_sealed(resource)

    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed
    assert result.metadata["n_incomplete"].value == 0


def test_an_incomplete_version_fails_and_says_why(resource: FakeResource) -> None:
    """It cannot be promoted; somebody has to look."""
    resource.put(
        INDEX_VERSIONS,
        [version("v1", "sealed", []), version("v2", "incomplete", ["2 chunks have no point"])],
    )

    result = index_versions_are_sealed(resource)

    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert result.metadata["n_incomplete"].value == 1
    assert "2 chunks have no point" in str(result.metadata["versions"].value)


def objects(source: str, n_objects: int) -> list[dict[str, object]]:
    return [
        {
            "document_id": f"{source}-{number}",
            "source": source,
            "source_shard": f"{source}-000",
            "is_deleted": False,
        }
        for number in range(n_objects)
    ]


def letters(source: str, n_documents: int) -> list[dict[str, object]]:
    """Two dead letters a document: it counts once."""
    return [
        {
            "dead_letter_id": f"{source}-{number}-{stage}",
            "document_id": f"{source}-{number}",
            "source": source,
            "source_shard": f"{source}-000",
        }
        for number in range(n_documents)
        for stage in ("chunks", "embeddings")
    ]


def test_a_source_with_half_of_its_documents_readable_passes(resource: FakeResource) -> None:
    """Some files of every folder are no documents."""
    resource.put(SOURCE_OBJECTS, objects("handbook", 4))
    resource.put(DEAD_LETTERS, letters("handbook", 2))

    result = most_documents_are_readable(resource)

    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed


def test_a_source_that_is_mostly_dead_letters_warns(resource: FakeResource) -> None:
    """A healthy second source does not hide it."""
    resource.put(SOURCE_OBJECTS, [*objects("handbook", 4), *objects("wiki", 100)])
    resource.put(DEAD_LETTERS, letters("handbook", 3))

    result = most_documents_are_readable(resource)

    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert "| handbook | 4 | 3 |" in str(result.metadata["sources"].value)
