"""Progress of stages on standard error: bars on a terminal, few plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Report = Callable[[str, int, int], None]
"""Stage, inputs done, inputs to do."""

LINE_SECONDS = 15.0
"""Between two lines of one stage: enough to see that a long one lives, too few to fill a log."""


@contextmanager
def stage_progress() -> Generator[Report]:
    """A callback that shows how far each stage is."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bars:
        yield _Bars(bars)


@contextmanager
def waiting(text: str) -> Generator[None]:
    """A spinner on standard error while nothing else is shown; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


class _Bars:
    """One bar a stage; a stage with nothing to do gets none."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._tasks: dict[str, tuple[TaskID, int, int]] = {}

    def __call__(self, stage: str, n_done: int, n_total: int) -> None:
        if not n_total:
            return
        name = _title(stage)
        if name not in self._tasks:
            self._tasks[name] = (self._bars.add_task(name, total=n_total), 0, n_total)
        task, before, total = self._tasks[name]
        if n_total != total or n_done < before:
            # The next group of partitions of the same stage: its work comes on top.
            self._bars.reset(task, total=n_total)
        self._bars.update(task, completed=n_done, total=n_total)
        self._tasks[name] = (task, n_done, n_total)


class _Lines:
    """A line when a stage is done, and now and then before."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, stage: str, n_done: int, n_total: int) -> None:
        is_done = bool(n_total) and n_done == n_total
        if is_done or (n_total and time.monotonic() - self._last > LINE_SECONDS):
            self._last = time.monotonic()
            typer.echo(f"{_title(stage)}: {n_done} of {n_total}", err=True)


def _title(stage: str) -> str:
    return stage.strip("_").replace("_", " ")
