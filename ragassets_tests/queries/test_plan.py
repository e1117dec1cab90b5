"""A plan says what the build then does, to the row where it is exact."""

import json
import random
import tarfile
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.core.asset_tables import CHUNKS
from ragassets.queries import plan as plan_module
from ragassets.queries.plan import IndexPlan, Work, plan_build
from ragassets.stages.embedding_speed import EMBEDDING_SPEED, Stopwatch, read_speed, record_speed
from ragassets_tests.corpora import corpus
from ragassets_tests.scenario import CLEAN, MANUAL, MIXED, Project, manual
from ragassets_tests.stage_runs import (
    NOW,
    RecordingEmbedder,
    Reports,
    run_all,
    run_documents,
    run_version,
)

VERSIONS = {
    "v1": {"chunking": "recursive-256", "embedding_model": "minilm"},
    "remodelled": {"chunking": "recursive-256", "embedding_model": "other"},
    "rechunked": {"chunking": "small", "embedding_model": "minilm"},
    "twin": {"chunking": "recursive-256", "embedding_model": "minilm", "sparse": None},
}


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash vectors; what was embedded is written down."""
    RecordingEmbedder.embedded = []
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder",
        lambda name, config: RecordingEmbedder(name, config.dim, seed=config.model),
    )


def configured(project: Project) -> Project:
    """Two chunkings, two models, four versions."""
    project.configure_source(shards=3)
    project.configure(
        chunkings={
            "recursive-256": {"max_tokens": 256},
            "small": {"max_tokens": 96, "overlap_tokens": 16},
        },
        embedding_models={"minilm": {"model": "one", "dim": 8}, "other": {"model": "2", "dim": 8}},
        index_versions=VERSIONS,
    )
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A mixed corpus whose first version is built."""
    project = configured(Project(tmp_path / "project", MIXED))
    run_all(project)
    return project


def build(project: Project, name: str) -> tuple[Reports, list[str]]:
    """Build a version; the reports and the texts that were embedded."""
    RecordingEmbedder.embedded = []
    reports = run_version(project, name)
    return reports, [text for _, text in RecordingEmbedder.embedded]


def done(project: Project, reports: Reports, name: str) -> tuple[Work, Work, Work]:
    """What a build did to chunks, embeddings and points; removed chunks are not counted in rows."""
    chunking = VERSIONS[name]["chunking"]
    n_chunks = project.rows(CHUNKS.outputs, pl.col("chunking") == chunking).height
    n_new = reports.total("chunks", "n_new_rows")
    embeddings, points = (
        Work(*(reports.total(stage, f"n_{what}") for what in ("computed", "reused", "removed")))
        for stage in ("embeddings", "indexed_chunks")
    )
    return Work(n_new, n_chunks - n_new, embeddings.remove), embeddings, points


def planned(plan: IndexPlan) -> tuple[Work, Work, Work]:
    """The same of a plan."""
    return plan.chunks, plan.embeddings, plan.points


@pytest.mark.parametrize("name", ["v1", "remodelled", "rechunked", "twin"])
def test_a_plan_is_what_the_build_does(project: Project, name: str) -> None:
    """Nothing to do; a new model; a new chunking; a new collection of known vectors."""
    before = project.versions()
    plan = plan_build(project.workspace, name)
    assert project.versions() == before
    reports, embedded = build(project, name)
    assert planned(plan) == done(project, reports, name)
    assert plan.embeddings.compute == len(embedded)
    assert plan.estimate.error_share == 0.0
    assert plan.documents == len(MIXED) - 3  # a copy, a broken and an empty file
    again = plan_build(project.workspace, name)
    assert (again.chunks.compute, again.embeddings.compute, again.points.compute) == (0, 0, 0)
    assert again.estimate.tokens == 0
    assert again.estimate.disk_bytes == again.estimate.vector_store_bytes == 0


def test_a_model_change_chunks_nothing_and_a_rechunking_reuses_equal_texts(
    project: Project,
) -> None:
    """What a person wants to know before anything runs."""
    n_chunks = project.rows(CHUNKS.outputs).height
    remodelled = plan_build(project.workspace, "remodelled")
    assert remodelled.chunks == Work(0, n_chunks, 0)
    assert remodelled.embeddings == Work(n_chunks, 0, 0)
    twin = plan_build(project.workspace, "twin")
    assert twin.embeddings == Work(0, n_chunks, 0)
    assert twin.points == Work(n_chunks, 0, 0)
    rechunked = plan_build(project.workspace, "rechunked")
    assert rechunked.documents_to_chunk == rechunked.documents
    assert rechunked.embeddings.reuse == len(CLEAN)


def test_edits_deletions_and_copies_are_planned_to_the_row(project: Project) -> None:
    """Everything at once: an edit, a shrunken, a new, a copied and a deleted document."""
    project.edit("security.md", "sixteen", "eighteen")
    project.write(MANUAL, manual().split("## Windows")[0])
    project.write("new.txt", "The new printer stands in the corridor beside the archive room.")
    project.path("kitchen.txt").unlink()
    project.path("expenses.txt").rename(project.path("travel.txt"))
    project.configure_source(metadata={"team": "facility"})
    run_documents(project)
    plan = plan_build(project.workspace, "v1")
    reports, embedded = build(project, "v1")
    assert planned(plan) == done(project, reports, "v1")
    assert plan.embeddings.compute == len(embedded) > 0
    assert plan.chunks.remove > 0


def test_a_sample_is_near_and_says_how_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splitting a million documents to plan would be the build itself."""
    seeded = random.Random(3)
    documents = {
        f"{number:03d}.md": f"# Note {number}\n\n"
        + "\n\n".join(
            f"Paragraph {part} of note {number} says {' '.join(seeded.choices(WORDS, k=40))}."
            for part in range(seeded.randint(1, 14))
        )
        for number in range(60)
    }
    project = configured(Project(tmp_path / "project", documents))
    run_documents(project)
    exact = plan_build(project.workspace, "rechunked")
    monkeypatch.setattr(plan_module, "EXACT_DOCUMENTS", 20)
    monkeypatch.setattr(plan_module, "N_DRAWS", 40)
    sampled = plan_build(project.workspace, "rechunked")
    assert plan_build(project.workspace, "rechunked", samples=False).chunks == exact.chunks
    assert 0 < sampled.estimate.sampled_documents <= 40
    assert 0 < sampled.estimate.error_share < 0.1
    for name in ("chunks", "embeddings", "points"):
        truth, guess = getattr(exact, name).compute, getattr(sampled, name).compute
        assert abs(guess - truth) <= 0.1 * truth, name
    assert abs(sampled.estimate.tokens - exact.estimate.tokens) <= 0.1 * exact.estimate.tokens


WORDS = (
    "meeting",
    "garden",
    "invoice",
    "window",
    "station",
    "harvest",
    "letter",
    "engine",
    "river",
)


def test_prices_and_measured_speed_make_the_estimate(project: Project) -> None:
    """Tokens by the price of an API, hours by the price of a machine."""
    workspace = project.workspace
    plan = plan_build(workspace, "remodelled")
    assert plan.estimate.usd is None
    assert not plan.estimate.is_speed_measured
    assert plan.estimate.embedding_seconds == round(plan.estimate.tokens / 4_000, 1)
    project.configure(prices={"usd_per_gpu_hour": 3.6})
    from ragassets.stages.embeddings import model_fingerprint

    model = model_fingerprint(workspace.embedder("other"))
    clock = iter(NOW + timedelta(seconds=s) for s in (0, 60, 60, 70))
    stopwatch = Stopwatch(lambda: next(clock))
    for n_tokens in (1_000, 100):
        with stopwatch.timing(pl.Series([n_tokens])):
            pass
    record_speed(workspace.tables, model, stopwatch, run_id="r", now=NOW)
    measured = plan_build(project.workspace, "remodelled").estimate
    assert (measured.tokens_per_second, measured.is_speed_measured) == (10.0, True)
    assert measured.embedding_seconds == pytest.approx(plan.estimate.tokens / 10, abs=0.1)
    assert measured.usd == pytest.approx(measured.embedding_seconds * 0.001, abs=1e-4)
    project.configure(prices={"usd_per_million_tokens": {"other": 20.0}})
    priced = plan_build(project.workspace, "remodelled").estimate
    assert priced.usd == pytest.approx(plan.estimate.tokens * 20e-6, abs=1e-4)


def test_only_the_last_runs_of_a_model_count(project: Project) -> None:
    """A change of hardware must show within a few runs, and the table stays small."""
    tables = project.workspace.tables
    for number in range(25):
        clock = iter((NOW, NOW + timedelta(seconds=1 if number < 5 else 2)))
        stopwatch = Stopwatch(lambda clock=clock: next(clock))
        with stopwatch.timing(pl.Series([100])):
            pass
        now = NOW + timedelta(minutes=number)
        record_speed(tables, "a model", stopwatch, run_id=f"{number}", now=now)
    assert tables.read(EMBEDDING_SPEED, [{"model": "a model"}]).height == 20
    assert read_speed(tables, "a model").tokens_per_second == 50.0
    assert not read_speed(tables, "another").is_measured


def test_the_command_shows_and_prints_the_contract(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The public shape of DESIGN section 9."""
    from ragassets_tests.small_project import run

    config = ("--config", str(project.config_file))
    result = run("index", "plan", "rechunked", "--json", *config)
    assert result.exit_code == 0, result.stderr
    shape = json.loads(result.stdout)
    assert list(shape) == [
        "index_version",
        "documents",
        "chunks",
        "embeddings",
        "points",
        "estimate",
    ]
    assert shape["index_version"] == "rechunked"
    assert shape["documents"] == len(MIXED) - 3
    assert {"compute", "reuse"} <= shape["chunks"].keys() & shape["embeddings"].keys()
    assert shape["embeddings"]["reuse"] == len(CLEAN)
    assert {"tokens", "embedding_seconds", "usd", "disk_bytes", "vector_store_bytes"} <= shape[
        "estimate"
    ].keys()
    shown = run("index", "plan", "rechunked", *config)
    assert "assumed, not measured" in shown.stdout
    assert "no price in the configuration" in shown.stdout
    assert run("index", "plan", "nothing", *config).exit_code == 2


@pytest.mark.parametrize(
    "n_notes", [12, pytest.param(900, marks=pytest.mark.slow)], ids=["small", "thousands"]
)
def test_bytes_are_those_that_a_build_takes_within_a_tenth(tmp_path: Path, n_notes: int) -> None:
    """Of a first build, which is when somebody asks whether the disk is large enough."""
    seeded = random.Random(n_notes)
    notes = {
        f"{number:04d}.md": "\n\n".join(
            f"Note {number}.{part} of {seeded.randint(1, 10**9)}: {_words(seeded)}."
            for part in range(seeded.randint(2, 6))
        )
        for number in range(n_notes)
    }
    project = Project(tmp_path / "project", notes)
    project.configure(
        chunkings={"notes": {"max_tokens": 96, "overlap_tokens": 0}},
        embedding_models={"minilm": {"model": "one", "dim": 384}},
        index_versions={"v1": {"chunking": "notes", "embedding_model": "minilm"}},
    )
    run_documents(project)
    plan = plan_build(project.workspace, "v1")
    before = folder_bytes(project, "tables")
    run_version(project, "v1")
    grown = folder_bytes(project, "tables") - before
    used = folder_blocks(project, "qdrant")
    assert plan.points.compute > 3 * n_notes
    assert plan.estimate.disk_bytes == pytest.approx(grown, rel=0.1)
    assert plan.estimate.vector_store_bytes == pytest.approx(used, rel=0.1)
    assert plan.estimate.indexing_seconds == pytest.approx(plan.points.compute / 1000, abs=0.06)


def _words(seeded: random.Random) -> str:
    """Fifty words, half of which are as rare as names."""
    letters = "etaoinshrdlucmfwyp"
    rare = ["".join(seeded.choices(letters, k=seeded.randint(3, 8))) for _ in range(15)]
    words = [*rare, *seeded.choices(WORDS, k=25)]
    seeded.shuffle(words)
    return " ".join(words)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_plans_of_a_real_corpus_hold_within_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of real projects in several formats, planned from a sample, then built."""
    project = configured(Project(tmp_path / "project"))
    path = corpus("bulk_sample") / "bulk_sample.tar.gz"
    with tarfile.open(path) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and m.size < 60_000]
        for number, member in enumerate(random.Random(1).sample(members, 300)):
            content = archive.extractfile(member)
            assert content is not None
            project.write(f"{number:04d}{Path(member.name).suffix}", content.read())
    run_documents(project)
    run_version(project, "v1")
    monkeypatch.setattr(plan_module, "EXACT_DOCUMENTS", 60)
    plan = plan_build(project.workspace, "rechunked")
    assert plan.estimate.sampled_documents > 0
    sizes = [folder_bytes(project, part) for part in ("tables", "qdrant")]
    reports, embedded = build(project, "rechunked")
    real = done(project, reports, "rechunked")
    for guess, truth in zip(planned(plan), real, strict=True):
        assert abs(guess.compute - truth.compute) <= 0.1 * truth.compute
    assert abs(plan.embeddings.compute - len(embedded)) <= 0.1 * len(embedded)
    grown = [
        folder_bytes(project, part) - n for part, n in zip(("tables", "qdrant"), sizes, strict=True)
    ]
    print(plan.estimate, sizes, grown, real)
    remodelled = plan_build(project.workspace, "remodelled")
    reports, _ = build(project, "remodelled")
    assert planned(remodelled) == done(project, reports, "remodelled")


def folder_blocks(project: Project, name: str) -> int:
    """Bytes that the files below a folder of the root take on the disk; the engine's are sparse."""
    root = project.folder / ".ragassets" / name
    return sum(512 * file.stat().st_blocks for file in root.rglob("*") if file.is_file())


def folder_bytes(project: Project, name: str) -> int:
    """Bytes of all files below a folder of the root."""
    root = project.folder / ".ragassets" / name
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
