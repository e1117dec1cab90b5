"""What a failure records, what ends the run, and how results become frames."""

import errno
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.incremental import Failure
from ragassets.core.outcomes import attempt, outcomes_in_batches, stack_trace
from ragassets.errors import (
    ConcurrentWriteError,
    CorruptDocumentError,
    ServiceError,
    SourceUnavailableError,
    SystemResourceError,
)
from ragassets_tests.core.stage_world import DOCUMENTS

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
