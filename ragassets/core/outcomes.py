"""From the work on one input to outcomes: errors of a document become failures, rows become frames.

What ends the run, and what is only one document's failure, is decided here and nowhere else.
"""

import errno
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import polars as pl

from ragassets.core.incremental import SOURCE_VERSION, Failure
from ragassets.core.stages import Outcome, Stage
from ragassets.errors import (
    EXHAUSTED,
    ChangedDuringReadError,
    DocumentError,
    MissingRawBytesError,
    RagAssetsError,
    SourceUnavailableError,
    StageError,
    SystemResourceError,
)

RECORDED_ERRORS = (
    DocumentError,
    StageError,
    SourceUnavailableError,
    ChangedDuringReadError,
    MissingRawBytesError,
)
"""Errors of one document. Any other error of ours says something of the run, and ends it."""

Row = TypeVar("Row")
Result = TypeVar("Result")


def attempt(work: Callable[[Row], Result], row: Row, *, key: str, stage: str) -> Result | Failure:
    """Do the work on one row; an error of that row becomes a `Failure`.

    Raises:
        RagAssetsError: One that says something of the run, not of the row.
        SystemResourceError: Disk or file handles ran out: kept as failures, that would give up
            every document for good.
    """
    try:
        return work(row)
    except RECORDED_ERRORS as error:
        return Failure(
            key=key,
            category=error.category,
            reason=error.reason,
            error_type=type(error).__name__,
            message=str(error),
            stack_trace=stack_trace(error),
            is_transient=error.is_transient,
        )
    except (RagAssetsError, MemoryError):
        raise
    except Exception as error:  # a bug on one document must not stop the others
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            raise SystemResourceError(
                resource=stage,
                detail=errno.errorcode[error.errno],
                fix="Free disk space or raise the limit, then run again",
            ) from error
        return Failure(
            key=key,
            category="stage",
            reason="stage_crashed",
            error_type=type(error).__name__,
            message=f"{stage} crashed with {type(error).__name__}; see the stack trace",
            stack_trace=stack_trace(error),
            is_transient=False,
        )


def stack_trace(error: BaseException) -> str:
    """Where an error came from, without its text: that may hold secrets or the document."""
    frames: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames.append(f"{type(link).__module__}.{type(link).__name__}")
        frames += [
            f"  {_module_path(frame.filename)}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(link.__traceback__)
        ]
        link = link.__cause__
    return "\n".join(frames)


IMPORT_ROOT = re.compile(r".*(?:/(?:site|dist)-packages/|/lib/python3[.\d]*/|/(?=ragassets/))")
"""What stands before a module's own path, up to the innermost root."""


def _module_path(filename: str) -> str:
    """The file below its import root, else its name, so that no machine path is stored."""
    below, n_roots = IMPORT_ROOT.subn("", filename, count=1)
    return below if n_roots else filename.rpartition("/")[2]


KeyResult = tuple[str, Sequence[Mapping[str, object]] | Failure]


def outcomes_in_batches(
    results: Iterable[KeyResult], stage: Stage, *, batch_size: int
) -> Iterator[Outcome]:
    """Gather the rows of single inputs into outcomes of `batch_size` inputs.

    An input whose rows fit no frame (text with a lone surrogate, a wrong type), or that has none,
    becomes a failure.

    Args:
        results: For each key, its output rows (content, `output_hash`, and `source_version` where
            it is another than the input's) or its failure.
        stage: The stage whose content columns the rows have.
        batch_size: Inputs in one outcome.
    """
    remaining = iter(results)
    while batch := list(islice(remaining, batch_size)):
        yield _gather(batch, stage)


def _gather(batch: Sequence[KeyResult], stage: Stage) -> Outcome:
    failures = [result for _, result in batch if isinstance(result, Failure)]
    made = [(key, result) for key, result in batch if not isinstance(result, Failure)]
    frame_of = partial(_frame, stage)
    whole = attempt(frame_of, made, key=stage.name, stage=stage.name)
    if not isinstance(whole, Failure):
        return Outcome(whole, failures)
    singles = [attempt(frame_of, [one], key=one[0], stage=stage.name) for one in made]
    frames = [single for single in singles if not isinstance(single, Failure)]
    failures += [single for single in singles if isinstance(single, Failure)]
    return Outcome(pl.concat([_frame(stage, []), *frames]), failures)


def _frame(
    stage: Stage, made: Sequence[tuple[str, Sequence[Mapping[str, object]]]]
) -> pl.DataFrame:
    for key, rows in made:
        if not rows:
            raise StageError(stage=stage.name, subject=key, detail="it gave no rows")
    schema = {**stage.content, "output_hash": pl.String(), SOURCE_VERSION: pl.String()}
    return pl.DataFrame([row for _, rows in made for row in rows], schema=schema)
