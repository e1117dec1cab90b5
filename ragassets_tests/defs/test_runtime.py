"""Keys, progress, previews: what stands between a stage and Dagster."""

import dagster as dg
import pytest

from ragassets.defs import runtime
from ragassets.defs.metadata import markdown_table
from ragassets.defs.runtime import partition_key, shards_by_dimension
from ragassets_tests.defs.test_dagster_behaviour import ABC, run_range

GRID = dg.MultiPartitionsDefinition(
    {"source_shard": ABC, "chunking": dg.StaticPartitionsDefinition(["x", "y"])}
)


def test_partitions_of_a_run_are_grouped_by_their_other_key() -> None:
    """A stage is updated once for each chunking, embedding set or version, over many shards."""
    seen: list[dict[str, list[str]]] = []

    @dg.asset(partitions_def=GRID)
    def grid(context: dg.AssetExecutionContext) -> None:
        seen.append(shards_by_dimension(context, "chunking"))

    @dg.asset(partitions_def=ABC)
    def line(context: dg.AssetExecutionContext) -> None:
        seen.append(shards_by_dimension(context, None))

    with dg.DagsterInstance.ephemeral() as instance:
        run_range([grid], instance, "x|b", "y|c")
        run_range([line], instance, "a", "b")

    assert seen == [{"x": ["b", "c"], "y": ["b", "c"]}, {"": ["a", "b"]}]


def test_partition_keys_are_those_of_dagster() -> None:
    """Dimensions in the order of their names, whatever order they were given in."""
    assert partition_key("s-000", None, "") == "s-000"
    assert partition_key("s-000", "chunking", "short") == "short|s-000"
    assert partition_key("s-000", "index_version", "v1") == "v1|s-000"


def test_a_long_stage_logs_its_progress_but_not_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event log is no terminal."""
    clock = iter(range(0, 1_000, 4))
    monkeypatch.setattr(runtime.time, "monotonic", lambda: next(clock))
    lines: list[str] = []

    class Log:
        def info(self, message: str, *values: object) -> None:
            lines.append(message % values)

    class Context:
        log = Log()

    log = runtime._log_progress(Context())  # pyright: ignore[reportArgumentType]
    for n_done in range(6):
        log("chunks", n_done, 6)
        log("chunks", 0, 0)

    assert lines == ["chunks: 2 of 6", "chunks: 5 of 6"]


def test_a_preview_shows_text_and_draws_nothing() -> None:
    """A document's text must not become a picture, a link or a broken table in the UI."""
    table = markdown_table([{"text": "![x](http://elsewhere/a.png) | <b>bold</b>\nsecond line"}])

    assert table.value.splitlines() == [
        "| text |",
        "| --- |",
        r"| !\[x](http://elsewhere/a.png) \| \<b>bold\</b> second line |",
    ]


def test_a_preview_keeps_the_end_of_a_uri_and_the_beginning_of_a_text() -> None:
    """Documents differ at the end of their path; a text is known by how it begins."""
    rows = [{"uri": "file:///" + "folder/" * 20 + "name.md", "text": "begin " + "x" * 500}]
    cells = markdown_table(rows).value.splitlines()[2].strip("| ").split(" | ")

    assert cells[0].startswith("…")
    assert cells[0].endswith("/name.md")
    assert cells[1].startswith("begin ")
    assert cells[1].endswith("…")
    assert all(len(cell) < 130 for cell in cells)


def test_a_preview_has_five_rows_at_most_and_says_when_there_are_none() -> None:
    """It is a glance, not the table."""
    many = markdown_table([{"n": number} for number in range(100)])

    assert len(many.value.splitlines()) == 2 + 5
    assert markdown_table([]).value == "_no rows_"
