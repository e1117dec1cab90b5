"""How our errors reach Dagster: a permanent one stops the retries, a transient one uses them."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg

from ragassets.defs.instance import WORKER_TAG
from ragassets.errors import RagAssetsError, StageError


class StepFailure(dg.Failure):
    """A failed step that Dagster must not retry; the error itself stays out of Dagster's log."""

    def __init__(self, error: Exception, description: str, metadata: dict[str, str]) -> None:
        """Describe the error to Dagster, and keep it for the command that runs the step."""
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - Dagster leaves types open
            description=description, metadata=metadata, allow_retries=False
        )
        self.error = error


@contextmanager
def failing_once(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Generator[None]:
    """Turn errors that a retry cannot help into a `Failure` that Dagster does not retry.

    A run that a command computes itself is not retried at all: somebody waits, and decides. Texts
    of foreign errors may hold secrets or a document, so Dagster gets their types and stack only.
    """
    is_attended = WORKER_TAG in context.run.tags
    try:
        yield
    except RagAssetsError as error:
        if error.is_transient and not is_attended:
            raise error from None
        facts = {"reason": error.reason, "category": error.category}
        raise StepFailure(error, str(error), facts) from None
    except Exception as error:  # noqa: BLE001 - without this its text would be in the event log
        from ragassets.core.outcomes import stack_trace

        facts = {"stack_trace": stack_trace(error)}
        if is_attended:
            raise StepFailure(error, type(error).__name__, facts) from None
        raise StageError(
            stage=context.op.name, subject=context.run.run_id, detail=facts["stack_trace"]
        ) from None
