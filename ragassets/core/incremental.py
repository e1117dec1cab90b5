"""The one engine that all stages share: what is new, changed, unchanged, gone; what to carry over.

A stage turns input rows into output rows. Its state is two frames: `outputs` (what it made, each
row with the hash of the input that it was made from) and `failures` (what it could not make, each
with the hash of the input that failed). This module compares the two with the inputs of now
(`plan_changes`) and puts a computed result and the old state together (`apply_changes`). It never
computes a row itself, reads no clock and writes nothing; `core/stages.py` drives it.

Invariants, for any sequence of adds, edits, deletes, failures and redrives:

* After `apply_changes`, planning the same inputs again computes nothing but due retries.
* Without transient failures the state depends on the inputs of now only, not on how they came
  about.
* A key's old outputs go away only when its new outputs are there, its input is gone, or its new
  input has failed for good. A transient failure keeps what was there, for the whole group.
* What is carried over follows from the rows alone, not from the steps that made them: where two
  writers each left a half (failures of one, outputs of the other), the next run mends it.
"""

import dataclasses
from collections.abc import Collection, Iterable
from datetime import datetime

import polars as pl

from ragassets.core.fingerprints import stable_hash

TIMESTAMP = pl.Datetime("us", "UTC")

OUTPUT_COLUMNS: dict[str, pl.DataType] = {
    "input_hash": pl.String(),
    "output_hash": pl.String(),
    "run_id": pl.String(),
    "computed_at": TIMESTAMP,
    "pipeline_version": pl.String(),
    "source_version": pl.String(),
}
"""Bookkeeping of an output row, beside its content.

The last two say what it was made by, and from which state of the source's object: the store's
version id, else the ETag. Both stay while the row is reused, and neither makes it stale; null in
rows of a release that did not know them."""

SOURCE_VERSION = "source_version"

DOUBTED = "doubted"
"""Stands where the hash of an input was, so that a row is made again; no hash is spelt like it."""

FAILURE_COLUMNS: dict[str, pl.DataType] = {
    "failed_input_hash": pl.String(),
    "error_category": pl.String(),
    "error_reason": pl.String(),
    "error_type": pl.String(),
    "error_message": pl.String(),
    "stack_trace": pl.String(),
    "is_transient": pl.Boolean(),
    "attempts": pl.Int64(),
    "first_failed_at": TIMESTAMP,
    "last_failed_at": TIMESTAMP,
    "failed_run_id": pl.String(),
    "failed_pipeline_version": pl.String(),
}
"""Bookkeeping of a failure row, beside its key, group and partition."""

MAX_TRANSIENT_ATTEMPTS = 5
"""Runs that try a transient failure before it is parked: REQUIREMENTS E4 asks for 3 to 5."""


@dataclasses.dataclass(frozen=True)
class StageState:
    """What a stage holds for some partitions.

    `outputs` has the stage's key (one or more rows a key), content and `OUTPUT_COLUMNS`; `failures`
    has at most one row a key, with `FAILURE_COLUMNS`. A key may stand in both: its old output is
    kept while a new input fails transiently.
    """

    outputs: pl.DataFrame
    failures: pl.DataFrame


@dataclasses.dataclass(frozen=True)
class ChangePlan:
    """What a run must do, as sets of keys. The four sets partition all keys of inputs and state."""

    compute: frozenset[str]
    """New, changed, due for a retry, or redriven."""
    reuse: frozenset[str]
    """Made from the very input of now, or failed on it for good, or parked."""
    removed: frozenset[str]
    """In the state, but no longer an input."""
    input_hashes: dict[str, str]
    """Of every input of now."""


def input_hash(stage_fingerprint: str, *parts: str | None) -> str:
    """Hash of what decides a row's output: the stage's fingerprint and the upstream fields."""
    return stable_hash(stage_fingerprint, *parts)


def with_input_hash(inputs: pl.DataFrame, stage_fingerprint: str, *columns: str) -> pl.DataFrame:
    """Add `input_hash` over the fingerprint and the given String columns, row by row."""
    hashes = [input_hash(stage_fingerprint, *row) for row in inputs.select(columns).iter_rows()]
    return inputs.with_columns(pl.Series("input_hash", hashes, dtype=pl.String))


def plan_changes(
    inputs: pl.DataFrame,
    state: StageState,
    *,
    key: str,
    redriven: Collection[str] = (),
    max_attempts: int = MAX_TRANSIENT_ATTEMPTS,
) -> ChangePlan:
    """Compare the inputs of now with the state and say what must be computed.

    Args:
        inputs: One row a key, with `key` and `input_hash`.
        state: Narrow frames do: `outputs` with `key` and `input_hash`; `failures` with `key`,
            `failed_input_hash`, `is_transient` and `attempts`.
        key: Name of the key column.
        redriven: Keys to compute again even though their input failed for good.
        max_attempts: A transient failure with so many attempts is parked: left alone until its
            input changes or it is redriven.
    """
    wanted = inputs.select(key, "input_hash")
    made = wanted.join(state.outputs, on=[key, "input_hash"], how="semi")
    is_parked = ~pl.col("is_transient") | (pl.col("attempts") >= max_attempts)
    parked = wanted.join(
        state.failures.filter(is_parked & ~_is_among(key, redriven)),
        left_on=[key, "input_hash"],
        right_on=[key, "failed_input_hash"],
        how="semi",
    )
    input_hashes: dict[str, str] = dict(wanted.iter_rows())
    reuse = frozenset(_values(made, key)) | frozenset(_values(parked, key))
    known = frozenset(_values(state.outputs, key)) | frozenset(_values(state.failures, key))
    return ChangePlan(
        compute=frozenset(input_hashes) - reuse,
        reuse=reuse,
        removed=known - frozenset(input_hashes),
        input_hashes=input_hashes,
    )


def _values(frame: pl.DataFrame, column: str) -> list[str]:
    return frame[column].to_list()


def _is_among(column: str, values: Iterable[str]) -> pl.Expr:
    return pl.col(column).is_in(pl.Series(list(values), dtype=pl.String).implode())


def carry_over(
    plan: ChangePlan,
    previous: StageState,
    computed: StageState,
    *,
    key: str,
    group: str | None = None,
) -> StageState:
    """The rows of the previous state that stay.

    An old output row stays while it is made from the input of now, or nothing replaces it and its
    key, or any key of its group, is failing transiently. A failure stays while its input is the one
    of now, was not tried in this run, and no output stands for it.

    Args:
        plan: What `plan_changes` said of `previous`.
        previous: Narrow frames do: besides what `plan_changes` needs, `group`.
        computed: Narrow frames do: `outputs` with `key`; `failures` with `key`, `group` and
            `is_transient`.
        key: Name of the key column.
        group: Column whose rows belong together, see `apply_changes`.
    """
    wanted = pl.DataFrame(
        {key: list(plan.input_hashes), "input_hash": list(plan.input_hashes.values())},
        schema={key: pl.String, "input_hash": pl.String},
    ).filter(~_is_among(key, plan.compute))
    current = wanted.join(previous.outputs, on=[key, "input_hash"], how="semi")
    failures = previous.failures.join(
        wanted.join(current, on=key, how="anti"),
        left_on=[key, "failed_input_hash"],
        right_on=[key, "input_hash"],
        how="semi",
    )
    units = list(dict.fromkeys([key, group or key]))
    pending = pl.concat(
        [frame.filter("is_transient").select(units) for frame in (failures, computed.failures)]
    )
    is_kept = _is_among(key, _values(current, key))
    for unit in units:
        is_kept |= _is_among(unit, _values(pending, unit))
    is_replaced = _is_among(key, _values(computed.outputs, key))
    return StageState(previous.outputs.filter(is_kept & ~is_replaced), failures)


def apply_changes(
    plan: ChangePlan,
    previous: StageState,
    computed: StageState,
    *,
    key: str,
    group: str | None = None,
) -> StageState:
    """Put the computed rows and the previous state together into the new state.

    Args:
        plan: What `plan_changes` said of `previous`.
        previous: The whole state before, with all columns.
        computed: Outputs or a failure of every key in `plan.compute`, with all columns.
        key: Name of the key column.
        group: Column whose rows belong together (`document_id` of chunks). While one key of a group
            fails transiently, no old row of that group is removed.

    Returns:
        The new state, sorted by key.
    """
    carried = carry_over(plan, previous, computed, key=key, group=group)
    outputs = pl.concat([carried.outputs, computed.outputs.select(carried.outputs.columns)])
    failures = pl.concat(
        [carried.failures, _with_earlier_attempts(computed.failures, previous.failures, key)]
    )
    return StageState(outputs.sort(key, maintain_order=True), failures.sort(key))


def _with_earlier_attempts(
    computed: pl.DataFrame, previous: pl.DataFrame, key: str
) -> pl.DataFrame:
    """The failures of now; a repeated failure of the same input counts its attempts up."""
    earlier = previous.select(
        key,
        "failed_input_hash",
        pl.col("attempts").alias("_earlier_attempts"),
        pl.col("first_failed_at").alias("_earlier_first"),
    ).unique([key, "failed_input_hash"])
    return (
        computed.join(earlier, on=[key, "failed_input_hash"], how="left")
        .with_columns(
            pl.col("attempts") + pl.col("_earlier_attempts").fill_null(0),
            pl.coalesce("_earlier_first", "first_failed_at").alias("first_failed_at"),
        )
        .select(previous.columns)
    )


def failure_frame(
    rows: Collection[dict[str, object]], identity: dict[str, pl.DataType]
) -> pl.DataFrame:
    """A failures frame from dictionaries; `identity` are the key, group and partition columns."""
    return pl.DataFrame(list(rows), schema={**identity, **FAILURE_COLUMNS}, orient="row")


@dataclasses.dataclass(frozen=True)
class Failure:
    """One row's failure, as a stage's compute function reports it."""

    key: str
    category: str
    reason: str
    error_type: str
    message: str
    stack_trace: str
    is_transient: bool
    n_attempts: int = 1
    """0 where the input itself was not tried, as when a service was down for all: an outage of many
    runs must not park what nobody ever looked at."""

    def as_row(
        self, *, input_hash: str, run_id: str, now: datetime, pipeline_version: str | None = None
    ) -> dict[str, object]:
        """The bookkeeping columns of this failure's first attempt."""
        return {
            "failed_input_hash": input_hash,
            "error_category": self.category,
            "error_reason": self.reason,
            "error_type": self.error_type,
            "error_message": self.message,
            "stack_trace": self.stack_trace,
            "is_transient": self.is_transient,
            "attempts": self.n_attempts,
            "first_failed_at": now,
            "last_failed_at": now,
            "failed_run_id": run_id,
            "failed_pipeline_version": pipeline_version,
        }
