"""A text is embedded once with a model, whoever has it, wherever it goes, whoever is killed."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS
from ragassets.core.vector_ledger import UNUSED_VECTORS, VECTOR_LEDGER
from ragassets.stages.chunks import update_chunks
from ragassets.stages.embeddings import model_fingerprint, update_embeddings
from ragassets.stages.vector_ledger import forget_vectors
from ragassets_tests.scenario import CLEAN, MANUAL, Executioner, Project, manual, watched_effects
from ragassets_tests.stage_runs import (
    NOW,
    RecordingEmbedder,
    context,
    run_all,
    run_documents,
    run_version,
)

SET = "recursive-256.minilm"
DOCUMENTS = {**CLEAN, MANUAL: manual()}


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hash vectors; what was embedded is written down."""
    RecordingEmbedder.embedded = []
    monkeypatch.setattr(
        "ragassets.adapters.workspace.open_embedder",
        lambda name, config: RecordingEmbedder(name, config.dim, seed=config.model),
    )
    return None


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Eight documents in two shards, embedded once."""
    project = Project(tmp_path / "project", DOCUMENTS)
    project.configure_source(shards=2)
    project.configure(
        chunkings={
            "recursive-256": {"max_tokens": 256},
            "small": {"max_tokens": 96, "overlap_tokens": 16},
        },
        embedding_models={
            "minilm": {"model": "one", "dim": 8},
            "alias": {"model": "one", "dim": 8},
            "other": {"model": "two", "dim": 8},
        },
        index_versions={
            "v1": {"chunking": "recursive-256", "embedding_model": "minilm"},
            "again": {"chunking": "recursive-256", "embedding_model": "alias"},
            "rechunked": {"chunking": "small", "embedding_model": "minilm"},
            "remodelled": {"chunking": "recursive-256", "embedding_model": "other"},
        },
    )
    run_all(project, indexes=False)
    assert len(embedded()) == len(set(embedded())) == texts(project).n_unique()
    RecordingEmbedder.embedded = []
    return project


def embedded() -> list[str]:
    """The texts that the model was given since the project was made."""
    return [text for _, text in RecordingEmbedder.embedded]


def texts(project: Project, chunking: str = "recursive-256") -> pl.Series:
    """Texts of all chunks."""
    return project.rows(CHUNKS.outputs, pl.col("chunking") == chunking)["text"]


def vectors(project: Project, embedding_set: str = SET) -> dict[str, list[float]]:
    """Vector of every chunk."""
    rows = project.rows(EMBEDDINGS.outputs, pl.col("embedding_set") == embedding_set)
    return dict(rows.select("chunk_id", "vector").iter_rows())


def test_a_document_that_comes_back_costs_nothing(project: Project) -> None:
    """A folder that was moved away by mistake and put back is the usual case."""
    before, content = vectors(project), project.path(MANUAL).read_text(encoding="utf-8")
    project.path(MANUAL).unlink()
    gone = run_all(project, indexes=False)
    assert gone.total("embeddings", "n_removed") > 5
    project.write(MANUAL, content)
    back = run_all(project, indexes=False)
    assert embedded() == []
    assert back.total("embeddings", "n_computed") == 0
    assert back.total("embeddings", "n_taken_over") == len(before) - len(CLEAN)
    assert vectors(project) == before


def test_a_rename_into_another_shard_costs_nothing(project: Project) -> None:
    """The chunk ids are new, the texts are not."""
    before = vectors(project)
    project.path(MANUAL).rename(project.path("renamed.md"))
    project.configure_source(shards=3)
    run_all(project, indexes=False)
    assert embedded() == []
    assert sorted(vectors(project).values()) == sorted(before.values())


def test_another_chunking_embeds_only_the_texts_that_it_changes(project: Project) -> None:
    """Short documents are one chunk under either."""
    known = set(texts(project))
    reports = run_version(project, "rechunked", indexes=False)
    wanted = set(texts(project, "small"))
    assert len(wanted & known) == len(CLEAN)
    assert sorted(embedded()) == sorted(wanted - known)
    assert reports.total("embeddings", "n_computed") == len(wanted - known)
    assert reports.total("embeddings", "n_reused") == len(CLEAN)


def test_another_set_with_the_same_model_costs_nothing(project: Project) -> None:
    """A name is not a model: what decides the vectors is the same."""
    run_version(project, "again", indexes=False)
    assert embedded() == []
    assert vectors(project, "recursive-256.alias") == vectors(project)


def test_another_model_shares_nothing(project: Project) -> None:
    """Vectors of two models never mix."""
    run_version(project, "remodelled", indexes=False)
    assert len(embedded()) == texts(project).n_unique()
    assert sorted(vectors(project).values()) != sorted(
        vectors(project, "recursive-256.other").values()
    )


def test_documents_of_equal_text_are_embedded_once(project: Project) -> None:
    """Copies that other people may read survive the deduplication, and share their vectors."""
    project.configure(deduplication={"enabled": False})
    sentence = "The canteen serves soup on Mondays and closes at three in the afternoon."
    for name in ("soup.txt", "copies/soup.txt", "copies/more/soup.txt"):
        project.write(name, sentence)
    reports = run_all(project, indexes=False)
    assert embedded() == [sentence]
    assert reports.total("embeddings", "n_computed") == 1
    assert len(vectors(project)) == texts(project).len()


def test_a_vector_that_storage_damaged_is_embedded_again(project: Project) -> None:
    """A zero vector would make every search of the version fail."""
    ledger, tables = project.workspace.ledger, project.workspace.tables
    rows = tables.read(VECTOR_LEDGER).with_columns(vector=pl.lit([0.0] * 8, pl.List(pl.Float32)))
    places = rows.select("model", "prefix").unique().to_dicts()
    tables.replace(tables.snapshot(VECTOR_LEDGER), places, rows)
    assert ledger.known(rows["model"][0], rows["text_hash"])
    before = vectors(project)
    run_version(project, "again", indexes=False)
    assert len(embedded()) == rows.height
    assert vectors(project, "recursive-256.alias") == before


def test_a_lost_ledger_costs_embeddings_and_nothing_else(project: Project) -> None:
    """It holds nothing that cannot be made again."""
    before = vectors(project)
    shutil.rmtree(project.folder / ".ragassets" / "tables" / "_vector_ledger")
    assert run_all(project, indexes=False).total("embeddings", "n_computed") == 0
    project.path(MANUAL).rename(project.path("renamed.md"))
    run_all(project, indexes=False)
    assert len(embedded()) == len(before) - len(CLEAN)


def test_a_forgotten_text_is_gone_for_every_model(project: Project) -> None:
    """What a person has the right to see deleted must not come back from a cache."""
    run_version(project, "remodelled", indexes=False)
    row = project.rows(CHUNKS.outputs, pl.col("uri") == project.uri("kitchen.txt")).row(
        0, named=True
    )
    assert forget_vectors(project.workspace, [row["text_hash"]]) == 2
    assert row["text_hash"] not in project.rows(VECTOR_LEDGER)["text_hash"]
    assert forget_vectors(project.workspace, [row["text_hash"]]) == 0
    RecordingEmbedder.embedded = []
    run_version(project, "again", indexes=False)
    assert embedded() == [row["text"]]


@pytest.mark.slow
def test_unused_vectors_go_after_their_time_and_used_ones_stay(project: Project) -> None:
    """Ninety days by default, counted from the first look that finds them unused."""
    project.configure(ledger={"keep_days": 2})
    n_all = project.rows(VECTOR_LEDGER).height
    project.path(MANUAL).unlink()

    def after(days: float, name: str) -> int:
        """Rows of the ledger after a run that embeds one new document."""
        project.write(f"{name}.txt", f"Document {name} is about nothing but {name}.")
        run_documents(project)
        workspace, shards = project.workspace, project.config.source_shards()
        run = context(workspace, NOW + timedelta(days=days))
        update_chunks(workspace, "recursive-256", shards, run)
        update_embeddings(workspace, SET, shards, run)
        return project.rows(VECTOR_LEDGER).height

    assert after(0.5, "alpha") == n_all + 1  # the last look was half a day ago
    assert project.rows(UNUSED_VECTORS).is_empty()
    assert after(1.5, "beta") == n_all + 2
    n_unused = project.rows(UNUSED_VECTORS).height
    assert n_unused == n_all - len(CLEAN)
    assert after(2.6, "gamma") == n_all + 3
    assert after(3.7, "delta") == len(CLEAN) + 4
    assert project.rows(UNUSED_VECTORS).is_empty()
    project.write(MANUAL, manual())
    RecordingEmbedder.embedded = []
    run_all(project, indexes=False)
    assert len(embedded()) == n_unused


class Killed(BaseException):
    """Stands in for SIGKILL."""


def _die() -> None:
    raise Killed


@pytest.mark.slow
def test_killed_at_any_effect_the_end_is_the_same_and_nothing_is_embedded_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the ledger has a vector its checkpoint does, and after it the ledger."""
    monkeypatch.setattr(RecordingEmbedder, "window", 8)
    project.write("garden.md", manual().replace("Note", "Remark"))
    run_documents(project)
    workspace, shards = project.workspace, project.config.source_shards()
    update_chunks(workspace, "recursive-256", shards, context(workspace))
    project.save()

    def update(executioner: Executioner) -> None:
        current = project.workspace
        with watched_effects(executioner), suppress(Killed):
            update_embeddings(current, SET, shards, context(current))

    undisturbed = Executioner()
    update(undisturbed)
    expected, n_texts = vectors(project), len(embedded())
    ledger = sorted(project.rows(VECTOR_LEDGER)["text_hash"])
    assert "after append _vector_ledger" in undisturbed.moments
    assert len(ledger) == len(set(ledger)) == len(set(texts(project)))
    for moment, what in enumerate(undisturbed.moments):
        project.restore()
        RecordingEmbedder.embedded = []
        update(Executioner(moment, _die))
        update(Executioner())
        assert vectors(project) == expected, what
        assert set(project.rows(VECTOR_LEDGER)["text_hash"]) == set(ledger), what
        assert len(project.rows(VECTOR_LEDGER)) == len(ledger), what
        # The batch between its embedding and its checkpoint is all that can be lost.
        assert len(embedded()) <= n_texts + 8, what


def test_the_models_fingerprint_follows_the_model(project: Project) -> None:
    """Two revisions under one name must not share vectors."""
    one, same, other = (project.workspace.embedder(n) for n in ("minilm", "alias", "other"))
    assert model_fingerprint(one) == model_fingerprint(same) != model_fingerprint(other)
    assert project.rows(VECTOR_LEDGER)["model"].unique().to_list() == [model_fingerprint(one)]
