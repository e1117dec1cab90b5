"""The assets on a small project: what Dagster holds after they ran."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from ragassets.defs.events import CODE_VERSION_TAG
from ragassets.defs.graph import build_definitions
from ragassets_tests.defs.test_dagster_behaviour import data_version, materializations
from ragassets_tests.scenario import CLEAN, MIXED, Project, fake_embedder

SHARDS = [f"handbook-{number:03d}" for number in range(4)]

PARTITIONED = {
    "raw_documents": SHARDS,
    "parsed_documents": SHARDS,
    "valid_documents": SHARDS,
    "clean_documents": SHARDS,
    "_document_signatures": SHARDS,
    "unique_documents": SHARDS,
    "chunks": [f"recursive-256|{shard}" for shard in SHARDS],
    "embeddings": [f"recursive-256.minilm|{shard}" for shard in SHARDS],
    "indexed_chunks": [f"v1|{shard}" for shard in SHARDS],
    "index_versions": ["v1"],
    "dead_letters": SHARDS,
    "document_catalog": SHARDS,
}

STAGES = tuple(PARTITIONED)[:9]


@pytest.fixture(scope="module")
def embedder() -> Iterator[None]:
    """Hash vectors: nothing here is about meaning."""
    with fake_embedder():
        yield


@pytest.fixture(scope="module")
def ingested(
    tmp_path_factory: pytest.TempPathFactory, embedder: None
) -> Iterator[tuple[Project, DagsterInstance]]:
    """The mixed corpus, ingested once; the tests only look."""
    project = Project(tmp_path_factory.mktemp("project"), MIXED)
    with DagsterInstance.ephemeral() as instance:
        project.ingest(instance=instance)
        yield project, instance


@pytest.fixture
def project(tmp_path: Path, embedder: None) -> Project:
    """A project of its own for a test that changes it."""
    return Project(tmp_path, CLEAN)


def latest(instance: DagsterInstance, asset: str) -> dict[str | None, dg.AssetMaterialization]:
    """The newest event of every partition."""
    return {key: events[0] for key, events in materializations(instance, asset).items()}


def number(value: dg.MetadataValue[Any]) -> int:
    """A whole number of an event's metadata."""
    assert isinstance(value, dg.IntMetadataValue)
    assert value.value is not None
    return value.value


def data_versions(instance: DagsterInstance, asset: str) -> dict[str | None, str]:
    """The newest data version of every partition."""
    return {key: data_version(event) for key, event in latest(instance, asset).items()}


def launch(project: Project, instance: DagsterInstance, job: str, partition: str) -> None:
    """A run of one partition, as the UI launches it."""
    result = (
        build_definitions(project.config)
        .resolve_job_def(job)
        .execute_in_process(instance=instance, partition_key=partition)
    )
    assert result.success


def test_every_partition_has_one_event_of_its_own(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """A range of partitions in one run must look in the UI like as many runs."""
    _, instance = ingested

    for asset, keys in PARTITIONED.items():
        found = materializations(instance, asset)
        assert sorted(map(str, found)) == sorted(keys), asset
        assert {len(events) for events in found.values()} == {1}, asset


def test_partitions_with_other_content_have_other_data_versions(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """A shared data version would wake everything downstream of one changed shard."""
    project, instance = ingested
    empty = set(SHARDS) - _shards_in_use(project)

    for asset in STAGES:
        versions = data_versions(instance, asset)
        used = [v for key, v in versions.items() if str(key).rpartition("|")[2] not in empty]
        assert len(set(used)) == len(used), asset


def _shards_in_use(project: Project) -> set[str]:
    from ragassets.core.asset_tables import CHUNKS

    return set(project.rows(CHUNKS.outputs)["source_shard"])


def test_a_stage_tells_counts_totals_seconds_table_and_rows(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """What a person wants to see of a partition in the UI."""
    project, instance = ingested

    for asset in STAGES:
        for event in latest(instance, asset).values():
            values: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
            assert event.tags is not None
            second = asset in {"chunks", "indexed_chunks"}
            assert event.tags[CODE_VERSION_TAG] == ("2" if second else "1")
            assert values["n_inputs"] == (
                values["n_computed"] + values["n_reused"] + values["n_newly_failed"]
            )
            assert values["n_removed"] == 0
            assert values["dagster/row_count"] >= values["n_computed"]
            assert values["seconds"] >= 0
            assert values["n_partitions_together"] == 4
            assert values["table"] == f"{project.config.root}/tables/{asset}"
            assert (values["dagster/row_count"] == 0) == (values["preview"] == "_no rows_")


def test_a_stage_tells_bytes_tokens_and_the_settings_that_made_it(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """Cost and provenance, without opening the table or the configuration."""
    _, instance = ingested

    def total(asset: str, name: str) -> int:
        return sum(number(e.metadata[name]) for e in latest(instance, asset).values())

    n_bytes = sum(len(c.encode() if isinstance(c, str) else c) for c in MIXED.values())
    assert total("raw_documents", "n_bytes") == n_bytes
    assert total("chunks", "n_tokens") > 100
    chunks = latest(instance, "chunks")["recursive-256|handbook-000"].metadata
    assert (chunks["strategy"].value, chunks["max_tokens"].value) == ("recursive", 256)
    embeddings = latest(instance, "embeddings")["recursive-256.minilm|handbook-000"].metadata
    assert (embeddings["model"].value, embeddings["dim"].value) == ("all-MiniLM-L6-v2", 384)
    indexed = latest(instance, "indexed_chunks")["v1|handbook-000"].metadata
    assert (indexed["distance"].value, indexed["sparse"].value) == ("cosine", "bm25")


def test_every_partition_links_to_the_partitions_that_it_was_made_from(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """From a bad chunk to the page that its document was read from, click by click."""
    _, instance = ingested

    def links(asset: str, partition: str | None) -> list[str]:
        text = str(latest(instance, asset)[partition].metadata["made_from"].value)
        return text.split(" · ")

    page = "../assets/{}?view=partitions&partition={}".format
    assert links("raw_documents", "handbook-002") == [
        rf"[source\_objects handbook-002]({page('source_objects', 'handbook-002')})"
    ]
    assert links("unique_documents", "handbook-002") == [
        r"[\_document\_signatures](../assets/_document_signatures?view=partitions)",
        rf"[clean\_documents handbook-002]({page('clean_documents', 'handbook-002')})",
    ]
    assert links("embeddings", "recursive-256.minilm|handbook-001") == [
        rf"[chunks recursive-256\|handbook-001]({page('chunks', 'recursive-256%7Chandbook-001')})"
    ]
    # Of four shards, hence too many links.
    assert links("index_versions", "v1") == [
        r"[indexed\_chunks](../assets/indexed_chunks?view=partitions)"
    ]
    assert links("live_index", None) == [rf"[index\_versions v1]({page('index_versions', 'v1')})"]
    assert len(links("dead_letters", "handbook-000")) == 8


def test_what_failed_is_shown_where_it_failed(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """A red number without a name sends people to the logs."""
    _, instance = ingested
    shown = "\n".join(
        str(event.metadata["failures"].value)
        for asset in ("raw_documents", "parsed_documents", "valid_documents")
        for event in latest(instance, asset).values()
        if "failures" in event.metadata
    )
    letters = latest(instance, "dead_letters").values()

    assert "broken.pdf" in shown
    assert "empty.txt" in shown
    assert sum(number(event.metadata["dagster/row_count"]) for event in letters) == 2
    assert "broken.pdf" in "\n".join(str(event.metadata["preview"].value) for event in letters)


def test_the_version_the_alias_and_the_catalog_say_where_they_stand(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """The end of the graph is what people look at first."""
    _, instance = ingested
    version = latest(instance, "index_versions")["v1"].metadata
    alias = latest(instance, "live_index")[None].metadata
    catalog = latest(instance, "document_catalog").values()

    assert version["state"].value == "sealed"
    assert number(version["n_points"]) == number(version["n_chunks"]) > 0
    assert alias["alias documents"].value == "v1"
    assert sum(number(event.metadata["n_documents"]) for event in catalog) == len(MIXED)


def test_an_observation_tells_what_the_listing_found(
    ingested: tuple[Project, DagsterInstance],
) -> None:
    """`source_objects` has observations only; its numbers and problems stand there."""
    _, instance = ingested
    records = instance.fetch_observations(dg.AssetKey("source_objects"), limit=100).records
    observed = {record.partition_key: record.asset_observation for record in records}

    assert sorted(map(str, observed)) == SHARDS
    assert len(records) == 4
    for observation in observed.values():
        assert observation is not None
        assert observation.metadata["n_new"].value == len(MIXED)
        assert observation.metadata["problem"].value == "none"


def test_an_unchanged_partition_keeps_its_data_version_alone_and_in_a_range(
    project: Project,
) -> None:
    """Downstream automation stays quiet when nothing changed, however the run was launched."""
    with DagsterInstance.ephemeral() as instance:
        project.ingest(instance=instance)
        first = {asset: data_versions(instance, asset) for asset in PARTITIONED}
        project.ingest(instance=instance)
        in_a_range = {asset: data_versions(instance, asset) for asset in PARTITIONED}
        for job, partition in (
            ("process_documents", "handbook-001"),
            ("decide_duplicates", "handbook-001"),
            ("chunk_documents", "recursive-256|handbook-001"),
            ("embed_chunks", "recursive-256.minilm|handbook-001"),
            ("index_chunks", "v1|handbook-001"),
            ("seal_index_versions", "v1"),
            ("update_catalog", "handbook-001"),
        ):
            launch(project, instance, job, partition)
        alone = {asset: data_versions(instance, asset) for asset in PARTITIONED}
        n_events = {key: len(e) for key, e in materializations(instance, "chunks").items()}

    assert in_a_range == first
    assert alone == first
    assert n_events == {
        key: 3 if key == "recursive-256|handbook-001" else 2 for key in PARTITIONED["chunks"]
    }


def test_an_edit_changes_the_data_versions_of_its_own_shard_only(project: Project) -> None:
    """The other shards' downstream partitions have nothing to do."""
    with DagsterInstance.ephemeral() as instance:
        project.ingest(instance=instance)
        before = {asset: data_versions(instance, asset) for asset in STAGES}
        project.edit("kitchen.txt", "every Friday", "every Monday")
        project.ingest(instance=instance)
        after = {asset: data_versions(instance, asset) for asset in STAGES}

    changed = {
        asset: {
            str(key).rpartition("|")[2]
            for key, version in before[asset].items()
            if version != after[asset][key]
        }
        for asset in STAGES
    }
    (shard,) = changed["raw_documents"]
    # The language is the same, and which documents are duplicates is decided as before.
    quiet = {"valid_documents", "unique_documents"}
    assert changed == {asset: set() if asset in quiet else {shard} for asset in STAGES}
