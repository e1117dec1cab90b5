"""The engine under fire: edits, failures, crashes and rivals, then the state of a fresh build."""

from contextlib import suppress
from typing import ClassVar

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

from ragassets.core.stages import Stage
from ragassets.errors import ConcurrentWriteError
from ragassets_tests.core.stage_world import (
    MAX_ATTEMPTS,
    SHARDS,
    STAGES,
    WORDS,
    InMemoryCheckpoints,
    KilledError,
    World,
    kill,
)


def due(world: World, stage: Stage) -> set[str]:
    """Keys whose transient failure is to be tried again."""
    failures = world.state(stage).failures.filter("is_transient")
    return set(failures.filter(pl.col("attempts") < MAX_ATTEMPTS)[stage.key])


document_ids = st.sampled_from([f"d{number}" for number in range(6)])
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
stages = st.sampled_from(STAGES)
shard_lists = st.lists(st.sampled_from(SHARDS), min_size=1, unique=True)
batch_sizes = st.integers(1, 4)

Content = dict[str, list[tuple[object, ...]]]


class Life(RuleBasedStateMachine):
    """A project's life: whatever happens, the end is a fresh build of what is there now."""

    ends: ClassVar[list[tuple[Content, Content]]] = []
    """How each life ended, beside a fresh build of what it ended with."""

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

    @rule(stage=stages, release=st.sampled_from(["1.0.0", "1.0.1", "2.0.0"]))
    def run_twice(self, stage: Stage, release: str) -> None:
        """The second run does nothing but retries, and a release in between changes nothing."""
        first = self.world.run(stage)
        self.world.pipeline_version = release
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
        self.ends.append((self.world.content(), fresh.content()))
        assert self.world.content() == fresh.content()
        for stage in STAGES:
            assert self.world.versions(stage) == fresh.versions(stage)


def ends_of_lives(n_lives: int, n_steps: int) -> list[tuple[Content, Content]]:
    """Live, and shrink the first life that ends wrong; every step is several runs of some 30 ms."""
    Life.ends.clear()
    lives = settings(
        max_examples=n_lives,
        stateful_step_count=n_steps,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(Life, settings=lives)
    return Life.ends


def test_any_life_ends_in_the_state_of_a_fresh_build() -> None:
    """Edits, failures, redrives, crashes and rivals leave no trace in what is searchable."""
    ends = ends_of_lives(4, 8)
    assert len(ends) >= 4
    assert all(end == fresh for end, fresh in ends)


@pytest.mark.slow
def test_any_long_life_ends_in_the_state_of_a_fresh_build() -> None:
    """The same, long enough to meet two misfortunes in a row."""
    ends = ends_of_lives(40, 20)
    assert len(ends) >= 40
    assert all(end == fresh for end, fresh in ends)


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
