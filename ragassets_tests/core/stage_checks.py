"""What every single run of a stage must hold, whatever happened before it."""

import polars as pl

from ragassets.core.incremental import StageState
from ragassets.core.stages import Stage, StageReport


def check_attempts(stage: Stage, before: StageState, after: StageState) -> None:
    """Attempts count runs on the same input; the first time stays."""
    assert after.failures[stage.key].is_unique().all()
    earlier = {row[stage.key]: row for row in before.failures.iter_rows(named=True)}
    for row in after.failures.iter_rows(named=True):
        old = earlier.get(row[stage.key])
        if old is None or old["failed_input_hash"] != row["failed_input_hash"]:
            assert row["attempts"] == 1
            assert row["first_failed_at"] == row["last_failed_at"]
        else:
            was_tried = row["failed_run_id"] != old["failed_run_id"]
            assert row["attempts"] == old["attempts"] + was_tried
            assert row["first_failed_at"] == old["first_failed_at"]
            assert (row["last_failed_at"] > old["last_failed_at"]) == was_tried


def check_keeping(stage: Stage, before: StageState, after: StageState) -> None:
    """Old rows outlive a transient failure of their key or group, and nothing else."""
    failing = after.failures.filter("is_transient")
    made_anew = set(after.outputs[stage.key]) - set(
        before.outputs.join(after.outputs, on=[stage.key, "run_id"])[stage.key]
    )
    protected = pl.col(stage.key).is_in(failing[stage.key].to_list())
    if stage.group is not None:
        protected |= pl.col(stage.group).is_in(failing[stage.group].to_list())
    must_stand = before.outputs.filter(protected & ~pl.col(stage.key).is_in(list(made_anew)))
    standing = set(map(repr, after.outputs.rows()))
    assert {repr(row) for row in must_stand.rows()} <= standing
    given_up = after.failures.filter(~pl.col("is_transient"))[stage.key].to_list()
    shielded = failing[stage.group].to_list() if stage.group else []
    left_over = after.outputs.filter(
        pl.col(stage.key).is_in(given_up) & ~pl.col(stage.group or stage.key).is_in(shielded)
    )
    assert left_over.is_empty()


def check_settled(stage: Stage, inputs: pl.DataFrame, after: StageState) -> None:
    """Every input is made from its hash of now, or failed on it, never both."""
    made = set(after.outputs.select(stage.key, "input_hash").iter_rows())
    failed = set(after.failures.select(stage.key, "failed_input_hash").iter_rows())
    wanted = set(inputs.select(stage.key, "input_hash").iter_rows())
    assert wanted <= made | failed
    assert not made & failed
    assert failed <= wanted
    failing = after.failures.filter("is_transient")
    shielded = set(failing[stage.group or stage.key]) | set(failing[stage.key])
    for row in after.outputs.iter_rows(named=True):
        is_current = (row[stage.key], row["input_hash"]) in wanted
        assert is_current or row[stage.group or stage.key] in shielded


def check_reports(
    stage: Stage, inputs: pl.DataFrame, after: StageState, reports: dict[str, StageReport]
) -> None:
    """The counts add up, shard by shard, and agree with the tables."""
    for shard, report in reports.items():
        in_shard = pl.col("source_shard") == shard
        assert report.n_inputs == inputs.filter(in_shard).height
        assert report.n_inputs == report.n_computed + report.n_reused + report.n_newly_failed
        assert report.n_rows == after.outputs.filter(in_shard).height
        assert report.n_failed == after.failures.filter(in_shard).height
