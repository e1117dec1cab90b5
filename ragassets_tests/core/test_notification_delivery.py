"""Nothing is told twice in one state, nothing is lost, nothing is a flood: for any life."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.dead_letter_digest import digest, marks, new_letters
from ragassets.core.failed_checks import CheckResult, check_problems, fold_checks
from ragassets.core.failed_runs import Failure, RunEnd, fold_runs, run_problems
from ragassets.core.notification_delivery import (
    MAX_WAITING,
    Channel,
    after_failure,
    after_success,
    begin_try,
    enqueue,
    is_due,
    wants,
)
from ragassets.core.notification_messages import compose, plain_text, slack_blocks
from ragassets.core.notification_settings import ChannelConfig
from ragassets.core.problems import Notice, Problem, compare
from ragassets.core.source_health import Health, Listing, follow, guard_problems, source_problems

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def problem(key: str = "a", **more: object) -> Problem:
    return Problem(key=key, topic="guard", severity="error", title=f"problem {key}", **more)


def notice(key: str = "a", at: datetime = NOW, **more: object) -> Notice:
    return Notice(problem=problem(key, **more), kind="new", at=at, since=at)


def channel_config(**more: object) -> ChannelConfig:
    return ChannelConfig(webhook={"webhook_url": "http://127.0.0.1/"}, **more)


PROBLEMS = st.lists(
    st.builds(
        problem,
        st.sampled_from("abc"),
        magnitude=st.integers(1, 5),
        state=st.sampled_from(["", "worse"]),
    ),
    unique_by=lambda one: one.key,
)


@given(st.lists(PROBLEMS, max_size=8))
def test_a_problem_is_told_once_until_it_changes_or_ends(looks: list[list[Problem]]) -> None:
    """Whatever comes and goes: a second look at the same tells nothing, an end is told once."""
    told, open_keys = {}, set()
    for number, found in enumerate(looks):
        now = NOW + number * MINUTE
        told, notices = compare(told, found, looked_at={"guard"}, now=now)
        assert compare(told, found, looked_at={"guard"}, now=now) == (told, [])
        begun = {one.problem.key for one in notices if one.kind == "new"}
        ended = {one.problem.key for one in notices if one.kind == "ended"}
        assert begun & open_keys == set()
        assert ended <= open_keys
        open_keys = (open_keys | begun) - ended
        assert open_keys == {one.key for one in found} == set(told)


def test_a_topic_that_could_not_be_looked_at_ends_nothing() -> None:
    """The tables are out of reach: that a source is stale is not over by that."""
    told, _ = compare({}, [problem()], looked_at={"guard"}, now=NOW)
    assert compare(told, [], looked_at={"run_failure"}, now=NOW) == (told, [])


def test_a_growing_problem_is_told_when_it_has_doubled() -> None:
    """A thousand shards that fail one after the other."""
    told, sizes = {}, []
    for size in range(1, 1001):
        told, notices = compare(told, [problem(magnitude=size)], looked_at={"guard"}, now=NOW)
        sizes += [one.problem.magnitude for one in notices]
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),  # minutes that pass
        st.sampled_from(["nothing", "notice"]),
        st.sampled_from(["arrives", "fails", "dies after sending", "dies before sending"]),
        st.sampled_from([None, 5.0, 2000.0]),  # Retry-After
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(STEPS, st.integers(1, 6))
def test_a_channel_is_never_flooded_and_gets_everything_in_the_end(
    steps: list[tuple[int, str, str, float | None]], max_per_hour: int
) -> None:
    """Kills at any point, refusals and outages: at least once, and never more often than said."""
    config = channel_config(max_per_hour=max_per_hour)
    channel, now = Channel(), NOW
    tries: list[datetime] = []
    given_keys, arrived = set(), []
    for number, (minutes, event, outcome, retry_after) in enumerate(steps):
        now += minutes * MINUTE
        if event == "notice":
            channel = enqueue(channel, [notice(str(number), now)])
            given_keys.add(str(number))
        if not is_due(channel, config, now):
            continue
        sent, channel = channel, begin_try(channel, now)
        tries.append(now)
        if outcome in {"arrives", "dies after sending"}:
            arrived += [one.problem.key for one in sent.waiting]
        if outcome == "arrives":
            channel = after_success(channel, sent)
        elif outcome == "fails":
            channel = after_failure(channel, now, retry_after)
    for moment in tries:
        assert len([one for one in tries if moment - HOUR < one <= moment]) <= max_per_hour
    deadline = now + 3 * HOUR
    while channel.waiting and now < deadline:
        now += MINUTE
        if is_due(channel, config, now):
            arrived += [one.problem.key for one in channel.waiting]
            channel = after_success(begin_try(channel, now), channel)
    assert set(arrived) == given_keys
    assert not is_due(channel, config, now + HOUR)


def test_who_dies_in_a_try_waits_before_the_next() -> None:
    """Otherwise a tick that is killed after sending would send every 30 seconds."""
    channel, config, now = enqueue(Channel(), [notice()]), channel_config(), NOW
    moments = []
    for _ in range(1500):
        if is_due(channel, config, now):
            channel = begin_try(channel, now)
            moments.append((now - NOW) // MINUTE)
        now += timedelta(seconds=30)
    assert moments[:8] == [0, 1, 3, 7, 15, 31, 61, 91]


def test_slack_may_ask_for_more_patience_than_ours() -> None:
    channel = begin_try(enqueue(Channel(), [notice()]), NOW)
    channel = after_failure(channel, NOW, 600)
    assert not is_due(channel, channel_config(), NOW + 9 * MINUTE)
    assert is_due(channel, channel_config(), NOW + 10 * MINUTE)


def test_a_channel_that_takes_nothing_keeps_little_and_counts_the_rest() -> None:
    """It was down for a week; its first message says how much it missed."""
    channel = Channel()
    for number in range(MAX_WAITING + 250):
        channel = enqueue(channel, [notice(str(number))])
    assert len(channel.waiting) == MAX_WAITING
    assert channel.n_left_out == {"guard": 250}
    message = compose(
        channel.waiting,
        channel.n_left_out,
        project="acme",
        ui_url=None,
        severity="error",
        now=NOW,
    )
    assert message.subject == "[acme] 350 problems"
    assert len(message.sections) == 10
    assert message.footer[-1] == (
        "Held back, and only counted: 310 stopped deletions. See `ragassets status`"
    )
    assert len(slack_blocks(message)) == 12
    assert max(len(str(block)) for block in slack_blocks(message)) < 3300
    assert len(plain_text(message)) < 10_000
    assert after_success(channel, channel) == channel.model_copy(
        update={"waiting": (), "n_left_out": {}}
    )


def test_what_comes_while_a_message_is_sent_is_not_lost() -> None:
    sent = enqueue(Channel(), [notice("a")])
    later = enqueue(begin_try(sent, NOW), [notice("b"), notice("a", NOW + MINUTE)])
    rest = after_success(later, sent)
    assert [(one.problem.key, one.at) for one in rest.waiting] == [
        ("b", NOW),
        ("a", NOW + MINUTE),
    ]


def test_a_channel_is_told_what_it_wants() -> None:
    ended = Notice(problem=problem(), kind="ended", at=NOW, since=NOW)
    warning = notice().model_copy(
        update={"problem": problem().model_copy(update={"severity": "warning"})}
    )
    assert wants(channel_config(), ended)
    assert not wants(channel_config(resolved=False), ended)
    assert not wants(channel_config(on=["run_failure"]), notice())
    assert not wants(channel_config(min_severity="error"), warning)
    assert wants(channel_config(min_severity="error"), notice())
    covered = notice(covered_by="failed_check")
    assert not wants(channel_config(), covered)
    assert wants(channel_config(on=["guard"]), covered)


FAILURE = Failure(step="raw_documents", reason="storage_unavailable", text="root: no answer")


def end(partition: str, minute: int, failure: Failure | None = None) -> RunEnd:
    return RunEnd(
        run_id=f"run-{partition}-{minute}",
        job="process_documents",
        partition=partition,
        ended_at=NOW + minute * MINUTE,
        failure=failure,
    )


ENDS = st.lists(
    st.builds(
        end,
        st.sampled_from(["s-0", "s-1", "s-2"]),
        st.integers(0, 30),
        st.sampled_from([None, FAILURE]),
    ),
    unique_by=lambda one: one.run_id,
    max_size=12,
)


@given(ENDS, st.data())
def test_runs_may_be_folded_again_and_in_any_pieces(
    ends: list[RunEnd], data: st.DataObject
) -> None:
    """The last two minutes are read again in each tick."""
    ordered = sorted(ends, key=lambda one: one.ended_at)
    at_once = fold_runs([], ends)
    cut = data.draw(st.integers(0, len(ordered)))
    again = data.draw(st.integers(0, cut))
    pieces = fold_runs(fold_runs([], ordered[:cut]), ordered[again:])
    assert {one.partition: one.failure for one in pieces} == {
        one.partition: one.failure for one in at_once
    }
    last = {one.partition: one.failure for one in ordered}
    assert {one.partition for one in at_once} == {name for name, why in last.items() if why}


def test_a_run_over_a_range_ends_the_failures_inside_it() -> None:
    """Backfills take several partitions a run, and not the same ones each time."""
    failed = fold_runs([], [end("a|s-02", 1, FAILURE), end("a|s-03…a|s-05", 2, FAILURE)])
    assert len(fold_runs(failed, [end("a|s-04", 3)])) == 2
    assert [one.partition for one in fold_runs(failed, [end("a|s-01…a|s-02", 3)])] == [
        "a|s-03…a|s-05"
    ]
    assert fold_runs(failed, [end("a|s-00…a|s-07", 3)]) == []
    assert len(fold_runs(failed, [end("b|s-00…b|s-07", 3), end("", 4)])) == 2


def test_a_job_that_fails_for_many_partitions_in_one_way_is_one_problem() -> None:
    other = Failure(step="raw_documents", reason="stage_failed", text="it crashed")
    ends = [end(f"s-{number}", number, FAILURE) for number in range(10)] + [end("s-7", 20, other)]
    many, one = run_problems(fold_runs([], ends))[::-1]
    assert one.title == "process_documents failed in raw_documents: stage_failed"
    assert one.details == ("partition s-7", "it crashed")
    assert many.title == (
        "process_documents failed in raw_documents for 9 partitions: storage_unavailable"
    )
    assert many.details == (
        "partitions s-0, s-1, s-2, s-3, s-4, s-5, s-6, s-8 and 1 more",
        "root: no answer",
    )
    assert (many.path, many.magnitude) == ("runs/run-s-9-9", 9)


def result(minute: int, *, passed: bool = False, severity: str = "error") -> CheckResult:
    return CheckResult(
        asset="index_versions",
        check="gates_are_kept",
        partition="v2",
        at=NOW + minute * MINUTE,
        run_id="run-1",
        passed=passed,
        severity=severity,
        is_blocking=severity == "error",
        text="nDCG@10 0.41 is below 0.6",
    )


def test_a_failed_check_is_told_with_its_words_and_a_warning_when_it_lasts() -> None:
    (found,) = check_problems(fold_checks([], [result(0)]), NOW)
    assert found.title == "check gates_are_kept of index_versions v2 failed"
    assert found.details[0] == "nDCG@10 0.41 is below 0.6"
    warned = fold_checks([], [result(0, severity="warning")])
    assert check_problems(warned, NOW + 14 * MINUTE) == []
    assert [one.severity for one in check_problems(warned, NOW + 15 * MINUTE)] == ["warning"]
    again = fold_checks(warned, [result(0, severity="warning"), result(10, severity="warning")])
    assert again[0].since == NOW
    assert fold_checks(again, [result(12, passed=True), result(0)]) == []


def listing(minute: int, message: str = "", *, n_refused: int = 0) -> Listing:
    return Listing(
        source="handbook",
        listed_at=NOW + minute * MINUTE,
        is_complete=not message or n_refused > 0,
        n_objects=40,
        n_refused_deletions=n_refused,
        message=message,
    )


def problems_after(health: dict[str, Health], minute: int) -> list[str]:
    due_at = {"handbook": health["handbook"].healthy_at + HOUR}
    found = source_problems(
        health, due_at, unreachable_after=15 * MINUTE, now=NOW + minute * MINUTE
    )
    return [one.title for one in found]


def test_a_source_out_of_reach_is_told_when_it_stays_so() -> None:
    """A single 503 is nobody's business; half an hour is."""
    health = follow({}, ["handbook"], [listing(0)], NOW)
    health = follow(health, ["handbook"], [listing(5, "timed out")], NOW + 5 * MINUTE)
    assert problems_after(health, 5) == []
    health = follow(health, ["handbook"], [listing(19, "timed out")], NOW + 19 * MINUTE)
    assert problems_after(health, 19) == []
    assert problems_after(health, 20) == ["source 'handbook' cannot be read"]
    health = follow(health, ["handbook"], [listing(21)], NOW + 21 * MINUTE)
    assert problems_after(health, 22) == []


def test_a_source_that_nobody_lists_is_stale() -> None:
    """The sensor was switched off and forgotten."""
    health = follow({}, ["handbook"], [listing(0)], NOW)
    health = follow(health, ["handbook"], [listing(0)], NOW + 50 * MINUTE)
    assert problems_after(health, 60) == []
    assert problems_after(health, 61) == ["source 'handbook' was not listed in time"]


def test_a_guard_stop_says_how_many_and_how_to_confirm() -> None:
    text = "the listing would remove 30 of 40 documents"
    (found,) = guard_problems([listing(0, text, n_refused=30)])
    assert found.title == "source 'handbook': 30 refused deletions to be confirmed"
    assert found.details == (text,)
    assert found.commands == ("ragassets ingest handbook --confirm-deletions",)


def letters(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "dead_letter_id": f"letter of {name}",
                "document_id": name,
                "source": "handbook",
                "uri": f"file:///handbook/{name}",
                "stage": "parsed_documents",
                "reason": reason,
            }
            for name, reason in rows
        ]
    )


def test_a_digest_counts_by_reason_and_names_examples() -> None:
    old = letters(("a.pdf", "corrupt"))
    now = letters(("a.pdf", "encrypted"), *((f"{n}.pdf", "corrupt") for n in range(12)))
    new = new_letters(now, marks(old))
    assert new.height == 13
    found = digest(new, n_documents=13, since=NOW, now=NOW).problem
    assert found.title == "new dead letters: 13 documents (now 13 in all)"
    assert found.details[:2] == (
        "12 × handbook: corrupt (parsed_documents)",
        "1 × handbook: encrypted (parsed_documents)",
    )
    assert found.details[2] == "such as file:///handbook/0.pdf"
    assert len(found.details) == 7
    assert found.commands[0] == "ragassets dead-letters list --source handbook"
    assert new_letters(now, marks(now)).is_empty()


@given(st.sets(st.text("abcdef", min_size=1, max_size=4)), st.sets(st.text("abcdef", min_size=1)))
def test_exactly_the_letters_that_were_not_told_are_new(before: set[str], after: set[str]) -> None:
    told = marks(letters(*((name, "corrupt") for name in before))) if before else ""
    if not after:
        return
    new = new_letters(letters(*((name, "corrupt") for name in after)), told)
    assert set(new["document_id"]) == after - before
