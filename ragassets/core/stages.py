"""How one stage runs over some partitions: read the state, plan, compute, commit, report.

`Stage` says what a stage is; `run_stage` is the loop that all stages share. The store is a
`Tables`, the clock and the run id come in with `RunContext`, and the computing itself is the
caller's `compute`. What is new or stale is decided in `core/incremental.py`.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import polars as pl

from ragassets.core.fingerprints import data_version
from ragassets.core.incremental import (
    FAILURE_COLUMNS,
    MAX_TRANSIENT_ATTEMPTS,
    OUTPUT_COLUMNS,
    SOURCE_VERSION,
    ChangePlan,
    Failure,
    StageState,
    apply_changes,
    carry_over,
    failure_frame,
    plan_changes,
)
from ragassets.core.tables import Partition, Snapshot, Tables, TableSpec
from ragassets.core.versions import PIPELINE_VERSION
from ragassets.errors import StageError

SHARD = "source_shard"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: where its rows live and what they are keyed by."""

    name: str
    """The asset's name, and its table's."""
    content: Mapping[str, pl.DataType]
    """Content columns of an output row, partition columns included."""
    key: str
    """Column of the input row's key; an input may give several output rows with the same key."""
    identity: tuple[str, ...]
    """Content columns that a failure row has too, key and partition columns included."""
    partition_by: tuple[str, ...] = (SHARD,)
    group: str | None = None
    """Column whose rows are replaced together, see `apply_changes`."""
    has_inline_failures: bool = True
    """Failures stand in the same table with status `failed`, else in a table of their own. Tables
    of documents show them; tables of chunks hold chunks only."""

    @property
    def outputs(self) -> TableSpec:
        """The public table."""
        columns = {**self.content, **OUTPUT_COLUMNS}
        if self.has_inline_failures:
            columns = {**columns, "status": pl.String(), **FAILURE_COLUMNS}
        return TableSpec(self.name, pl.Schema(columns), self.partition_by, self.key)

    @property
    def failures(self) -> TableSpec:
        """The table of failures, where it is not the public one."""
        columns = {name: self.content[name] for name in self.identity} | FAILURE_COLUMNS
        return TableSpec(f"_failed_{self.name}", pl.Schema(columns), self.partition_by, self.key)

    @property
    def identity_schema(self) -> dict[str, pl.DataType]:
        """Types of the identity columns."""
        return {name: self.content[name] for name in self.identity}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `compute` made of some inputs."""

    rows: pl.DataFrame
    """Content columns and `output_hash`; one or more rows a key, all of them in this outcome.
    `source_version` where it is another than the input's."""
    failures: Sequence[Failure] = ()


Compute = Callable[[list[str]], Iterable[Outcome]]
"""Turns keys into outcomes, in batches. Each key gives output rows or one failure, once."""


class Checkpoints(Protocol):
    """Finished rows of a stage that has not committed yet, so that a killed run resumes."""

    def load(self, name: str) -> pl.DataFrame | None:
        """All finished rows under this name, or `None`."""
        ...

    def append(self, name: str, rows: pl.DataFrame) -> None:
        """Keep these rows, durably."""
        ...

    def clear(self, name: str, partitions: Collection[str]) -> None:
        """Forget what was kept for these source shards only."""
        ...


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What a run knows of its surroundings; everything impure comes in here."""

    run_id: str
    now: Callable[[], datetime]
    redriven: frozenset[str] = frozenset()
    """Keys to compute again although their input failed for good."""
    is_requested: bool = False
    """A person asked for these very partitions: an index version that was dropped begins anew."""
    max_attempts: int = MAX_TRANSIENT_ATTEMPTS
    pipeline_version: str = PIPELINE_VERSION
    """What computed rows say that they were made by; nothing is computed because it changed."""
    checkpoints: Checkpoints | None = None
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None
    """Called with the stage's name, the inputs done and the inputs to do."""


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What a run did for one partition."""

    n_inputs: int
    n_computed: int
    """Inputs whose outputs were made, or made anew, now."""
    n_reused: int
    """Inputs left alone: made before, failed for good before, or parked.

    `n_inputs` is `n_computed + n_reused + n_newly_failed`."""
    n_removed: int
    """Keys whose rows went away."""
    n_failed: int
    """Inputs that stand as failed after the run."""
    n_newly_failed: int
    """Of those, the ones that were tried and failed in this run."""
    n_rows: int
    n_new_rows: int
    """Of those, the rows that were made in this run."""
    data_version: str
    n_taken_over: int = 0
    """Of the reused, those that were missing here and made before elsewhere."""


def run_stage(
    stage: Stage,
    partitions: Sequence[Partition],
    inputs: pl.DataFrame,
    compute: Compute,
    *,
    tables: Tables,
    context: RunContext,
    before_commit: Callable[[StageState, StageState], None] | None = None,
) -> dict[str, StageReport]:
    """Bring the partitions of a stage up to date with its inputs.

    Args:
        stage: The stage.
        partitions: Complete partitions that differ in their source shard only.
        inputs: One row a key with the stage's identity columns and `input_hash`, for all of the
            partitions, and `source_version` where it is known. A key whose source shard changed is
            computed anew.
        compute: Called with the keys to compute, never with an empty list.
        tables: Where the stage's rows live.
        context: Run id, clock, checkpoints.
        before_commit: Called with the old and the new state of the changed shards right before a
            commit that changes outputs: for effects outside the tables that must come first.

    Returns:
        A report for every partition, by source shard.

    Raises:
        ConcurrentWriteError: Somebody else committed to a partition meanwhile; nothing of theirs
            was overwritten.
        StageError: An input is given twice; `compute` gave a key no outcome, or two.
    """
    if not partitions:
        return {}
    _check_inputs(stage, inputs)
    store = _StageStore(stage, partitions, tables)
    narrow = store.read_narrow()
    plan = plan_changes(
        inputs, narrow, key=stage.key, redriven=context.redriven, max_attempts=context.max_attempts
    )
    plan = _with_moved(stage, plan, inputs, narrow)
    computed = _compute_all(stage, plan, inputs, compute, context, store.checkpoint_name)
    changes = _changed_shards(stage, plan, narrow, computed)
    state = narrow
    if touched := changes.of(partitions):
        previous = store.read_wide(touched)
        changed = apply_changes(plan, previous, computed, key=stage.key, group=stage.group)
        if before_commit is not None and changes.outputs:
            before_commit(previous, changed)
        store.commit(changes, changed)
        if context.checkpoints is not None:
            context.checkpoints.clear(store.checkpoint_name, [p[SHARD] for p in partitions])
        state = _with_changes(narrow, changed, changes)
    return _reports(stage, partitions, plan, inputs, _Run(narrow, computed, state))


def plan_stage(
    stage: Stage, partitions: Sequence[Partition], inputs: pl.DataFrame, *, tables: Tables
) -> ChangePlan:
    """What `run_stage` would compute, reuse and remove with these inputs, without a redrive.

    Args:
        stage: The stage.
        partitions: As for `run_stage`.
        inputs: One row a key, with the source shard and `input_hash`.
        tables: Where the stage's rows live.
    """
    narrow = _StageStore(stage, partitions, tables).read_narrow()
    return _with_moved(stage, plan_changes(inputs, narrow, key=stage.key), inputs, narrow)


@dataclasses.dataclass(frozen=True)
class _ChangedShards:
    """Source shards whose rows a run adds, replaces or drops."""

    outputs: frozenset[str]
    failures: frozenset[str]

    def of(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Those of the partitions that change in any way."""
        return [p for p in partitions if p[SHARD] in self.outputs | self.failures]


class _StageStore:
    """Reads and commits a stage's state, whichever way its failures are stored."""

    def __init__(self, stage: Stage, partitions: Sequence[Partition], tables: Tables) -> None:
        self.stage, self.partitions, self.tables = stage, partitions, tables
        self.outputs: Snapshot = tables.snapshot(stage.outputs)
        self.failures: Snapshot | None = (
            None if stage.has_inline_failures else tables.snapshot(stage.failures)
        )

    @property
    def checkpoint_name(self) -> str:
        """Table and the partition dimensions besides the shard."""
        dimensions = [self.partitions[0][d] for d in self.stage.partition_by if d != SHARD]
        return "/".join([self.stage.name, *dimensions])

    def read_narrow(self) -> StageState:
        """The state of all partitions, in the columns that planning and reporting need."""
        identity = list(self.stage.identity)
        return self._read(
            self.partitions,
            outputs=list(dict.fromkeys([*identity, "input_hash", "output_hash"])),
            failures=[
                *identity,
                "failed_input_hash",
                "is_transient",
                "attempts",
                "error_reason",
            ],
        )

    def read_wide(self, partitions: Sequence[Partition]) -> StageState:
        """The state of some partitions, in all columns."""
        return self._read(
            partitions,
            outputs=[*self.stage.content, *OUTPUT_COLUMNS],
            failures=[*self.stage.identity, *FAILURE_COLUMNS],
        )

    def _read(
        self, partitions: Sequence[Partition], outputs: list[str], failures: list[str]
    ) -> StageState:
        if self.failures is None:
            columns = list(dict.fromkeys([*outputs, *failures]))
            frame = self.tables.read_at(self.outputs, partitions, columns=columns)
            failed = frame.filter(pl.col("failed_input_hash").is_not_null()).select(failures)
            return StageState(
                frame.filter(pl.col("output_hash").is_not_null()).select(outputs),
                # A key with several old output rows carries its one failure on each of them.
                failed.unique([self.stage.key, SHARD]),
            )
        return StageState(
            self.tables.read_at(self.outputs, partitions, columns=outputs),
            self.tables.read_at(self.failures, partitions, columns=failures),
        )

    def commit(self, changes: _ChangedShards, state: StageState) -> None:
        """Write what changed of the state.

        Failures of their own table are written first: a crash between the two commits leaves old
        outputs beside new failures, and the next run plans from that to the same end.
        """
        if self.failures is None:
            touched = changes.of(self.partitions)
            self.tables.replace(self.outputs, touched, _merge_inline(self.stage, state))
            return
        for snapshot, frame, shards in (
            (self.failures, state.failures, changes.failures),
            (self.outputs, state.outputs, changes.outputs),
        ):
            if touched := [p for p in self.partitions if p[SHARD] in shards]:
                self.tables.replace(snapshot, touched, _of_shards(frame, shards))


def _merge_inline(stage: Stage, state: StageState) -> pl.DataFrame:
    """One frame of outputs and failures; a key in both gets one row with both halves."""
    both = state.outputs.join(
        state.failures.select(stage.key, *FAILURE_COLUMNS), on=stage.key, how="left"
    ).with_columns(pl.lit("ok").alias("status"))
    only_failed = state.failures.join(state.outputs, on=stage.key, how="anti").with_columns(
        pl.lit("failed").alias("status")
    )
    merged = pl.concat([both, only_failed], how="diagonal")
    schema = stage.outputs.schema
    missing = [pl.lit(None, dtype=schema[c]).alias(c) for c in schema if c not in merged.columns]
    return merged.with_columns(missing).select(list(schema))


def _compute_all(
    stage: Stage,
    plan: ChangePlan,
    inputs: pl.DataFrame,
    compute: Compute,
    context: RunContext,
    checkpoint_name: str,
) -> StageState:
    """Outputs and failures of all keys to compute; finished rows of a killed run are taken over."""
    resumed = _resume(stage, plan, inputs, context, checkpoint_name)
    frames = [resumed]
    failures: list[Failure] = []
    waiting = plan.compute - frozenset(_keys(stage, resumed))
    context.progress(stage.name, len(plan.compute) - len(waiting), len(plan.compute))
    for outcome in compute(sorted(waiting)) if waiting else ():
        waiting -= _settled(stage, waiting, outcome)
        rows = _with_bookkeeping(stage, outcome.rows, plan, inputs, context)
        frames.append(rows)
        failures.extend(outcome.failures)
        if context.checkpoints is not None and rows.height:
            context.checkpoints.append(checkpoint_name, rows)
        context.progress(stage.name, len(plan.compute) - len(waiting), len(plan.compute))
    if waiting:
        detail = f"{len(waiting)} inputs gave neither output nor failure"
        raise StageError(stage=stage.name, subject=min(waiting), detail=detail)
    outputs = pl.concat(frames)
    _check_homes(stage, outputs, inputs)
    return StageState(outputs, _failure_rows(stage, failures, plan, inputs, context))


def _keys(stage: Stage, frame: pl.DataFrame) -> list[str]:
    return frame[stage.key].to_list() if frame.height else []


def _check_inputs(stage: Stage, inputs: pl.DataFrame) -> None:
    """A key that is given twice has no one input hash, so it would be computed in every run."""
    if inputs[stage.key].n_unique() != inputs.height:
        twice = inputs.filter(pl.col(stage.key).is_duplicated())[stage.key].min()
        raise StageError(stage=stage.name, subject=str(twice), detail="the input is given twice")


def _check_homes(stage: Stage, outputs: pl.DataFrame, inputs: pl.DataFrame) -> None:
    """A row outside its input's shard would be taken for a moved one, again in every run."""
    astray = outputs.join(inputs, on=[stage.key, SHARD], how="anti")
    if astray.height:
        detail = "an output row lies in another source shard than its input"
        raise StageError(stage=stage.name, subject=astray[stage.key][0], detail=detail)


def _settled(stage: Stage, waiting: frozenset[str], outcome: Outcome) -> frozenset[str]:
    """Keys that this outcome settles.

    Raises:
        StageError: A key was not asked for or has two outcomes, or a row lacks its output hash. The
            state could not hold that, and a resumed run could not tell half a key from a whole one.
    """
    made = frozenset(_keys(stage, outcome.rows))
    settled = made.union(failure.key for failure in outcome.failures)
    if stray := settled - waiting:
        detail = "an outcome came for an input that was not asked for, or had one already"
        raise StageError(stage=stage.name, subject=min(stray), detail=detail)
    if len(settled) < len(made) + len(outcome.failures):
        detail = "an input has two outcomes"
        raise StageError(stage=stage.name, subject=min(settled), detail=detail)
    if outcome.rows.height and outcome.rows["output_hash"].null_count():
        detail = "an output row has no output_hash"
        raise StageError(stage=stage.name, subject=min(made), detail=detail)
    return settled


def _with_bookkeeping(
    stage: Stage, rows: pl.DataFrame, plan: ChangePlan, inputs: pl.DataFrame, context: RunContext
) -> pl.DataFrame:
    schema = pl.Schema({**stage.content, **OUTPUT_COLUMNS})
    if rows.is_empty():
        return pl.DataFrame(schema=schema)
    hashes = [plan.input_hashes[key] for key in _keys(stage, rows)]
    return (
        _with_source_version(stage, rows, inputs)
        .with_columns(
            pl.Series("input_hash", hashes, dtype=pl.String),
            pl.lit(context.run_id).alias("run_id"),
            pl.lit(context.now(), dtype=OUTPUT_COLUMNS["computed_at"]).alias("computed_at"),
            pl.lit(context.pipeline_version).alias("pipeline_version"),
        )
        .select(list(schema))
        .cast(schema)
    )


def _with_source_version(stage: Stage, rows: pl.DataFrame, inputs: pl.DataFrame) -> pl.DataFrame:
    """The rows with the version of the source's object that they were made from."""
    unknown = pl.lit(None, dtype=pl.String)
    own = pl.col(SOURCE_VERSION) if SOURCE_VERSION in rows.columns else unknown
    if SOURCE_VERSION not in inputs.columns:
        return rows.with_columns(own.alias(SOURCE_VERSION))
    of_input = inputs.select(stage.key, pl.col(SOURCE_VERSION).alias("_of_input"))
    return rows.join(of_input, on=stage.key, how="left", maintain_order="left").with_columns(
        pl.coalesce(own, "_of_input").alias(SOURCE_VERSION)
    )


def _resume(
    stage: Stage,
    plan: ChangePlan,
    inputs: pl.DataFrame,
    context: RunContext,
    checkpoint_name: str,
) -> pl.DataFrame:
    """Rows that an earlier, killed run had finished from the very inputs of now."""
    schema = pl.Schema({**stage.content, **OUTPUT_COLUMNS})
    empty = pl.DataFrame(schema=schema)
    if context.checkpoints is None or not plan.compute:
        return empty
    kept = context.checkpoints.load(checkpoint_name)
    needed = {stage.key, SHARD, "input_hash", "output_hash", "run_id", "computed_at"}
    if kept is None or not needed <= set(kept.columns):
        return empty
    # A column that came with a release since is null: equal input hashes mean equal outputs.
    missing = [pl.lit(None, dtype=schema[c]).alias(c) for c in schema if c not in kept.columns]
    kept = kept.with_columns(missing)
    wanted = inputs.filter(pl.col(stage.key).is_in(sorted(plan.compute)))
    rows = kept.join(
        wanted, on=[stage.key, "input_hash", SHARD], how="semi", maintain_order="left"
    ).select(list(schema))
    # Two runs at once may both have finished a key; the rows of one outcome share run and time.
    outcome = pl.struct("run_id", "computed_at")
    return rows.filter(outcome == outcome.first().over(stage.key)).cast(schema)


def _failure_rows(
    stage: Stage,
    failures: Sequence[Failure],
    plan: ChangePlan,
    inputs: pl.DataFrame,
    context: RunContext,
) -> pl.DataFrame:
    if not failures:
        return failure_frame([], stage.identity_schema)
    failed = [failure.key for failure in failures]
    identities = {
        row[stage.key]: row
        for row in inputs.filter(pl.col(stage.key).is_in(failed))
        .select(stage.identity)
        .iter_rows(named=True)
    }
    now = context.now()
    rows = [
        identities[failure.key]
        | failure.as_row(
            input_hash=plan.input_hashes[failure.key],
            run_id=context.run_id,
            now=now,
            pipeline_version=context.pipeline_version,
        )
        for failure in failures
    ]
    return failure_frame(rows, stage.identity_schema)


def _with_moved(
    stage: Stage, plan: ChangePlan, inputs: pl.DataFrame, narrow: StageState
) -> ChangePlan:
    """The plan that also computes keys whose rows stand in another shard than their input."""
    places = [stage.key, SHARD]
    rows = pl.concat([narrow.outputs.select(places), narrow.failures.select(places)])
    moved = plan.reuse.intersection(_keys(stage, rows.join(inputs, on=places, how="anti")))
    return dataclasses.replace(plan, compute=plan.compute | moved, reuse=plan.reuse - moved)


def _changed_shards(
    stage: Stage, plan: ChangePlan, narrow: StageState, computed: StageState
) -> _ChangedShards:
    """Shards whose rows differ after this run."""
    carried = carry_over(plan, narrow, computed, key=stage.key, group=stage.group)

    def changed(made: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> frozenset[str]:
        dropped = before.join(after, on=[stage.key, SHARD], how="anti")
        return frozenset(made[SHARD].to_list()) | frozenset(dropped[SHARD].to_list())

    return _ChangedShards(
        changed(computed.outputs, narrow.outputs, carried.outputs),
        changed(computed.failures, narrow.failures, carried.failures),
    )


def _of_shards(frame: pl.DataFrame, shards: Collection[str]) -> pl.DataFrame:
    return frame.filter(pl.col(SHARD).is_in(sorted(shards)))


def _with_changes(narrow: StageState, changed: StageState, changes: _ChangedShards) -> StageState:
    shards = sorted(changes.outputs | changes.failures)

    def merge(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
        untouched = old.filter(~pl.col(SHARD).is_in(shards))
        return pl.concat([untouched, new.select(old.columns)])

    return StageState(
        merge(narrow.outputs, changed.outputs), merge(narrow.failures, changed.failures)
    )


@dataclasses.dataclass(frozen=True)
class _Run:
    """The state before a run, what it computed, and the state after it."""

    before: StageState
    computed: StageState
    after: StageState

    def by_shard(self) -> "Callable[[str], _Run]":
        """The same of one shard."""
        states = [_by_shard(state) for state in (self.before, self.computed, self.after)]
        return lambda shard: _Run(*(of_shard(shard) for of_shard in states))


def _by_shard(state: StageState) -> Callable[[str], StageState]:
    outputs, failures = _split(state.outputs), _split(state.failures)
    return lambda shard: StageState(outputs(shard), failures(shard))


def _split(frame: pl.DataFrame) -> Callable[[str], pl.DataFrame]:
    """One pass over the frame for all shards: a filter for each costs n_shards passes."""
    parts = {str(shard): part for (shard,), part in frame.partition_by(SHARD, as_dict=True).items()}
    return lambda shard: parts.get(shard, frame.clear())


def _reports(
    stage: Stage,
    partitions: Sequence[Partition],
    plan: ChangePlan,
    inputs: pl.DataFrame,
    run: _Run,
) -> dict[str, StageReport]:
    inputs_of, run_of = _split(inputs), run.by_shard()
    return {
        shard: _report_shard(stage, plan, inputs_of(shard), run_of(shard))
        for shard in (partition[SHARD] for partition in partitions)
    }


def _report_shard(stage: Stage, plan: ChangePlan, inputs: pl.DataFrame, run: _Run) -> StageReport:
    wanted = frozenset(_keys(stage, inputs))
    known = {*_keys(stage, run.before.outputs), *_keys(stage, run.before.failures)}
    standing = _keys(stage, run.after.outputs)
    made = zip(standing, run.after.outputs["output_hash"].to_list(), strict=True)
    failed = run.after.failures.select(stage.key, "error_reason").iter_rows()
    return StageReport(
        n_inputs=inputs.height,
        n_computed=len(set(_keys(stage, run.computed.outputs))),
        n_reused=len(wanted & plan.reuse),
        n_removed=len(known - wanted - set(standing)),
        n_failed=run.after.failures.height,
        n_newly_failed=run.computed.failures.height,
        n_rows=run.after.outputs.height,
        n_new_rows=run.computed.outputs.height,
        data_version=data_version([*made, *((name, f"failed {why}") for name, why in failed)]),
    )
