"""What Dagster tries again: a machine's or a service's trouble, and only while nobody waits."""

import dagster as dg
import pytest

from ragassets.defs.failures import StepFailure, failing_once
from ragassets.defs.instance import worker_tags
from ragassets.errors import ConfigurationError, RagAssetsError, SystemResourceError

PERMANENT = ConfigurationError(key="root", value="x", problem="is wrong", fix="Mend it")
TRANSIENT = SystemResourceError(resource="disk", detail="ENOSPC", fix="Free space")


def n_attempts(error: Exception, tags: dict[str, str]) -> tuple[int, dg.ExecuteInProcessResult]:
    """How often a step that always raises this is tried, with two retries allowed."""
    attempts: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def unlucky(context: dg.AssetExecutionContext) -> None:
        attempts.append(len(attempts))
        with failing_once(context):
            raise error

    result = dg.materialize([unlucky], raise_on_error=False, tags=tags)
    assert not result.success
    return len(attempts), result


def test_the_two_errors_are_what_their_names_say() -> None:
    """Otherwise the tests below show nothing."""
    assert not PERMANENT.is_transient
    assert TRANSIENT.is_transient


def test_an_error_that_a_retry_cannot_help_is_not_retried() -> None:
    """A wrong configuration stays wrong, however often a model is loaded for it."""
    n_tried, result = n_attempts(PERMANENT, {})
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data

    assert n_tried == 1
    assert data is not None
    assert data.description == str(PERMANENT)
    assert data.metadata["category"].value == PERMANENT.category


def test_an_error_that_may_pass_is_retried_when_nobody_waits() -> None:
    """A full disk at night may be empty a minute later."""
    assert n_attempts(TRANSIENT, {})[0] == 3


def test_an_unknown_error_is_retried_when_nobody_waits() -> None:
    """A crash of a library may be the machine's fault."""
    assert n_attempts(RuntimeError("crashed"), {})[0] == 3


@pytest.mark.parametrize("error", [PERMANENT, TRANSIENT, RuntimeError("crashed")])
def test_a_run_that_somebody_waits_for_is_never_retried(error: Exception) -> None:
    """The command says what is wrong at once; the person decides."""
    assert n_attempts(error, worker_tags())[0] == 1


def test_the_text_of_an_unknown_error_stays_out_of_the_description() -> None:
    """It may hold secrets or a document."""
    _, result = n_attempts(RuntimeError("password=hunter2"), worker_tags())
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data

    assert data is not None
    assert data.description == "RuntimeError"
    assert "hunter2" not in repr(result.all_events)


def test_our_own_error_is_what_the_command_reports() -> None:
    """`ingest` unwraps it: the exit code depends on the error's kind."""

    @dg.asset
    def unlucky(context: dg.AssetExecutionContext) -> None:
        with failing_once(context):
            raise PERMANENT

    with pytest.raises(StepFailure) as caught:
        dg.materialize([unlucky])

    assert isinstance(caught.value.error, RagAssetsError)
