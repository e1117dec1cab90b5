"""Seal an index version: every shard there, counts equal, vectors sound, quality known."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEX_VERSIONS, INDEXED_CHUNKS
from ragassets.core.embedding import validate_vectors
from ragassets.core.evaluation import (
    GoldenQuery,
    RetrievalQuality,
    evaluate_rankings,
    parse_golden_queries,
    rank_documents,
)
from ragassets.core.fingerprints import data_version, fingerprint
from ragassets.core.indexing import VectorStore
from ragassets.core.searching import SearchRequest
from ragassets.core.stages import RunContext, Stage
from ragassets.errors import ConfigurationError
from ragassets.stages.retired_shards import retire_shards

SEALED, INCOMPLETE = "sealed", "incomplete"

HITS_PER_QUERY = 50
"""Chunks fetched to rank ten documents: a document of five chunks may fill five ranks."""


@dataclass(frozen=True)
class SealReport:
    """What was found when a version was sealed."""

    index_version: str
    state: str
    n_documents: int
    n_chunks: int
    n_points: int
    n_failed: int
    """Chunks and documents that are dead letters and therefore not in the collection."""
    problems: tuple[str, ...]
    quality: RetrievalQuality | None
    """None where no golden queries are configured: judged on completeness and soundness alone."""
    content_version: str

    @property
    def is_sealed(self) -> bool:
        """Whether an alias may point at it."""
        return self.state == SEALED


def seal_index_version(workspace: Workspace, index_version: str, context: RunContext) -> SealReport:
    """Judge a version and write its row of `index_versions`; retired shards are cleared before.

    A version whose points and golden queries are those of its last sealing is not measured again.
    """
    version = workspace.config.index_version(index_version)
    retire_shards(workspace, index_version, context)
    golden = golden_queries(workspace, index_version)
    indexed = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{"index_version": index_version}],
        columns=["chunk_id", "document_id", "output_hash"],
    )
    content_version = data_version(indexed.select("chunk_id", "output_hash").iter_rows())
    specification = fingerprint(
        {
            "version": version.model_dump(mode="json", exclude={"backfill"}),
            "golden": [asdict(query) for query in golden or ()],
        }
    )
    with workspace.vector_store() as store:
        n_points = store.count(index_version) if index_version in store.list_collections() else 0
        problems, n_failed = _problems(workspace, index_version, indexed, n_points)
        earlier = last_seal(workspace, index_version)
        is_known = earlier is not None and (
            earlier["content_version"] == content_version
            and earlier["specification"] == specification
        )
        if is_known and earlier is not None and earlier["state"] == SEALED:
            quality = _parse_quality(earlier["quality"])
        else:
            problems += _unsound_vectors(workspace, index_version)
            quality = None
            if golden is not None and not problems:
                quality = evaluate(workspace, store, index_version, golden)
    report = SealReport(
        index_version=index_version,
        state=INCOMPLETE if problems else SEALED,
        n_documents=indexed["document_id"].n_unique(),
        n_chunks=indexed.height,
        n_points=n_points,
        n_failed=n_failed,
        problems=tuple(problems),
        quality=quality,
        content_version=content_version,
    )
    _write(workspace, report, specification, context, earlier)
    return report


def last_seal(workspace: Workspace, index_version: str) -> dict[str, object] | None:
    """The version's row of `index_versions`."""
    rows = workspace.tables.read(INDEX_VERSIONS, [{"index_version": index_version}])
    return rows.row(0, named=True) if rows.height else None


def golden_queries(workspace: Workspace, index_version: str) -> list[GoldenQuery] | None:
    """Golden queries of the first alias that has some; None where none are configured.

    Raises:
        ConfigurationError: The file cannot be read, or a line is wrong.
    """
    for name, alias in workspace.config.aliases.items():
        if alias.golden_queries is None:
            continue
        try:
            text = Path(alias.golden_queries).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                key=f"aliases.{name}.golden_queries",
                value=alias.golden_queries,
                problem=f"cannot be read ({error.strerror}), so {index_version} cannot be judged",
                fix="Mend the path, or remove the key",
            ) from error
        return parse_golden_queries(text, origin=alias.golden_queries)
    return None


def evaluate(
    workspace: Workspace, store: VectorStore, index_version: str, golden: Sequence[GoldenQuery]
) -> RetrievalQuality:
    """Run the golden queries against a version, hybrid where it has sparse vectors."""
    version = workspace.config.index_version(index_version)
    vectors = workspace.embedder(version.embedding_model).embed_queries(
        [query.query for query in golden]
    )
    requests = [
        SearchRequest(
            vector=vector,
            text=query.query,
            mode="hybrid" if version.sparse else "dense",
            limit=HITS_PER_QUERY,
        )
        for query, vector in zip(golden, vectors, strict=True)
    ]
    found = store.search_batch(index_version, requests)
    rankings = [rank_documents([str(hit.payload["uri"]) for hit in hits]) for hits in found]
    return evaluate_rankings(golden, rankings)


def _problems(
    workspace: Workspace, index_version: str, indexed: pl.DataFrame, n_points: int
) -> tuple[list[str], int]:
    """What keeps the version from being complete, and how many dead letters it leaves out."""
    version = workspace.config.index_version(index_version)
    embedding_set, tables = version.embedding_set, workspace.tables
    chunks = tables.read(CHUNKS.outputs, [{"chunking": version.chunking}], columns=["chunk_id"])
    embedded = tables.read(
        EMBEDDINGS.outputs, [{"embedding_set": embedding_set}], columns=["chunk_id"]
    )
    failures = [
        _failures(workspace, CHUNKS, chunking=version.chunking),
        _failures(workspace, EMBEDDINGS, embedding_set=embedding_set),
        _failures(workspace, INDEXED_CHUNKS, index_version=index_version),
    ]
    n_pending = sum(frame.filter("is_transient").height for frame in failures)
    failed_chunks = set(failures[1]["chunk_id"]) | set(failures[2]["chunk_id"])
    missing = set(chunks["chunk_id"]) - set(embedded["chunk_id"]) - failed_chunks
    n_unindexed = len(set(embedded["chunk_id"]) - set(indexed["chunk_id"]) - failed_chunks)
    checks = [
        (bool(missing), f"{len(missing)} chunks have no embedding"),
        (n_pending > 0, f"{n_pending} failures are still to be tried again"),
        (n_unindexed > 0, f"{n_unindexed} embeddings are not in the collection's table"),
        (
            n_points != indexed.height,
            f"the collection holds {n_points} points, its table {indexed.height}",
        ),
    ]
    return [text for holds, text in checks if holds], sum(frame.height for frame in failures)


def _failures(workspace: Workspace, stage: Stage, **dimension: str) -> pl.DataFrame:
    return workspace.tables.read(stage.failures, [dimension], columns=[stage.key, "is_transient"])


def _unsound_vectors(workspace: Workspace, index_version: str) -> list[str]:
    """Problems of the vectors as the table holds them."""
    version = workspace.config.index_version(index_version)
    dim = workspace.config.embedding_model(version.embedding_model).dim
    vectors = workspace.tables.read(
        EMBEDDINGS.outputs, [{"embedding_set": version.embedding_set}], columns=["vector"]
    )["vector"]
    wrong_dim = vectors.filter(vectors.list.len() != dim).len()
    if wrong_dim:
        return [f"{wrong_dim} vectors do not have dimension {dim}"]
    if vectors.is_empty():
        return []
    unsound = validate_vectors(vectors.list.to_array(dim).to_numpy(), dim=dim)
    n_unsound = sum(problem is not None for problem in unsound)
    return [f"{n_unsound} vectors are not sound"] if n_unsound else []


def _parse_quality(text: object) -> RetrievalQuality | None:
    return RetrievalQuality(**json.loads(text)) if isinstance(text, str) else None


def _write(
    workspace: Workspace,
    report: SealReport,
    specification: str,
    context: RunContext,
    earlier: dict[str, object] | None,
) -> None:
    row = asdict(report) | {
        "specification": specification,
        "problems": list(report.problems),
        "quality": json.dumps(asdict(report.quality)) if report.quality else None,
    }
    if earlier is not None and all(earlier[name] == value for name, value in row.items()):
        return
    row |= {"sealed_at": context.now(), "run_id": context.run_id}
    snapshot = workspace.tables.snapshot(INDEX_VERSIONS)
    frame = pl.DataFrame([row], schema=INDEX_VERSIONS.schema)
    workspace.tables.replace(snapshot, [{"index_version": report.index_version}], frame)
