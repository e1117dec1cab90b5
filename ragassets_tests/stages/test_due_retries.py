"""A failure that may pass is found when its time has come, in the partition that has it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.config import Config
from ragassets.core.asset_tables import EMBEDDINGS, RAW_DOCUMENTS
from ragassets.core.stages import SHARD, Stage
from ragassets.stages.due_retries import due_retries

FAILED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A project that never ran."""
    return Workspace(Config(root=str(tmp_path)))


def fail(
    workspace: Workspace,
    stage: Stage,
    shard: str,
    key: str,
    *,
    attempts: int = 1,
    is_transient: bool = True,
    first: datetime = FAILED_AT,
) -> None:
    """Write a failure of one document or chunk beside those that are there."""
    spec = stage.outputs if stage.has_inline_failures else stage.failures
    partition = {SHARD: shard, **{c: "a.b" for c in stage.partition_by if c != SHARD}}
    row = {
        **partition,
        stage.key: key,
        "failed_input_hash": "x",
        "is_transient": is_transient,
        "attempts": attempts,
        "first_failed_at": first,
        "last_failed_at": FAILED_AT,
    }
    columns = {name: [row.get(name)] for name in spec.schema}
    frame = pl.DataFrame(columns, schema=spec.schema)
    snapshot = workspace.tables.snapshot(spec)
    earlier = workspace.tables.read_at(snapshot, [partition])
    workspace.tables.replace(snapshot, [partition], pl.concat([earlier, frame]))


def test_nothing_is_due_where_nothing_failed(workspace: Workspace) -> None:
    assert due_retries(workspace, RAW_DOCUMENTS, FAILED_AT) == {}


def test_a_document_is_due_after_five_minutes(workspace: Workspace) -> None:
    fail(workspace, RAW_DOCUMENTS, "handbook-000", "d0")
    assert due_retries(workspace, RAW_DOCUMENTS, FAILED_AT + 4.9 * MINUTE) == {}
    due = due_retries(workspace, RAW_DOCUMENTS, FAILED_AT + 5 * MINUTE)
    assert due == {"handbook-000": FAILED_AT + 5 * MINUTE}


def test_a_partition_of_two_dimensions_has_dagsters_key(workspace: Workspace) -> None:
    fail(workspace, EMBEDDINGS, "handbook-001", "c0")
    assert set(due_retries(workspace, EMBEDDINGS, FAILED_AT + 5 * MINUTE)) == {"a.b|handbook-001"}


def test_the_failure_that_is_due_first_decides(workspace: Workspace) -> None:
    fail(workspace, RAW_DOCUMENTS, "handbook-000", "d0", attempts=3)
    fail(workspace, RAW_DOCUMENTS, "handbook-000", "d1", attempts=2)
    assert due_retries(workspace, RAW_DOCUMENTS, FAILED_AT + 19 * MINUTE) == {}
    due = due_retries(workspace, RAW_DOCUMENTS, FAILED_AT + 90 * MINUTE)
    assert due == {"handbook-000": FAILED_AT + 20 * MINUTE}


@pytest.mark.parametrize(("attempts", "is_transient"), [(5, True), (1, False)])
def test_what_is_parked_or_final_is_never_due(
    workspace: Workspace, attempts: int, is_transient: bool
) -> None:
    """A poison document must not be tried for ever."""
    fail(
        workspace, RAW_DOCUMENTS, "handbook-000", "d0",
        attempts=attempts, is_transient=is_transient,
    )  # fmt: skip
    assert due_retries(workspace, RAW_DOCUMENTS, FAILED_AT + timedelta(days=365)) == {}


def test_an_outage_is_due_as_long_as_it_lasts(workspace: Workspace) -> None:
    fail(
        workspace, EMBEDDINGS, "handbook-000", "c0",
        attempts=0, first=FAILED_AT - 30 * MINUTE,
    )  # fmt: skip
    assert due_retries(workspace, EMBEDDINGS, FAILED_AT + 29 * MINUTE) == {}
    assert set(due_retries(workspace, EMBEDDINGS, FAILED_AT + 30 * MINUTE)) == {"a.b|handbook-000"}
