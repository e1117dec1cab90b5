"""What the engine asks of a stage, and what it writes before and after it."""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pytest

from ragassets.core.incremental import Failure, StageState
from ragassets.core.outcomes import outcomes_in_batches
from ragassets.core.stages import Outcome, RunContext, Stage, run_stage
from ragassets.errors import ServiceError, StageError
from ragassets_tests.core.stage_world import CHUNKS, DOCUMENTS
from ragassets_tests.fakes import InMemoryTables


def test_an_inline_stage_of_several_rows_a_key_keeps_one_failure() -> None:
    """Each old row carries the failure's columns; read back they must not multiply."""
    stage = Stage("parts", CHUNKS.content, "document_id", CHUNKS.identity, CHUNKS.partition_by)
    partitions = [{"source_shard": "s", "chunking": "c"}]
    tables, flaky = InMemoryTables(), Failure("d", "service", "r", "E", "m", "t", is_transient=True)
    row = {"document_id": "d", "source_shard": "s", "chunking": "c", "output_hash": "o"}
    rows = [row | {"chunk_id": str(number), "text": ""} for number in range(3)]
    for attempt_number, result in enumerate((rows, flaky, flaky, rows[:1])):
        inputs = pl.DataFrame([row]).drop("output_hash")
        report = run_stage(
            stage,
            partitions,
            inputs.with_columns(input_hash=pl.lit("new" if attempt_number else "old")),
            lambda _keys, result=result: outcomes_in_batches([("d", result)], stage, batch_size=1),
            tables=tables,
            context=RunContext("r", lambda: datetime(2026, 1, 1, tzinfo=UTC)),
        )["s"]
        table = tables.read(stage.outputs)
        assert table.height == report.n_rows == (3 if attempt_number < 3 else 1)
        assert report.n_failed == (attempt_number in {1, 2})
        assert set(table["attempts"]) == {attempt_number or None if attempt_number < 3 else None}


def outcome_of(*keys: str, failed: Sequence[str] = (), shard: str = "s-0") -> Outcome:
    """Rows and failures of DOCUMENTS."""
    rows = [(key, shard, "text", "hash") for key in keys]
    frame = pl.DataFrame(
        rows, schema=["document_id", "source_shard", "text", "output_hash"], orient="row"
    )
    return Outcome(
        frame, [Failure(key, "stage", "r", "E", "m", "t", is_transient=False) for key in failed]
    )


@pytest.mark.parametrize(
    "outcomes",
    [
        [outcome_of("d0")],
        [outcome_of("d0", "d1"), outcome_of("d1")],
        [outcome_of("d0", failed=["d0"]), outcome_of("d1")],
        [outcome_of("d0", failed=["d1", "d1"])],
        [outcome_of("d0", "d1", "other")],
        [outcome_of("d0", "d1", shard="s-1")],
        [Outcome(outcome_of("d0", "d1").rows.with_columns(output_hash=pl.lit(None, pl.String)))],
    ],
    ids=["none", "twice", "both", "failed-twice", "not-asked", "other-shard", "no-hash"],
)
def test_a_stage_that_breaks_its_contract_is_refused_before_anything_is_written(
    outcomes: list[Outcome],
) -> None:
    """A forgotten key is a lost document; a key settled twice is a corrupt table."""
    tables = InMemoryTables()
    inputs = pl.DataFrame(
        {"document_id": ["d0", "d1"], "source_shard": "s-0", "input_hash": ["h0", "h1"]}
    )
    with pytest.raises(StageError):
        run_stage(
            DOCUMENTS,
            [{"source_shard": "s-0"}, {"source_shard": "s-1"}],
            inputs,
            lambda _keys: outcomes,
            tables=tables,
            context=RunContext("r", lambda: datetime(2026, 1, 1, tzinfo=UTC)),
        )
    assert tables.tables() == []


def test_an_input_given_twice_is_refused() -> None:
    """It would have two input hashes and be computed in every run."""
    inputs = pl.DataFrame(
        {"document_id": ["d", "d"], "source_shard": "s", "input_hash": ["1", "2"]}
    )
    context = RunContext("r", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(StageError, match="twice"):
        run_stage(
            DOCUMENTS, [{"source_shard": "s"}], inputs, lambda _: [], tables=InMemoryTables(),
            context=context,
        )  # fmt: skip


def test_effects_before_the_commit_see_old_and_new_and_stop_it_when_they_fail() -> None:
    """Points are deleted there: when that fails, the table must still name them."""
    tables, seen = InMemoryTables(), []

    def run(input_hash: str, *, fails: bool) -> None:
        def before_commit(old: StageState, new: StageState) -> None:
            seen.append((old.outputs.height, new.outputs.height))
            if fails:
                raise ServiceError(service="store", detail="down")

        inputs = pl.DataFrame(
            {"document_id": ["d"], "source_shard": "s-0", "input_hash": [input_hash]}
        )
        run_stage(
            DOCUMENTS, [{"source_shard": "s-0"}], inputs, lambda _: [outcome_of("d")],
            tables=tables, context=RunContext("r", lambda: datetime(2026, 1, 1, tzinfo=UTC)),
            before_commit=before_commit,
        )  # fmt: skip

    run("1", fails=False)
    with pytest.raises(ServiceError):
        run("2", fails=True)
    assert tables.read(DOCUMENTS.outputs)["input_hash"].to_list() == ["1"]
    run("2", fails=False)
    run("2", fails=True)
    assert seen == [(0, 1), (1, 1), (1, 1)]
