"""Searches without pause, that check every answer: it comes from one version, and is all of it."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.queries.answers import answer
from ragassets.queries.questions import Question
from ragassets.queries.search import Target, resolve_target, search
from ragassets_tests.two_versions import LoadedModels

QUERIES = ("paid vacation", "coffee machine", "passwords", "roof garden", "hotel receipts")

FILTERS = {"source": "handbook"}
"""Keeps out points that the test itself adds and removes."""

Expected = Mapping[str, Sequence[Sequence[str]]]
"""By version: the chunk ids, with their scores, that each of `QUERIES` finds."""


def expected_answers(workspace: Workspace, versions: Sequence[str]) -> Expected:
    """What each version answers when nobody disturbs it."""
    return {
        version: [
            [f"{hit.chunk_id} {hit.score:.5f}" for hit in hits]
            for hits in search(workspace, Target(version, None), QUERIES, filters=FILTERS)
        ]
        for version in versions
    }


class SearchLoop:
    """One client that searches until it is told to stop."""

    def __init__(self, config_file: Path, expected: Expected, number: int) -> None:
        """Prepare it; nothing is opened yet."""
        self.workspace = Workspace(load_config(config_file))
        self.expected = expected
        self.number = number
        self.versions: Counter[str] = Counter()
        self.problems: list[str] = []
        self.n_rounds = 0

    def run(self, is_over: "threading.Event | Path") -> None:
        """Search until the event is set, or the file exists."""
        while not (is_over.exists() if isinstance(is_over, Path) else is_over.is_set()):
            self.n_rounds += 1
            try:
                self._search(f"client {self.number}, round {self.n_rounds}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                self.problems.append(f"{type(error).__name__}: {error}")

    def _search(self, user: str) -> None:
        target = resolve_target(self.workspace, alias="documents")
        questions = [Question(query, user) for query in QUERIES]
        found = list(answer(self.workspace, target, questions, filters=FILTERS))
        for position, one in enumerate(found):
            self.versions[one.index_version] += 1
            hits = [f"{hit.chunk_id} {hit.score:.5f}" for hit in one.hits]
            if hits != self.expected[one.index_version][position]:
                self.problems.append(f"{one.index_version} answered {hits} to {QUERIES[position]}")


def main(arguments: Sequence[str]) -> int:
    """Search in a process of its own: `CONFIG EXPECTED STOP_FILE`; says on stdout how it went."""
    config_file, expected, stop = map(Path, arguments)
    with pytest.MonkeyPatch.context() as patch:
        LoadedModels().install(patch)
        loop = SearchLoop(config_file, json.loads(expected.read_text(encoding="utf-8")), 99)
        stop.with_suffix(".ready").touch()
        loop.run(stop)
    print(json.dumps({"versions": loop.versions, "problems": loop.problems}))
    return 0


def wait_for(path: Path, seconds: float = 120) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)


def wait_for_rounds(loops: Sequence[SearchLoop], n_rounds: int = 2, seconds: float = 120) -> None:
    """Wait until every loop has begun so many searches more."""
    deadline = time.monotonic() + seconds
    wanted = [loop.n_rounds + n_rounds for loop in loops]
    while any(loop.n_rounds < n for loop, n in zip(loops, wanted, strict=True)):
        assert time.monotonic() < deadline, "a client hangs"
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
