"""The engine under fire: edits, failures, crashes and rivals, then the state of a fresh build."""

import errno
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ragassets.core.fingerprints import stable_hash
from ragassets.core.incremental import Failure, StageState, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches, stack_trace
from ragassets.core.stages import Outcome, RunContext, Stage, StageReport, run_stage
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
            part
            for part in self.parts.get(name, [])
            if not set(part["source_shard"]) <= set(partitions)
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
            frame = frame.with_columns(
                pl.lit(v).alias(k) for k, v in DIMENSIONS[stage.name].items()
            )
        hashed = with_input_hash(
            frame.drop("input_hash", strict=False), self.fingerprints[stage.name], "text"
        )
        return hashed.select(*stage.identity, "text", "input_hash")

    def compute(
        self, stage: Stage, inputs: pl.DataFrame, *, batch_size: int, die_after: int | None
    ) -> Callable[[list[str]], Iterator[Outcome]]:
        rows = {row[stage.key]: row for row in inputs.iter_rows(named=True)}

        def one(key: str) -> tuple[str, Sequence[Mapping[str, object]] | Failure]:
            self.calls.append(key)
            return key, attempt(
                lambda row: self.make(stage, row), rows[key], key=key, stage=stage.name
            )

        def all_of(keys: list[str]) -> Iterator[Outcome]:
            assert keys
            results = outcomes_in_batches(map(one, keys), stage, batch_size=batch_size)
            for n_done, outcome in enumerate(results):
                if n_done == die_after:
                    kill()
                yield outcome

        return all_of

    def make(self, stage: Stage, row: dict[str, str]) -> Sequence[Mapping[str, object]]:
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
        is_checked: bool = True,
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
        if not is_checked:
            return reports
        after = self.state(stage, shards)
        check_attempts(stage, before, after)
        check_keeping(stage, before, after)
        check_settled(stage, inputs, after)
        check_reports(stage, inputs, after, reports)
        return reports

    def run_all(self, batch_size: int = 2) -> None:
        for stage in STAGES:
            self.run(stage, batch_size=batch_size)

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

    @rule(stage=stages, name=document_ids, text=texts, shards=shard_lists)
    def write_and_run_one(self, stage: Stage, name: str, text: str, shards: list[str]) -> None:
        self.edit_and_bring(name, text, stage)
        self.world.run(stage, shards)

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

    def edit_and_bring(self, name: str, text: str, stage: Stage) -> None:
        """Edit a document and run every stage before the given one."""
        self.world.documents[name] = text
        for upstream in STAGES[: STAGES.index(stage)]:
            self.world.run(upstream)

    @rule(
        stage=stages,
        n_commits=st.integers(0, 1),
        after=st.booleans(),
        name=document_ids,
        text=texts,
    )
    def die_at_a_commit(
        self, stage: Stage, n_commits: int, after: bool, name: str, text: str
    ) -> None:
        self.edit_and_bring(name, text, stage)
        self.world.tables.interrupt(n_commits, kill, after=after)
        with suppress(KilledError):
            self.world.run(stage)
        self.world.tables.interruptions.clear()

    @rule(stage=stages, n_done=st.integers(0, 3), batch_size=batch_sizes)
    def die_while_computing(self, stage: Stage, n_done: int, batch_size: int) -> None:
        n_commits = self.world.tables.n_commits
        with suppress(KilledError):
            self.world.run(stage, batch_size=batch_size, die_after=n_done)
            return
        assert self.world.tables.n_commits == n_commits

    @rule(stage=stages, n_commits=st.integers(0, 1), name=document_ids, text=texts, newer=texts)
    def lose_to_a_rival(
        self, stage: Stage, n_commits: int, name: str, text: str, newer: str
    ) -> None:
        """Another run reads a newer document and commits right before a commit of this one."""
        self.edit_and_bring(name, text, stage)

        def rival() -> None:
            self.edit_and_bring(name, newer, stage)
            self.world.run(stage, is_checked=False)

        self.world.tables.interrupt(n_commits, rival)
        with suppress(ConcurrentWriteError):
            self.world.run(stage, is_checked=False)
        self.world.tables.interruptions.clear()

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


def settings_of(n_lives: int, n_steps: int) -> settings:
    """Hypothesis settings: every step is several runs of some 30 ms."""
    return settings(
        max_examples=n_lives,
        stateful_step_count=n_steps,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow],
    )


def test_any_life_ends_in_the_state_of_a_fresh_build() -> None:
    """Edits, failures, redrives, crashes and rivals leave no trace in what is searchable."""
    run_state_machine_as_test(Life, settings=settings_of(4, 8))


@pytest.mark.slow
def test_any_long_life_ends_in_the_state_of_a_fresh_build() -> None:
    """The same, long enough to meet two misfortunes in a row."""
    run_state_machine_as_test(Life, settings=settings_of(40, 20))


@settings(max_examples=3, deadline=None)
@given(
    documents=st.dictionaries(document_ids, texts, min_size=1),
    edits=st.dictionaries(document_ids, texts),
    order=st.permutations(SHARDS),
    batch_size=batch_sizes,
)
def test_order_batches_and_grouping_of_partitions_do_not_matter(
    documents: dict[str, str], edits: dict[str, str], order: list[str], batch_size: int
) -> None:
    """Dagster groups partitions as it likes; a data version must not tell how."""
    together, apart = World(dict(documents)), World(dict(reversed(documents.items())))
    together.run_all()
    for shard in order:
        for stage in STAGES:
            apart.run(stage, [shard], batch_size=batch_size)
    together.documents |= edits
    apart.documents |= edits
    together.run_all(batch_size=4)
    for stage in STAGES:
        for shard in reversed(order):
            apart.run(stage, [shard], batch_size=1)
    assert together.content() == apart.content()
    for stage in STAGES:
        assert together.versions(stage) == apart.versions(stage)


def world_of(*texts: str) -> World:
    """Documents d0, d1, … run through all stages."""
    world = World({f"d{number}": text for number, text in enumerate(texts)})
    world.run_all()
    return world


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


SECRET = "password=hunter2"


def failing_with(error: BaseException) -> Failure:
    """The failure that `attempt` makes of an error."""

    def work(_row: str) -> str:
        raise error

    result = attempt(work, "row", key="d0", stage="parse")
    assert isinstance(result, Failure)
    return result


def test_foreign_error_texts_and_machine_paths_are_not_recorded() -> None:
    """Foreign texts may hold secrets or the document; dead letters are read by many."""
    error = ValueError(SECRET)
    error.__cause__ = KeyError(SECRET)
    failure = failing_with(error)
    assert failure.key == "d0"
    assert (failure.category, failure.reason, failure.error_type) == (
        "stage",
        "stage_crashed",
        "ValueError",
    )
    assert not failure.is_transient
    assert "hunter2" not in repr(failure)
    assert not re.search(r"(?<![\w.])/\w", failure.stack_trace)
    assert "builtins.KeyError" in failure.stack_trace
    assert re.search(
        r"^  ragassets/core/outcomes.py:\d+ in attempt$", failure.stack_trace, re.MULTILINE
    )


def test_stack_traces_name_modules_below_their_import_root() -> None:
    """`json/decoder.py` helps; the directory in which Python lives does not."""
    with pytest.raises(pl.exceptions.ColumnNotFoundError) as missing:
        pl.DataFrame({"a": [1]}).select("b")
    trace = stack_trace(missing.value)
    assert re.search(r"^  polars/\S+\.py:\d+ in \w+$", trace, re.MULTILINE)
    assert "site-packages" not in trace
    import json

    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert re.search(r"^  json/decoder.py:\d+ in decode$", stack_trace(caught.value), re.MULTILINE)


def test_a_circle_of_causes_ends() -> None:
    """A library that re-raises its own cause must not hang the run."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert stack_trace(first).splitlines() == ["builtins.ValueError", "builtins.KeyError"]


def test_errors_of_one_document_are_recorded_with_our_own_message() -> None:
    """Our messages name the document and are safe to store."""
    failure = failing_with(CorruptDocumentError(uri="file:///a.pdf", detail="no pages"))
    assert (failure.category, failure.reason) == ("document", "corrupt")
    assert failure.message == "file:///a.pdf: no pages"
    assert failing_with(SourceUnavailableError(service="s3", detail="503")).is_transient


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        KeyboardInterrupt(),
        ServiceError(service="embedder", detail="429"),
        SystemResourceError(resource="disk", detail="full", fix="free some"),
        ConcurrentWriteError(table="t", partition="p"),
    ],
)
def test_errors_of_the_run_end_it(error: BaseException) -> None:
    """Kept as failures they would give up one document after the other."""
    with pytest.raises(type(error)):
        failing_with(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_an_exhausted_machine_ends_the_run_instead_of_every_document(number: int) -> None:
    """A full disk made every document a dead letter that is never retried."""
    with pytest.raises(SystemResourceError, match="parse") as caught:
        failing_with(OSError(number, SECRET))
    assert "hunter2" not in str(caught.value)
    assert failing_with(OSError(errno.ENOENT, SECRET)).reason == "stage_crashed"


def rows_of(key: str, text: object) -> tuple[str, list[dict[str, object]]]:
    """One output row of DOCUMENTS."""
    return key, [{"document_id": key, "source_shard": "s", "text": text, "output_hash": "h"}]


def test_rows_that_fit_no_frame_fail_alone() -> None:
    """JSON may hold a lone surrogate, which no table can store: one dead letter, not a dead run."""
    results = [rows_of("a", "good"), rows_of("b", "bad \ud800"), ("c", []), rows_of("d", "good")]
    (outcome,) = outcomes_in_batches(results, DOCUMENTS, batch_size=10)
    assert outcome.rows["document_id"].to_list() == ["a", "d"]
    assert [(f.key, f.error_type, f.is_transient) for f in outcome.failures] == [
        ("b", "UnicodeEncodeError", False),
        ("c", "StageError", False),
    ]


@given(n_results=st.integers(0, 9), batch_size=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_batches_hold_every_result_once(n_results: int, batch_size: int) -> None:
    """A result lost between two batches is a document lost."""
    failure = Failure("x", "stage", "r", "E", "m", "t", is_transient=False)
    results = [rows_of(str(n), "t") if n % 3 else (str(n), failure) for n in range(n_results)]
    outcomes = list(outcomes_in_batches(results, DOCUMENTS, batch_size=batch_size))
    sizes = [outcome.rows.height + len(outcome.failures) for outcome in outcomes]
    assert sum(sizes) == n_results
    assert all(size == batch_size for size in sizes[:-1])
    kept = [key for outcome in outcomes for key in outcome.rows["document_id"]]
    assert kept == [str(n) for n in range(n_results) if n % 3]
