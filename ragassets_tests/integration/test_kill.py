"""Exactly once in effect: kill an ingestion anywhere, run it again, and nobody can tell.

Moments are the instants right before and right after each effect (a commit, a write to the
collection, …), counted by `scenario.watched_effects`; or times on the clock, for the real command.
"""

import os
import random
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ragassets_tests.corpora import corpus
from ragassets_tests.scenario import (
    MANUAL,
    MIXED,
    Content,
    Executioner,
    Project,
    fake_embedder,
    watched_effects,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

SEED = 20261121
N_SEEDED_MOMENTS = 16
N_RETIREMENT_MOMENTS = 8
N_KILLS = 10
N_DOCUMENTS = 100

HISTORY = ("source_objects",)
"""Tombstones say which listings there were, which depends on when the run was killed."""


class Killed(BaseException):
    """Stands in for SIGKILL where a process of its own for each moment would take an hour."""


def _die() -> None:
    raise Killed


def _moments(project: Project) -> list[str]:
    """The moments of an undisturbed ingestion with a fake model."""
    executioner = Executioner()
    with fake_embedder(), watched_effects(executioner):
        project.ingest()
    return executioner.moments


def _ingest(project: Project) -> None:
    with fake_embedder():
        project.ingest()


def _ingest_until(project: Project, moment: int) -> None:
    """Ingest up to a moment; from then on nothing has any effect."""
    executioner = Executioner(moment, _die)
    with fake_embedder(), watched_effects(executioner), suppress(Killed):
        project.ingest()
    assert len(executioner.moments) > moment


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The mixed corpus, never ingested."""
    project = Project(tmp_path_factory.mktemp("fresh") / "project", MIXED)
    project.save()
    return project


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The mixed corpus, ingested with a fake model."""
    project = Project(tmp_path_factory.mktemp("ingested") / "project", MIXED)
    _ingest(project)
    project.save()
    return project


def _change(project: Project) -> None:
    """Edit, delete, rename and shrink documents, and change what every payload holds."""
    project.edit("security.md", "sixteen", "eighteen")
    project.path("kitchen.txt").unlink()
    project.path("expenses.txt").rename(project.path("travel.txt"))
    project.write(MANUAL, project.path(MANUAL).read_text(encoding="utf-8").split("## Heating")[0])
    project.configure_source(metadata={"team": "facility"})


def test_a_process_killed_at_any_effect_leaves_nothing_that_the_next_run_does_not_mend(
    fresh: Project,
) -> None:
    """A real SIGKILL at seeded moments of a first ingestion."""
    moments = _moments(fresh.restore())
    undisturbed = fresh.content()
    assert fresh.disagreements() == []
    seeded = random.Random(SEED).sample(range(len(moments)), N_SEEDED_MOMENTS)
    for moment in sorted(seeded):
        project = fresh.restore()
        assert project.ingest_until(moment) == -signal.SIGKILL, moments[moment]
        _ingest(project)
        assert undisturbed.differences(project.content()) == [], moments[moment]
        assert project.disagreements() == [], moments[moment]
        assert project.audit() == [], moments[moment]


def test_an_alias_that_moved_before_the_kill_gets_its_history(fresh: Project) -> None:
    """A switch without a line in `live_index` could not be rolled back."""
    moments = _moments(fresh.restore())
    undisturbed = fresh.content()
    for moment in _around(moments, "switch_alias"):
        project = fresh.restore()
        _ingest_until(project, moment)
        _ingest(project)
        assert undisturbed.differences(project.content()) == [], moments[moment]


def test_sources_that_change_after_a_kill_leave_no_orphan(fresh: Project) -> None:
    """What the killed run had written of a document is not wanted any more when it is gone."""
    moments = _moments(fresh.restore())
    changed = fresh.restore()
    _change(changed)
    _ingest(changed)
    expected = changed.content()
    for moment in _around(moments, "upsert", "replace indexed_chunks", "replace embeddings"):
        project = fresh.restore()
        _ingest_until(project, moment)
        _change(project)
        _ingest(project)
        assert project.disagreements() == [], moments[moment]
        assert _searchable(expected) == _searchable(project.content()), moments[moment]


def test_sources_that_change_back_after_a_kill_are_as_they_were(ingested: Project) -> None:
    """The hardest case: the table says that a point is as wanted, and the killed run changed it."""
    before = ingested.restore().content()
    project = ingested.restore()
    _change(project)
    moments = _moments(project)
    assert project.disagreements() == []
    for moment in _around(
        moments, "upsert", "delete", "flush", "replace indexed_chunks", "replace _index_intents"
    ):
        project = ingested.restore()
        _change(project)
        _ingest_until(project, moment)
        project.revert()
        _ingest(project)
        assert project.disagreements() == [], moments[moment]
        assert before.differences(project.content(), but=HISTORY) == [], moments[moment]


def test_a_document_that_comes_back_after_a_kill_is_searchable(ingested: Project) -> None:
    """Its rows may stand while its points are deleted, or the other way round."""
    before = ingested.restore().content()
    project = ingested.restore()
    project.path("kitchen.txt").unlink()
    moments = _moments(project)
    for moment in _around(moments, "delete", "replace indexed_chunks", "replace _index_intents"):
        project = ingested.restore()
        project.path("kitchen.txt").unlink()
        _ingest_until(project, moment)
        project.revert()
        _ingest(project)
        assert project.disagreements() == [], moments[moment]
        assert before.differences(project.content(), but=HISTORY) == [], moments[moment]


def test_a_change_of_shards_that_is_killed_is_finished_by_the_next_run(ingested: Project) -> None:
    """Retiring shards touches every table; half of it must not be a state of its own."""
    project = ingested.restore()
    project.configure_source(shards=2)
    moments = _moments(project)
    assert project.disagreements() == []
    expected = project.content()
    rest = range(moments.index("after replace indexed_chunks"), len(moments))
    for moment in sorted(random.Random(SEED).sample(rest, N_RETIREMENT_MOMENTS)):
        project = ingested.restore()
        project.configure_source(shards=2)
        _ingest_until(project, moment)
        _ingest(project)
        assert project.disagreements() == [], moments[moment]
        assert expected.differences(project.content()) == [], moments[moment]


def _around(moments: list[str], *effects: str) -> list[int]:
    """Moments before and after these effects."""
    wanted = {f"{moment} {effect}" for moment in ("before", "after") for effect in effects}
    found = [number for number, what in enumerate(moments) if what in wanted]
    assert found
    return found


def _searchable(content: Content) -> object:
    """Chunks and points: files that were written at another time have another ETag."""
    return content.vectors.keys(), content.points, content.aliases


def _hundred_documents(project: Project) -> None:
    """Pages of real projects in several languages and formats; copies and broken files too."""
    path = corpus("bulk_sample") / "bulk_sample.tar.gz"
    with tarfile.open(path) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and 300 < m.size < 6_000]
        chosen = random.Random(SEED).sample(members, N_DOCUMENTS - 8)
        for number, member in enumerate(chosen):
            content = archive.extractfile(member)
            assert content is not None
            suffix = Path(member.name).suffix
            project.write(f"pages/{number:03d}{suffix}", content.read())
    for number in range(3):
        project.write(f"copies/{number}.md", project.path(_first(project, number)).read_bytes())
        project.write(f"broken/{number}.pdf", f"%PDF-1.7\nbroken {number}\n%%EOF\n")
    project.write("broken/empty.txt", "")
    project.write("broken/archive.docx", b"PK\x03\x04 no archive")


def _first(project: Project, number: int) -> str:
    pages = sorted(project.path("pages").iterdir())
    return str(pages[number].relative_to(project.documents))


class Command:
    """The real command on a project, in a session of its own."""

    def __init__(self, project: Project) -> None:
        """Start it."""
        self.project = project
        program = "from ragassets.cli import app; app()"
        config = str(project.config_file)
        self.process = project.start("-c", program, "ingest", "--config", config)
        self.started = time.monotonic()

    def wait(self) -> float:
        """Wait until it is done; the seconds that it took."""
        assert self.process.wait(timeout=900) == 0, self.project.log.read_text("utf-8")[-3000:]
        return time.monotonic() - self.started

    def kill_when(self, has_come: Callable[[float], bool]) -> bool:
        """Kill it with all its children when the moment comes; whether it was still running."""
        while not has_come(time.monotonic() - self.started):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.02)
                return False
        os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(timeout=60) == -signal.SIGKILL


def test_the_command_killed_ten_times_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    """The promise as a user meets it: the real command, the real model, a hundred documents."""
    project = Project(tmp_path / "project")
    project.configure(workers=2)
    _hundred_documents(project)
    assert sum(path.is_file() for path in project.documents.rglob("*")) == N_DOCUMENTS
    project.save()
    seconds = Command(project).wait()
    undisturbed = project.content()
    assert project.disagreements() == []
    assert len(undisturbed.catalog) == N_DOCUMENTS

    project = project.restore()
    root = project.folder / ".ragassets"
    seeded = random.Random(SEED)
    # Each run resumes the one before, so moments in the first half of a whole run reach the end;
    # some more lie inside the steps that take and write the most.
    times = [seconds * (0.1 + 0.5 * (number + seeded.random()) / 7) for number in range(7)]
    moments: list[Callable[[float], bool]] = [lambda now, at=at: now >= at for at in times]
    moments[3:3] = [
        lambda _: (root / "checkpoints" / "chunks").exists(),
        lambda _: any((root / "tables" / "chunks").glob("source_shard=*")),
        lambda _: (root / "tables" / "_index_intents").exists(),
    ]
    n_killed = 0
    while n_killed < N_KILLS:
        # A run that was done before its moment is checked, and the project begins anew.
        later = seconds * seeded.random() / 2
        has_come = moments.pop(0) if moments else lambda now, at=later: now >= at
        if Command(project).kill_when(has_come):
            n_killed += 1
        else:
            assert undisturbed.differences(project.content()) == []
            project = project.restore()
    Command(project).wait()
    assert undisturbed.differences(project.content()) == []
    assert project.disagreements() == []
    assert project.audit() == []
