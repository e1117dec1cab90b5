"""How our errors reach Dagster: a permanent one stops the retries, a transient one uses them."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg

from ragassets.defs.instance import WORKER_TAG
from ragassets.errors import RagAssetsError


@contextmanager
def failing_once(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Generator[None]:
    """Turn errors that a retry cannot help into a `Failure` that Dagster does not retry.

    A run that a command computes itself is not retried at all: somebody waits, and decides.
    """
    is_attended = WORKER_TAG in context.run.tags
    try:
        yield
    except RagAssetsError as error:
        if error.is_transient and not is_attended:
            raise
        raise dg.Failure(
            description=str(error),
            metadata={"reason": error.reason, "category": error.category},
            allow_retries=False,
        ) from error
    except Exception as error:
        if not is_attended:
            raise
        raise dg.Failure(description=type(error).__name__, allow_retries=False) from error
