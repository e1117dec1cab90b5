"""From a materialization in the UI to the partitions that it was made from."""

from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from ragassets.config import Config
from ragassets.defs.graph import build_definitions
from ragassets.defs.upstream_links import UpstreamLinks, partition_links

PAGE = "../assets/{}?view=partitions&partition={}".format


def links(job: str, asset: str, partition: str, **sections: object) -> list[str]:
    """What a partition of an asset links to in a run of a job, three shards in all."""
    config = Config.model_validate({"sources": {"a": {"uri": "./a", "shards": 3}}, **sections})
    context: Any = SimpleNamespace(
        job_def=build_definitions(config).resolve_job_def(job), asset_key=dg.AssetKey(asset)
    )
    return str(UpstreamLinks(context).of(partition).value).split(" · ")


def test_the_same_shard_of_the_asset_before() -> None:
    assert links("process_documents", "raw_documents", "a-002") == [
        rf"[source\_objects a-002]({PAGE('source_objects', 'a-002')})"
    ]


def test_the_chunking_of_an_embedding_set() -> None:
    """A bar separates the dimensions: in an address it is written as %7C."""
    assert links("embed_chunks", "embeddings", "recursive-256.minilm|a-001") == [
        rf"[chunks recursive-256\|a-001]({PAGE('chunks', 'recursive-256%7Ca-001')})"
    ]


def test_what_looks_at_all_partitions_links_to_the_asset() -> None:
    assert links("decide_duplicates", "unique_documents", "a-000") == [
        r"[\_document\_signatures](../assets/_document_signatures?view=partitions)",
        rf"[clean\_documents a-000]({PAGE('clean_documents', 'a-000')})",
    ]


def test_every_shard_of_an_index_version() -> None:
    assert links("seal_index_versions", "index_versions", "v1") == [
        rf"[indexed\_chunks v1\|a-00{n}]({PAGE('indexed_chunks', f'v1%7Ca-00{n}')})"
        for n in range(3)
    ]


@pytest.mark.parametrize(("n_shards", "n_links"), [(3, 3), (4, 1)])
def test_too_many_partitions_are_one_link(n_shards: int, n_links: int) -> None:
    """A thousand links are no help, and the UI folds them away."""
    keys = [f"a-{number:03d}" for number in range(n_shards)]
    shown = str(partition_links({"chunks": keys}).value)
    assert len(shown.split(" · ")) == n_links
    assert "](../assets/chunks?view=partitions" in shown


def test_the_dead_letters_of_a_shard_come_from_all_stages_unfolded() -> None:
    """The UI folds Markdown of a thousand characters and more."""
    shown = links("update_catalog", "dead_letters", "a-000")
    assert [link[1:].split(" ")[0] for link in shown] == [
        "chunks",
        r"clean\_documents",
        "embeddings",
        r"indexed\_chunks",
        r"parsed\_documents",
        r"raw\_documents",
        r"unique\_documents",
        r"valid\_documents",
    ]
    assert len(" · ".join(shown)) < 1000


def test_an_alias_that_points_nowhere_has_no_links() -> None:
    assert partition_links({}).value == "_nothing yet_"
