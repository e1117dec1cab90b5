"""Stages that are killed or overtaken: what they finished counts, and nothing is lost."""

import polars as pl
import pytest

from ragassets.errors import ConcurrentWriteError
from ragassets_tests.core.stage_world import (
    CHUNKS,
    DOCUMENTS,
    InMemoryCheckpoints,
    KilledError,
    World,
    kill,
    world_of,
)


def test_a_crash_between_the_commits_of_failures_and_outputs_leaves_no_old_output() -> None:
    """The failure is recorded, the old chunks still stand: the next run must notice."""
    world = world_of("a b")
    world.documents["d0"] = "C"
    world.run(DOCUMENTS)
    world.tables.interrupt(1, kill)
    with pytest.raises(KilledError):
        world.run(CHUNKS)
    assert world.state(CHUNKS).outputs.height == 2
    assert world.state(CHUNKS).failures.height == 1
    world.run(CHUNKS)
    assert world.calls == []
    assert world.state(CHUNKS).outputs.is_empty()


def test_a_dead_letter_is_dropped_when_a_rival_made_the_output_from_the_same_input() -> None:
    """Failures of one run beside outputs of another: what was made counts."""
    world = world_of("a")
    world.documents["d0"], world.down = "b", {("chunks", "b")}
    world.run(DOCUMENTS)

    def rival() -> None:
        world.down.clear()
        snapshot = world.tables.snapshot(CHUNKS.failures)
        world.tables.replace(snapshot, world.partitions(CHUNKS), CHUNKS.failures.empty_frame())
        world.run(CHUNKS, is_checked=False)

    failed_first = world.tables.n_commits
    world.run(CHUNKS)
    assert world.tables.n_commits == failed_first + 1, "outputs did not change"
    failures = world.state(CHUNKS).failures
    rival()
    snapshot = world.tables.snapshot(CHUNKS.failures)
    world.tables.replace(snapshot, world.partitions(CHUNKS), failures)
    world.run(CHUNKS)
    assert world.calls == []
    assert world.state(CHUNKS).failures.is_empty()
    assert world.state(CHUNKS).outputs["text"].to_list() == ["b"]


def test_a_stale_writer_loses_and_leaves_the_winner_alone() -> None:
    """Two runs of one partition: the later commit would bring back what the first one removed."""
    world = world_of("a")
    world.documents["d0"] = "b"

    def rival() -> None:
        world.documents["d0"] = "c"
        world.run(DOCUMENTS, is_checked=False)

    world.tables.interrupt(0, rival)
    with pytest.raises(ConcurrentWriteError):
        world.run(DOCUMENTS)
    assert world.state(DOCUMENTS).outputs["text"].to_list() == ["c"]
    world.run_all()
    assert world.content() == world.fresh().content()


@pytest.mark.parametrize("n_outcomes", [0, 1, 2, 3])
def test_a_killed_stage_resumes_from_its_checkpoint_and_clears_it(n_outcomes: int) -> None:
    """An hour of embedding must not be done twice; texts that repeat must not lose a row."""
    world = World({"d0": "a a", "d1": "b", "d2": "c C", "d3": "d d d"})
    world.checkpoints = InMemoryCheckpoints()
    world.run(DOCUMENTS)
    with pytest.raises(KilledError):
        world.run(CHUNKS, batch_size=1, die_after=n_outcomes)
    finished = {"d0", "d1", "d3"} & {f"d{number}" for number in range(n_outcomes)}
    reports = world.run(CHUNKS, batch_size=3)
    assert set(world.calls) == {"d0", "d1", "d2", "d3"} - finished
    assert sum(report.n_computed for report in reports.values()) == 3
    assert world.checkpoints.load("chunks/words") is None
    assert sorted(world.state(CHUNKS).outputs["chunk_id"]) == [
        "d0-a-0", "d0-a-1", "d1-b-0", "d3-d-0", "d3-d-1", "d3-d-2",
    ]  # fmt: skip


def test_a_checkpoint_of_another_input_is_ignored() -> None:
    """The document was edited while the run was dead."""
    world = World({"d0": "a", "d1": "b"}, checkpoints=InMemoryCheckpoints())
    with pytest.raises(KilledError):
        world.run(DOCUMENTS, batch_size=1, die_after=1)
    world.documents["d0"] = "c"
    world.run(DOCUMENTS)
    assert world.calls == ["d0", "d1"]
    assert sorted(world.state(DOCUMENTS).outputs["text"]) == ["b", "c"]


def test_a_checkpoint_that_two_runs_filled_gives_each_row_once() -> None:
    """Two runs of the same shard may both die; the rows of one of them are enough."""
    world = World({"d0": "a a"}, checkpoints=InMemoryCheckpoints())
    world.run(DOCUMENTS)
    checkpoints = world.checkpoints
    assert checkpoints is not None
    world.tables.interrupt(0, kill)
    with pytest.raises(KilledError):
        world.run(CHUNKS)
    (part,) = checkpoints.parts["chunks/words"]
    checkpoints.append("chunks/words", part.with_columns(pl.lit("other run").alias("run_id")))
    world.run(CHUNKS)
    assert world.calls == []
    assert sorted(world.state(CHUNKS).outputs["chunk_id"]) == ["d0-a-0", "d0-a-1"]


def test_a_checkpoint_of_an_older_version_with_other_columns_is_ignored() -> None:
    """An upgrade between crash and restart must not leave a stage that cannot start."""
    world = World({"d0": "a"}, checkpoints=InMemoryCheckpoints())
    assert world.checkpoints is not None
    world.checkpoints.append(
        "documents", pl.DataFrame({"document_id": ["d0"], "source_shard": "s-0", "input_hash": "x"})
    )
    world.run(DOCUMENTS)
    assert world.calls == ["d0"]
