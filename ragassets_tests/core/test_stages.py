"""The engine under fire: any edits, failures, crashes and rivals, then the state of a fresh build."""

import errno
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ragassets.core.fingerprints import stable_hash
from ragassets.core.incremental import Failure, StageState, with_input_hash
from ragassets.core.stages import (
    Outcome,
    RunContext,
    Stage,
    StageReport,
    attempt,
    outcomes_in_batches,
    run_stage,
    stack_trace,
)
from ragassets.core.tables import Partition, Snapshot
from ragassets.errors import (
    ConcurrentWriteError,
    CorruptDocumentError,
    ServiceError,
    SourceUnavailableError,
    StageError,
    SystemResourceError,
)
from ragassets_tests.fakes import InMemoryTables

TEXT = pl.String()
DOCUMENTS = Stage(
    name="documents",
    content={"document_id": TEXT, "source_shard": TEXT, "text": TEXT},
    key="document_id",
    identity=("document_id", "source_shard"),
)
CHUNKS = Stage(
    name="chunks",
    content={
        "chunk_id": TEXT,
        "document_id": TEXT,
        "source_shard": TEXT,
        "chunking": TEXT,
        "text": TEXT,
    },
    key="document_id",
    identity=("document_id", "source_shard", "chunking"),
    partition_by=("source_shard", "chunking"),
    group="document_id",
    has_inline_failures=False,
)
VECTORS = Stage(
    name="vectors",
    content={
        "chunk_id": TEXT,
        "document_id": TEXT,
        "source_shard": TEXT,
        "model": TEXT,
        "vector": pl.List(pl.Float32()),
    },
    key="chunk_id",
    identity=("chunk_id", "document_id", "source_shard", "model"),
    partition_by=("source_shard", "model"),
    group="document_id",
    has_inline_failures=False,
)
STAGES = (DOCUMENTS, CHUNKS, VECTORS)
DIMENSIONS = {"documents": {}, "chunks": {"chunking": "words"}, "vectors": {"model": "tiny"}}
SHARDS = ("s-0", "s-1", "s-2")
MAX_ATTEMPTS = 3

POISON = {"documents": "D", "chunks": "C", "vectors": "V"}
"""A text with this word fails for good in that stage."""
WORDS = ("a", "b", "c", "d", *POISON.values())


class KilledError(BaseException):
    """The process is gone: nothing may catch this."""


class BreakableTables(InMemoryTables):
    """Tables that a test can interrupt at the n-th commit from now, before or after it."""

    def __init__(self) -> None:
        super().__init__()
        self.n_commits = 0
        self.interruptions: dict[int, Callable[[], None]] = {}

    def interrupt(self, n_commits: int, action: Callable[[], None], *, after: bool = False) -> None:
        """Call the action right before, or after, the n-th commit from now (from 0)."""
        self.interruptions[2 * (self.n_commits + n_commits) + after] = action

    def replace(
        self, snapshot: Snapshot, partitions: Sequence[Partition], frame: pl.DataFrame
    ) -> int:
        """As the parent, with the interruptions."""
        number = self.n_commits
        self.interruptions.pop(2 * number, lambda: None)()
        version = super().replace(snapshot, partitions, frame)
        self.n_commits += 1
        self.interruptions.pop(2 * number + 1, lambda: None)()
        return version


class InMemoryCheckpoints:
    """Checkpoints in a dictionary, each append a part."""

    def __init__(self) -> None:
        self.parts: dict[str, list[pl.DataFrame]] = {}

    def load(self, name: str) -> pl.DataFrame | None:
        """All parts as one frame."""
        parts = self.parts.get(name)
        return pl.concat(parts) if parts else None

    def append(self, name: str, rows: pl.DataFrame) -> None:
        """Keep one part."""
        self.parts.setdefault(name, []).append(rows)

    def clear(self, name: str, partitions: Collection[str]) -> None:
        """Drop the parts of these shards only."""
        self.parts[name] = [
            part for part in self.parts.get(name, []) if not set(part["source_shard"]) <= set(partitions)
        ]


def kill() -> None:
    """End the process."""
    raise KilledError


@dataclass
class World:
    """Documents, three stages over them, and all the trouble that they can get into."""

    documents: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=lambda: dict.fromkeys(POISON, "v1"))
    flavours: dict[str, str] = field(default_factory=lambda: dict.fromkeys(POISON, ""))
    """What a stage adds to its content: changes with or without its fingerprint in a test."""
    down: set[tuple[str, str]] = field(default_factory=set)
    """(stage, word): a text with this word fails there, for now."""
    tables: BreakableTables = field(default_factory=BreakableTables)
    checkpoints: InMemoryCheckpoints | None = None
    n_shards: int = 3
    calls: list[str] = field(default_factory=list)
    """Keys computed in the last run."""
    n_runs: int = 0

    def shard_of(self, document_id: str) -> str:
        return f"s-{int(document_id[1:]) % self.n_shards}"

    def partitions(self, stage: Stage, shards: Sequence[str] = SHARDS) -> list[Partition]:
        return [{"source_shard": shard, **DIMENSIONS[stage.name]} for shard in shards]

    def state(self, stage: Stage, shards: Sequence[str] = SHARDS) -> StageState:
        """Outputs and failures with all columns, whichever way they are stored."""
        outputs = self.tables.read(stage.outputs, self.partitions(stage, shards))
        if stage.has_inline_failures:
            failures = outputs.filter(pl.col("failed_input_hash").is_not_null())
        else:
            failures = self.tables.read(stage.failures, self.partitions(stage, shards))
        made = outputs.filter(pl.col("output_hash").is_not_null())
        columns = [*stage.content, "input_hash", "output_hash", "run_id", "computed_at"]
        return StageState(made.select(columns), failures.select(stage.failures.schema.names()))

    def inputs(self, stage: Stage, shards: Sequence[str] = SHARDS) -> pl.DataFrame:
        """Identity, text and input hash of what the stage should hold."""
        if stage is DOCUMENTS:
            rows = [(name, self.shard_of(name), text) for name, text in self.documents.items()]
            frame = pl.DataFrame(
                rows, schema={"document_id": TEXT, "source_shard": TEXT, "text": TEXT}, orient="row"
            ).filter(pl.col("source_shard").is_in(shards))
        else:
            upstream = STAGES[STAGES.index(stage) - 1]
            frame = self.state(upstream, shards).outputs
            frame = frame.with_columns(pl.lit(v).alias(k) for k, v in DIMENSIONS[stage.name].items())
        hashed = with_input_hash(frame.drop("input_hash", strict=False), self.fingerprints[stage.name], "text")
        return hashed.select(*stage.identity, "text", "input_hash") if stage is not VECTORS else (
            hashed.select(*stage.identity, "text", "input_hash")
        )

    def compute(
        self, stage: Stage, inputs: pl.DataFrame, *, batch_size: int, die_after: int | None
    ) -> Callable[[list[str]], Iterator[Outcome]]:
        rows = {row[stage.key]: row for row in inputs.iter_rows(named=True)}

        def one(key: str) -> tuple[str, list[dict[str, object]] | Failure]:
            self.calls.append(key)
            return key, attempt(lambda row: self.make(stage, row), rows[key], key=key, stage=stage.name)

        def all_of(keys: list[str]) -> Iterator[Outcome]:
            assert keys
            results = outcomes_in_batches(map(one, keys), stage, batch_size=batch_size)
            for n_done, outcome in enumerate(results):
                if n_done == die_after:
                    kill()
                yield outcome

        return all_of

    def make(self, stage: Stage, row: dict[str, str]) -> list[dict[str, object]]:
        """The output rows of one input."""
        words = row["text"].split()
        if any((stage.name, word) in self.down for word in words):
            raise SourceUnavailableError(service=stage.name, detail="down")
        if POISON[stage.name] in words:
            raise CorruptDocumentError(uri=row["document_id"], detail="poison")
        flavour = self.flavours[stage.name]
        shared = {name: row[name] for name in stage.identity}
        if stage is CHUNKS:
            return [
                shared
                | {
                    "chunk_id": f"{row['document_id']}-{word}-{number}",
                    "text": word + flavour,
                    "output_hash": stable_hash(word, flavour),
                }
                for number, word in enumerate(words)
            ]
        if stage is VECTORS:
            content = {"vector": [float(ord(letter)) for letter in row["text"] + flavour]}
        else:
            content = {"text": row["text"] + flavour}
        return [shared | content | {"output_hash": stable_hash(row["text"], flavour)}]

    def run(
        self,
        stage: Stage,
        shards: Sequence[str] = SHARDS,
        *,
        batch_size: int = 2,
        redriven: Collection[str] = (),
        die_after: int | None = None,
    ) -> dict[str, StageReport]:
        """Run one stage over some shards and check everything that one run must hold."""
        self.n_runs += 1
        self.calls = []
        before, inputs = self.state(stage, shards), self.inputs(stage, shards)
        number, clock = self.n_runs, itertools.count()
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        context = RunContext(
            run_id=f"run-{number}",
            now=lambda: start + timedelta(seconds=next(clock)),
            redriven=frozenset(redriven),
            max_attempts=MAX_ATTEMPTS,
            checkpoints=self.checkpoints,
        )
        reports = run_stage(
            stage,
            self.partitions(stage, shards),
            inputs.drop("text"),
            self.compute(stage, inputs, batch_size=batch_size, die_after=die_after),
            tables=self.tables,
            context=context,
        )
        after = self.state(stage, shards)
        check_attempts(stage, before, after)
        check_keeping(stage, before, after)
        check_settled(stage, inputs, after)
        check_reports(stage, inputs, after, reports)
        return reports

    def run_all(self, **options: int) -> None:
        for stage in STAGES:
            self.run(stage, **options)

    def settle(self) -> None:
        """Everything is up again; run all to the end, giving parked failures their redrive."""
        self.down.clear()
        for stage in STAGES:
            self.run(stage, redriven=[*self.state(stage).failures[stage.key]])

    def fresh(self) -> "World":
        """The same documents, built from nothing."""
        world = World(
            documents=dict(self.documents),
            fingerprints=dict(self.fingerprints),
            flavours=dict(self.flavours),
            n_shards=self.n_shards,
        )
        world.settle()
        return world

    def content(self) -> dict[str, list[tuple[object, ...]]]:
        """What must not depend on how it came about, sorted."""
        found: dict[str, list[tuple[object, ...]]] = {}
        for stage in STAGES:
            state = self.state(stage)
            outputs = state.outputs.drop("run_id", "computed_at")
            failures = state.failures.drop(
                "attempts", "first_failed_at", "last_failed_at", "failed_run_id", "stack_trace"
            )
            found[stage.name] = sorted(outputs.rows(), key=repr)
            found[f"failed {stage.name}"] = sorted(failures.rows(), key=repr)
        return found

    def versions(self, stage: Stage) -> dict[str, str]:
        """The data version of every shard, from a run that may change nothing."""
        n_commits = self.tables.n_commits
        reports = self.run(stage)
        assert self.tables.n_commits == n_commits
        return {shard: report.data_version for shard, report in reports.items()}


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


def due(world: World, stage: Stage) -> set[str]:
    """Keys whose transient failure is to be tried again."""
    failures = world.state(stage).failures.filter("is_transient")
    return set(failures.filter(pl.col("attempts") < MAX_ATTEMPTS)[stage.key])


document_ids = st.sampled_from([f"d{number}" for number in range(6)])
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
clean_texts = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(" ".join)
stages = st.sampled_from(STAGES)
shard_lists = st.lists(st.sampled_from(SHARDS), min_size=1, unique=True)
batch_sizes = st.integers(1, 4)


class Life(RuleBasedStateMachine):
    """A project's life: whatever happens, the end is a fresh build of what is there now."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(documents=st.dictionaries(document_ids, texts), is_checkpointed=st.booleans())
    def begin(self, documents: dict[str, str], is_checkpointed: bool) -> None:
        self.world.documents = documents
        self.world.checkpoints = InMemoryCheckpoints() if is_checkpointed else None
        self.world.run_all()

    @rule(name=document_ids, text=texts)
    def write(self, name: str, text: str) -> None:
        self.world.documents[name] = text

    @rule(name=document_ids)
    def delete(self, name: str) -> None:
        self.world.documents.pop(name, None)

    @rule(old=document_ids, new=document_ids)
    def rename(self, old: str, new: str) -> None:
        if old in self.world.documents:
            self.world.documents[new] = self.world.documents.pop(old)

    @rule(stage=stages, word=st.sampled_from("abcd"))
    def toggle_outage(self, stage: Stage, word: str) -> None:
        self.world.down ^= {(stage.name, word)}

    @rule(stage=stages, version=st.sampled_from(["v1", "v2"]), has_effect=st.booleans())
    def change_fingerprint(self, stage: Stage, version: str, has_effect: bool) -> None:
        self.world.fingerprints[stage.name] = version + ("!" if has_effect else "")
        self.world.flavours[stage.name] = " x" if has_effect else ""

    @rule(stage=stages, shards=shard_lists, batch_size=batch_sizes)
    def run(self, stage: Stage, shards: list[str], batch_size: int) -> None:
        self.world.run(stage, shards, batch_size=batch_size)

    @rule(batch_size=batch_sizes)
    def run_all(self, batch_size: int) -> None:
        self.world.run_all(batch_size=batch_size)

    @rule(stage=stages)
    def redrive(self, stage: Stage) -> None:
        failed = [*self.world.state(stage).failures[stage.key]]
        self.world.run(stage, redriven=failed)
        inputs = set(self.world.inputs(stage)[stage.key])
        assert inputs & set(failed) <= set(self.world.calls) | set(
            self.world.state(stage).outputs[stage.key]
        )

    @rule(stage=stages, n_commits=st.integers(0, 1), after=st.booleans())
    def die_at_a_commit(self, stage: Stage, n_commits: int, after: bool) -> None:
        self.world.tables.interrupt(n_commits, kill, after=after)
        try:
            self.world.run(stage)
        except KilledError:
            pass
        self.world.tables.interruptions.clear()

    @rule(stage=stages, n_done=st.integers(0, 3), batch_size=batch_sizes)
    def die_while_computing(self, stage: Stage, n_done: int, batch_size: int) -> None:
        n_commits = self.world.tables.n_commits
        try:
            self.world.run(stage, batch_size=batch_size, die_after=n_done)
        except KilledError:
            assert self.world.tables.n_commits == n_commits

    @rule(stage=stages, n_commits=st.integers(0, 1), name=document_ids, text=texts)
    def lose_to_a_rival(self, stage: Stage, n_commits: int, name: str, text: str) -> None:
        """Another run reads newer documents and commits right before the n-th commit of this one."""
        world = self.world

        def rival() -> None:
            world.documents[name] = text
            for each in STAGES[: STAGES.index(stage) + 1]:
                world.run(each)

        world.tables.interrupt(n_commits, rival)
        try:
            world.run(stage)
        except (ConcurrentWriteError, AssertionError):
            # Without a conflict the checks of the outer run speak of inputs of before.
            pass
        world.tables.interruptions.clear()

    @rule(stage=stages)
    def run_twice(self, stage: Stage) -> None:
        """The second run does nothing but retries."""
        first = self.world.run(stage)
        n_commits, retries = self.world.tables.n_commits, due(self.world, stage)
        second = self.world.run(stage)
        assert set(self.world.calls) == retries
        if not retries:
            assert self.world.tables.n_commits == n_commits
            assert {s: r.data_version for s, r in first.items()} == {
                s: r.data_version for s, r in second.items()
            }

    @invariant()
    def failures_are_few(self) -> None:
        for stage in STAGES:
            attempts = self.world.state(stage).failures.filter("is_transient")["attempts"]
            assert all(n >= 1 for n in attempts)

    def teardown(self) -> None:
        self.world.settle()
        fresh = self.world.fresh()
        assert self.world.content() == fresh.content()
        for stage in STAGES:
            assert self.world.versions(stage) == fresh.versions(stage)


Life.TestCase.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
TestAnyLifeEndsInTheStateOfAFreshBuild = Life.TestCase
