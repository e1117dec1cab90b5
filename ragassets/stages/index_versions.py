"""Seal an index version: every shard there, counts equal, vectors sound, quality known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

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
from ragassets.core.tables import PinnedTables, Tables
from ragassets.errors import ConfigurationError
from ragassets.stages.inputs import partitions_of
from ragassets.stages.retired_shards import retire_shards
from ragassets.stages.staleness import describe_unfinished_work, read_version_rows

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
    tables = PinnedTables(workspace.tables, INDEX_VERSIONS)
    golden = golden_queries(workspace, index_version)
    indexed = tables.read(
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
    problems, n_failed = _problems(workspace, index_version, tables)
    earlier = last_seal(workspace, index_version, tables)
    quality = None
    requests: list[SearchRequest] = []
    if earlier is not None and _is_known(earlier, content_version, specification):
        quality = _parse_quality(earlier["quality"])
    else:
        problems += _unsound_vectors(workspace, index_version, tables)
        if golden is not None and not problems:
            # Before the store is opened: loading a model takes seconds, and searches would wait.
            requests = _golden_requests(workspace, index_version, golden)
    with workspace.vector_store() as store:
        n_points = store.count(index_version) if index_version in store.list_collections() else 0
        if n_points != indexed.height:
            problems.append(f"the collection holds {n_points} points, its table {indexed.height}")
        elif golden is not None and requests:
            quality = _evaluate(store, index_version, golden, requests)
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
    _write(tables, report, specification, context, earlier)
    return report


def _is_known(earlier: Mapping[str, object], content_version: str, specification: str) -> bool:
    return (
        earlier["state"] == SEALED
        and earlier["content_version"] == content_version
        and earlier["specification"] == specification
    )


def last_seal(
    workspace: Workspace, index_version: str, tables: Tables | None = None
) -> dict[str, object] | None:
    """The version's row of `index_versions`."""
    rows = (tables or workspace.tables).read(INDEX_VERSIONS, [{"index_version": index_version}])
    return rows.row(0, named=True) if rows.height else None


def describe_unservable(workspace: Workspace, index_version: str) -> str | None:
    """Why no alias may point at a version, None where one may.

    A seal is not enough: the version may have been built further, or fallen behind, since.
    """
    tables = PinnedTables(workspace.tables)
    seal = last_seal(workspace, index_version, tables)
    if seal is None:
        return "was never built"
    if seal["state"] != SEALED:
        return f"is incomplete ({_join(cast('list[object]', seal['problems'] or []))})"
    rows = read_version_rows(workspace, index_version, tables)
    if rows.content_version != seal["content_version"]:
        return "has changed since it was sealed"
    unfinished = describe_unfinished_work(workspace, index_version, tables)
    return f"is not up to date ({_join(unfinished)})" if unfinished else None


def _join(problems: Sequence[object]) -> str:
    return "; ".join(map(str, problems))


def check_golden_queries(workspace: Workspace) -> None:
    """Read all golden queries, so that a wrong file is noticed before anything is computed.

    Raises:
        ConfigurationError: A file cannot be read, or a line is wrong.
    """
    for name in workspace.config.aliases:
        _read_golden_queries(workspace, name)


def golden_queries(workspace: Workspace, index_version: str) -> list[GoldenQuery] | None:
    """What a version is judged by; None where no golden queries are configured.

    Those of the aliases that start at the version or serve it now; where these have none, those of
    the first alias that has some.

    Raises:
        ConfigurationError: A file cannot be read, or a line is wrong.
    """
    aliases = workspace.config.aliases
    with workspace.vector_store() as store:
        targets = store.aliases()
    with_file = [name for name, alias in aliases.items() if alias.golden_queries is not None]
    own = [name for name in with_file if index_version in (aliases[name].live, targets.get(name))]
    # Two aliases may share a file.
    alias_of = {aliases[name].golden_queries: name for name in own or with_file[:1]}
    found = [query for name in alias_of.values() for query in _read_golden_queries(workspace, name)]
    return found if alias_of else None


def _read_golden_queries(workspace: Workspace, alias: str) -> list[GoldenQuery]:
    file = workspace.config.alias(alias).golden_queries
    if file is None:
        return []
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            key=f"aliases.{alias}.golden_queries",
            value=file,
            problem=f"cannot be read ({reason}), so no index version can be judged",
            fix="Mend the path, or remove the key",
        ) from error
    return parse_golden_queries(text, origin=file)


def _golden_requests(
    workspace: Workspace, index_version: str, golden: Sequence[GoldenQuery]
) -> list[SearchRequest]:
    """The golden queries as searches, hybrid where the version has sparse vectors."""
    version = workspace.config.index_version(index_version)
    vectors = workspace.embedder(version.embedding_model).embed_queries(
        [query.query for query in golden]
    )
    return [
        SearchRequest(
            vector=vector,
            text=query.query,
            mode="hybrid" if version.sparse else "dense",
            limit=HITS_PER_QUERY,
        )
        for query, vector in zip(golden, vectors, strict=True)
    ]


def _evaluate(
    store: VectorStore,
    index_version: str,
    golden: Sequence[GoldenQuery],
    requests: Sequence[SearchRequest],
) -> RetrievalQuality:
    found = store.search_batch(index_version, requests)
    rankings = [rank_documents([str(hit.payload["uri"]) for hit in hits]) for hits in found]
    return evaluate_rankings(golden, rankings)


def _problems(workspace: Workspace, index_version: str, tables: Tables) -> tuple[list[str], int]:
    """What keeps the version from being complete, and how many dead letters it leaves out."""
    version = workspace.config.index_version(index_version)
    failures = [
        _failures(tables, CHUNKS, chunking=version.chunking),
        _failures(tables, EMBEDDINGS, embedding_set=version.embedding_set),
        _failures(tables, INDEXED_CHUNKS, index_version=index_version),
    ]
    problems = describe_unfinished_work(workspace, index_version, tables)
    if n_pending := sum(frame.filter("is_transient").height for frame in failures):
        problems.append(f"{n_pending} failures are still to be tried again")
    return problems, sum(frame.height for frame in failures)


def _failures(tables: Tables, stage: Stage, **dimension: str) -> pl.DataFrame:
    return tables.read(stage.failures, [dimension], columns=[stage.key, "is_transient"])


def _unsound_vectors(workspace: Workspace, index_version: str, tables: Tables) -> list[str]:
    """Problems of the vectors as the table holds them."""
    version = workspace.config.index_version(index_version)
    dim = workspace.config.embedding_model(version.embedding_model).dim
    n_wrong = n_unsound = 0
    for shard in workspace.config.source_shards():  # one at a time: all vectors may be gigabytes
        partitions = partitions_of([shard], embedding_set=version.embedding_set)
        vectors = tables.read(EMBEDDINGS.outputs, partitions, columns=["vector"])["vector"]
        has_dim = vectors.list.len() == dim
        n_wrong += vectors.len() - int(has_dim.sum())
        sound = vectors.filter(has_dim).list.to_array(dim).to_numpy()
        n_unsound += sum(problem is not None for problem in validate_vectors(sound, dim=dim))
    counts = [(n_wrong, f"do not have dimension {dim}"), (n_unsound, "are not sound")]
    return [f"{number} vectors {what}" for number, what in counts if number]


def _parse_quality(text: object) -> RetrievalQuality | None:
    return RetrievalQuality(**json.loads(text)) if isinstance(text, str) else None


def _write(
    tables: PinnedTables,
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
    snapshot = tables.snapshot(INDEX_VERSIONS)
    frame = pl.DataFrame([row], schema=INDEX_VERSIONS.schema)
    tables.replace(snapshot, [{"index_version": report.index_version}], frame)
