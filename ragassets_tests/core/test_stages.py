"""Stages run again compute what changed and what is due, and keep what still holds."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ragassets.core.stages import RunContext, Stage, run_stage
from ragassets.errors import StageError
from ragassets_tests.core.stage_world import (
    CHUNKS,
    DOCUMENTS,
    MAX_ATTEMPTS,
    SHARDS,
    STAGES,
    VECTORS,
    World,
    world_of,
)


def test_a_changed_fingerprint_recomputes_its_stage_and_only_what_changed_content_reaches() -> None:
    """A new code version that makes the same text must cost no embedding."""
    world = world_of("a b", "c", "d a")
    before = {stage.name: world.versions(stage) for stage in STAGES}
    world.fingerprints["chunks"] = "v2"
    world.run(DOCUMENTS)
    assert world.calls == []
    world.run(CHUNKS)
    assert world.calls == ["d0", "d1", "d2"]
    world.run(VECTORS)
    assert world.calls == []
    assert {stage.name: world.versions(stage) for stage in STAGES} == before

    world.fingerprints["documents"], world.flavours["documents"] = "v2", " b"
    world.run(DOCUMENTS)
    assert world.calls == ["d0", "d1", "d2"]
    world.run(CHUNKS)
    assert world.calls == ["d0", "d1", "d2"]
    world.run(VECTORS)
    assert world.calls == ["d0-b-2", "d1-b-1", "d2-b-2"]


def test_one_edited_paragraph_computes_one_vector_and_a_shrunk_document_leaves_no_orphan() -> None:
    """Cost follows change, and no row of a longer past stays searchable."""
    world = world_of("a b c", "a b")
    world.documents["d0"] = "a d"
    world.run_all()
    assert world.calls == ["d0-d-1"]
    assert world.run(VECTORS)["s-0"].n_rows == 2
    assert sorted(world.state(VECTORS).outputs["chunk_id"]) == [
        "d0-a-0",
        "d0-d-1",
        "d1-a-0",
        "d1-b-1",
    ]


def test_a_transient_failure_is_tried_again_up_to_the_limit_and_then_parked() -> None:
    """For ever trying costs money; giving up at once loses documents to a short outage."""
    world = World({"d0": "a", "d1": "b"}, down={("documents", "a")})
    tried: list[int] = []
    for _ in range(5):
        world.run(DOCUMENTS)
        tried.append(len(world.calls))
    assert tried == [2, 1, 1, 0, 0]
    row = world.state(DOCUMENTS).failures.row(0, named=True)
    assert (row["attempts"], row["is_transient"], row["error_reason"]) == (
        3,
        True,
        "source_unavailable",
    )
    assert (row["first_failed_at"].hour, row["last_failed_at"].hour) == (1, 3)
    assert row["failed_run_id"] == "run-3"
    world.down.clear()
    world.run(DOCUMENTS)
    assert world.calls == []
    world.run(DOCUMENTS, redriven=["d0"])
    assert world.calls == ["d0"]
    assert world.state(DOCUMENTS).failures.is_empty()


def test_a_poison_document_is_not_tried_again_until_input_fingerprint_or_redrive() -> None:
    """A file that kills its parser must not be parsed every few minutes for ever."""
    world = world_of("D", "a")
    world.run(DOCUMENTS)
    assert world.calls == []
    world.run(DOCUMENTS, redriven=["d0", "d1", "unknown"])
    assert world.calls == ["d0"]
    assert world.state(DOCUMENTS).failures["attempts"].to_list() == [2]
    world.fingerprints["documents"] = "v2"
    world.run(DOCUMENTS)
    assert world.calls == ["d0", "d1"]
    assert world.state(DOCUMENTS).failures["attempts"].to_list() == [1]
    world.documents["d0"] = "D D"
    world.run(DOCUMENTS)
    assert world.calls == ["d0"]


def test_an_edit_taken_back_clears_the_failure_without_computing() -> None:
    """The old output is of the input of now again; a dead letter for it would be a lie."""
    world = world_of("a")
    world.documents["d0"], world.down = "b", {("documents", "b")}
    world.run(DOCUMENTS)
    assert world.state(DOCUMENTS).failures.height == 1
    world.documents["d0"] = "a"
    world.run(DOCUMENTS)
    assert world.calls == []
    assert world.state(DOCUMENTS).failures.is_empty()


def test_old_vectors_of_a_document_stay_while_one_of_its_new_ones_fails_transiently() -> None:
    """Half a document in the index is worse than yesterday's whole one."""
    world = world_of("a b c")
    world.documents["d0"], world.down = "a d V", {("vectors", "d")}
    world.run_all()
    standing = set(world.state(VECTORS).outputs["chunk_id"])
    assert standing == {"d0-a-0", "d0-b-1", "d0-c-2"}
    for _ in range(MAX_ATTEMPTS):
        world.run(VECTORS)
    n_commits = world.tables.n_commits
    assert world.run(VECTORS)["s-0"].n_removed == 0
    assert world.tables.n_commits == n_commits, "a parked failure must not cost a commit a run"
    world.settle()
    assert set(world.state(VECTORS).outputs["chunk_id"]) == {"d0-a-0", "d0-d-1"}


def test_old_rows_that_failed_for_good_stay_until_their_group_is_whole_again() -> None:
    """The permanent failure of one chunk is no reason to tear a hole into a pending document."""
    world = world_of("a b")
    world.fingerprints["vectors"], world.down = "v2", {("vectors", "b")}
    make = world.make

    def refuse_a(stage: Stage, row: dict[str, str]) -> Sequence[Mapping[str, object]]:
        if stage is VECTORS and row["text"] == "a":
            raise StageError(stage="vectors", subject=row["chunk_id"], detail="refused")
        return make(stage, row)

    world.make = refuse_a
    world.run(VECTORS)
    assert sorted(world.state(VECTORS).outputs["chunk_id"]) == ["d0-a-0", "d0-b-1"]
    world.down.clear()
    world.run(VECTORS)
    assert world.state(VECTORS).outputs["chunk_id"].to_list() == ["d0-b-1"]


def test_documents_that_move_to_other_shards_are_found_there_once() -> None:
    """`shards: 3` becomes 2: rows left in the old shard would be read twice or never."""
    world = world_of("a", "b", "a c", "d", "D", "V a")
    world.n_shards = 2
    world.run_all()
    assert world.content() == world.fresh().content()
    assert world.state(DOCUMENTS, ["s-2"]).outputs.is_empty()
    world.n_shards = 3
    for stage in STAGES:
        for shard in SHARDS:
            world.run(stage, [shard])
    assert world.content() == world.fresh().content()


def test_nothing_to_do_writes_nothing() -> None:
    """Not even an empty table: no partition, no input, no commit."""
    world = World()
    world.run_all()
    assert world.tables.tables() == []
    context = RunContext("r", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    inputs = world.inputs(DOCUMENTS)
    assert (
        run_stage(DOCUMENTS, [], inputs, lambda _: [], tables=world.tables, context=context) == {}
    )


def test_a_failing_retry_writes_the_failures_and_leaves_the_outputs_table_alone() -> None:
    """Rewriting a partition of vectors because one endpoint is down would be waste."""
    world = world_of("a b")
    world.documents["d0"], world.down = "a b c", {("vectors", "c")}
    world.run_all()
    version = world.tables.snapshot(VECTORS.outputs).version
    world.run(VECTORS)
    assert world.calls == ["d0-c-2"]
    assert world.tables.snapshot(VECTORS.outputs).version == version
    assert world.state(VECTORS).failures["attempts"].to_list() == [2]
