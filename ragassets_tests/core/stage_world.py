"""Three stages over documents, and all the trouble that they can get into."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from ragassets.core.fingerprints import stable_hash
from ragassets.core.incremental import Failure, StageState, with_input_hash
from ragassets.core.outcomes import attempt, outcomes_in_batches
from ragassets.core.stages import Outcome, RunContext, Stage, StageReport, run_stage
from ragassets.core.tables import Partition, Snapshot
from ragassets.errors import CorruptDocumentError, SourceUnavailableError
from ragassets_tests.core.stage_checks import (
    check_attempts,
    check_keeping,
    check_reports,
    check_settled,
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
    pipeline_version: str = "1.0.0"
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
            pipeline_version=self.pipeline_version,
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
                "attempts",
                "first_failed_at",
                "last_failed_at",
                "failed_run_id",
                "failed_pipeline_version",
                "stack_trace",
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


def world_of(*texts: str) -> World:
    """Documents d0, d1, … run through all stages."""
    world = World({f"d{number}": text for number, text in enumerate(texts)})
    world.run_all()
    return world
