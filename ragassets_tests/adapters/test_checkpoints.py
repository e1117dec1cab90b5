"""Finished rows of a stage that was killed before its commit."""

from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.checkpoints import ObjectCheckpoints


def rows(shard: str, *keys: str) -> pl.DataFrame:
    """Rows of one shard."""
    return pl.DataFrame({"key": list(keys), "source_shard": [shard] * len(keys)})


@pytest.fixture
def checkpoints(tmp_path: Path) -> ObjectCheckpoints:
    """Checkpoints below a new root."""
    return ObjectCheckpoints(str(tmp_path / "root"))


def test_what_was_appended_is_loaded_by_the_next_run(
    checkpoints: ObjectCheckpoints, tmp_path: Path
) -> None:
    """The next run is another process."""
    assert checkpoints.load("embeddings/a.b") is None
    checkpoints.append("embeddings/a.b", rows("docs-000", "1", "2"))
    checkpoints.append("embeddings/a.b", rows("docs-001", "3"))
    loaded = ObjectCheckpoints(str(tmp_path / "root")).load("embeddings/a.b")
    assert loaded is not None
    assert sorted(loaded["key"]) == ["1", "2", "3"]


def test_names_do_not_mix(checkpoints: ObjectCheckpoints) -> None:
    """`a` is not a prefix of `a.b`, nor a stage of its sets."""
    checkpoints.append("embeddings/a", rows("docs-000", "1"))
    assert checkpoints.load("embeddings/a.b") is None
    assert checkpoints.load("embeddings/ab") is None


def test_clearing_forgets_the_shards_that_were_committed_only(
    checkpoints: ObjectCheckpoints,
) -> None:
    """Another run may be at work on the other shards of the same stage."""
    checkpoints.append("chunks/a", rows("docs-000", "1"))
    checkpoints.append("chunks/a", rows("docs-001", "2"))
    checkpoints.append("chunks/a", pl.concat([rows("docs-000", "3"), rows("docs-002", "4")]))
    checkpoints.clear("chunks/a", ["docs-000"])
    loaded = checkpoints.load("chunks/a")
    assert loaded is not None
    assert sorted(loaded["key"]) == ["2", "3", "4"]
    checkpoints.clear("chunks/a", ["docs-000", "docs-001", "docs-002"])
    assert checkpoints.load("chunks/a") is None


def test_a_part_that_another_run_clears_meanwhile_is_no_error(
    checkpoints: ObjectCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing and reading a part may go: its rows are committed then."""
    checkpoints.append("chunks/a", rows("docs-000", "1"))
    paths = checkpoints._paths("chunks/a")
    monkeypatch.setattr(checkpoints, "_paths", lambda _: [*paths, "checkpoints/chunks/a/x.parquet"])
    loaded = checkpoints.load("chunks/a")
    assert loaded is not None
    assert loaded["key"].to_list() == ["1"]
    checkpoints.clear("chunks/a", ["docs-000"])


def test_parts_of_two_releases_are_loaded_together(checkpoints: ObjectCheckpoints) -> None:
    """A run that was killed before an update, and one after it, left other columns."""
    checkpoints.append("chunks/a", rows("docs-000", "1"))
    checkpoints.append("chunks/a", rows("docs-000", "2").with_columns(since=pl.lit("0.2")))
    loaded = checkpoints.load("chunks/a")
    assert loaded is not None
    assert sorted(loaded.rows(), key=repr) == [("1", "docs-000", None), ("2", "docs-000", "0.2")]
