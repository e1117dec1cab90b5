"""Plans and carried rows against a slow reference that goes row by row."""

from collections.abc import Iterable
from datetime import UTC, datetime

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.incremental import (
    FAILURE_COLUMNS,
    OUTPUT_COLUMNS,
    ChangePlan,
    Failure,
    StageState,
    apply_changes,
    carry_over,
    failure_frame,
    input_hash,
    plan_changes,
    with_input_hash,
)

IDENTITY: dict[str, pl.DataType] = {"chunk_id": pl.String(), "document_id": pl.String()}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)

keys = st.sampled_from(["d1-a", "d1-b", "d1-c", "d2-a", "d2-b"])
hashes = st.sampled_from(["h1", "h2"])
inputs_of_now = st.dictionaries(keys, hashes)
made_rows = st.dictionaries(keys, st.tuples(hashes, st.integers(1, 2)))
failed_rows = st.dictionaries(keys, st.tuples(hashes, st.booleans(), st.integers(1, 4)))


def outputs_frame(rows: Iterable[tuple[str, str, str]]) -> pl.DataFrame:
    """Rows of key, input hash and run id."""
    return pl.DataFrame(
        [
            {"chunk_id": key, "document_id": key[:2], "input_hash": hash_, "output_hash": "o",
             "run_id": run_id, "computed_at": NOW}
            for key, hash_, run_id in rows
        ],
        schema={**IDENTITY, **OUTPUT_COLUMNS},
    )  # fmt: skip


def failures_frame(
    rows: Iterable[tuple[str, str, bool, int]], now: datetime = NOW, run_id: str = "old"
) -> pl.DataFrame:
    """Rows of key, failed input hash, is_transient and attempts."""
    return failure_frame(
        [
            Failure(key, "service", "r", "E", "m", "t", is_transient).as_row(
                input_hash=hash_, run_id=run_id, now=now
            )
            | {"chunk_id": key, "document_id": key[:2], "attempts": attempts}
            for key, hash_, is_transient, attempts in rows
        ],
        IDENTITY,
    )


def inputs_frame(inputs: dict[str, str]) -> pl.DataFrame:
    """Keys and input hashes."""
    return pl.DataFrame(
        list(inputs.items()), schema={"chunk_id": pl.String, "input_hash": pl.String}, orient="row"
    )


def state_of(
    made: dict[str, tuple[str, int]], failed: dict[str, tuple[str, bool, int]]
) -> StageState:
    """A state that no engine made: any mixture, as rival writers and crashes may leave it."""
    return StageState(
        outputs_frame((k, h, "old") for k, (h, n_rows) in made.items() for _ in range(n_rows)),
        failures_frame((k, *rest) for k, rest in failed.items()),
    )


@settings(max_examples=60, deadline=None)
@given(inputs_of_now, made_rows, failed_rows, st.sets(keys), st.integers(1, 4))
def test_a_plan_computes_what_is_new_changed_due_or_redriven(
    inputs: dict[str, str],
    made: dict[str, tuple[str, int]],
    failed: dict[str, tuple[str, bool, int]],
    redriven: set[str],
    max_attempts: int,
) -> None:
    """Every key is in one set only, and each for the reason that the design names."""
    plan = plan_changes(
        inputs_frame(inputs),
        state_of(made, failed),
        key="chunk_id",
        redriven=redriven,
        max_attempts=max_attempts,
    )
    expected = set()
    for key, wanted in inputs.items():
        is_made = key in made and made[key][0] == wanted
        failed_hash, is_transient, attempts = failed.get(key, ("", True, 0))
        is_parked = failed_hash == wanted and (not is_transient or attempts >= max_attempts)
        if not is_made and not (is_parked and key not in redriven):
            expected.add(key)
    assert plan.compute == expected
    assert plan.reuse == inputs.keys() - expected
    assert plan.removed == (made.keys() | failed.keys()) - inputs.keys()
    assert plan.input_hashes == inputs


@settings(max_examples=80, deadline=None)
@given(inputs_of_now, made_rows, failed_rows, st.data(), st.booleans())
def test_applying_a_plan_gives_the_state_that_the_reference_gives(
    inputs: dict[str, str],
    made: dict[str, tuple[str, int]],
    failed: dict[str, tuple[str, bool, int]],
    data: st.DataObject,
    is_grouped: bool,
) -> None:
    """From any state, also one that a crash tore; and planning again computes retries only."""
    previous = state_of(made, failed)
    plan = plan_changes(inputs_frame(inputs), previous, key="chunk_id")
    fates = {
        key: data.draw(st.sampled_from(["made", "poison", "flaky"])) for key in sorted(plan.compute)
    }
    computed = StageState(
        outputs_frame((k, inputs[k], "new") for k, fate in fates.items() if fate == "made"),
        failures_frame(
            ((k, inputs[k], fate == "flaky", 1) for k, fate in fates.items() if fate != "made"),
            LATER,
            "new",
        ),
    )
    group = "document_id" if is_grouped else None
    after = apply_changes(plan, previous, computed, key="chunk_id", group=group)

    is_current = {k for k in inputs.keys() - fates.keys() if k in made and made[k][0] == inputs[k]}
    failures = {
        key: (hash_, is_transient, attempts, NOW)
        for key, (hash_, is_transient, attempts) in failed.items()
        if key in inputs and key not in fates and key not in is_current and hash_ == inputs[key]
    }
    for key, fate in fates.items():
        if fate != "made":
            is_repeated = key in failed and failed[key][0] == inputs[key]
            attempts = 1 + (failed[key][2] if is_repeated else 0)
            failures[key] = (inputs[key], fate == "flaky", attempts, NOW if is_repeated else LATER)
    pending = {key for key, failure in failures.items() if failure[1]}
    pending_groups = {key[:2] for key in pending} if is_grouped else set()
    outputs = [(key, inputs[key], "new") for key, fate in fates.items() if fate == "made"]
    for key, (hash_, n_rows) in made.items():
        stays = key in is_current or key in pending or key[:2] in pending_groups
        if stays and fates.get(key) != "made":
            outputs += [(key, hash_, "old")] * n_rows
    assert sorted(after.outputs.select("chunk_id", "input_hash", "run_id").rows()) == sorted(
        outputs
    )
    columns = ("failed_input_hash", "is_transient", "attempts", "first_failed_at")
    assert {
        row[0]: row[1:] for row in after.failures.select("chunk_id", *columns).rows()
    } == failures

    again = plan_changes(inputs_frame(inputs), after, key="chunk_id")
    assert again.compute <= pending
    nothing = StageState(after.outputs.clear(), after.failures.clear())
    settled = carry_over(
        ChangePlan(frozenset(), frozenset(inputs), again.removed, inputs),
        after,
        nothing,
        key="chunk_id",
        group=group,
    )
    assert settled.outputs.height == after.outputs.height
    assert settled.failures.height == after.failures.height


def test_empty_frames_keep_their_types() -> None:
    """The first run, and the run after the last document went, have no rows to guess types from."""
    empty = state_of({}, {})
    plan = plan_changes(inputs_frame({}), empty, key="chunk_id")
    after = apply_changes(plan, empty, empty, key="chunk_id", group="document_id")
    assert after.outputs.schema == pl.Schema({**IDENTITY, **OUTPUT_COLUMNS})
    assert after.failures.schema == pl.Schema({**IDENTITY, **FAILURE_COLUMNS})


def test_an_input_hash_covers_the_fingerprint_and_every_column_in_order() -> None:
    """A missing value is not an empty one, and two columns do not run together."""
    rows = pl.DataFrame({"a": ["x", "xy", None, ""], "b": ["yz", "z", "q", "q"]})
    hashed = with_input_hash(rows, "f1", "a", "b")["input_hash"].to_list()
    assert len(set(hashed)) == 4
    assert hashed[0] == input_hash("f1", "x", "yz")
    assert not set(hashed) & set(with_input_hash(rows, "f2", "a", "b")["input_hash"])
    assert not set(hashed) & set(with_input_hash(rows, "f1", "b", "a")["input_hash"])
    assert with_input_hash(rows.clear(), "f1", "a")["input_hash"].dtype == pl.String


def failed_again(state: StageState, *, n_attempts: int) -> StageState:
    """The state after one more run in which the only chunk failed transiently."""
    inputs = inputs_frame({"d1-a": "h1"})
    failure = Failure("d1-a", "service", "outage", "E", "m", "", True, n_attempts)
    row = failure.as_row(input_hash="h1", run_id="run", now=LATER)
    rows = [{"chunk_id": "d1-a", "document_id": "d1", **row}]
    computed = StageState(state.outputs.clear(), failure_frame(rows, IDENTITY))
    plan = plan_changes(inputs, state, key="chunk_id")
    assert plan.compute == {"d1-a"}
    return apply_changes(plan, state, computed, key="chunk_id")


def test_an_outage_never_parks_what_it_did_not_look_at() -> None:
    """Seven runs against a dead service, then five failures of its own: only these count."""
    state = StageState(outputs_frame([]), failure_frame([], IDENTITY))
    for n_attempts in [0] * 7 + [1] * 5:
        state = failed_again(state, n_attempts=n_attempts)
    assert state.failures["attempts"].to_list() == [5]
    plan = plan_changes(inputs_frame({"d1-a": "h1"}), state, key="chunk_id")
    assert plan.compute == frozenset()
