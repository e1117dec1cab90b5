"""Embeddings to points of one index version's collection: write, verify, commit, then delete.

The table `_index_intents` names the points that a run is about to write or to delete, before it
does either; it is emptied last. What a run that died left there is doubtful, because the sources
may have changed back since: the next run writes those points again where they are wanted, whatever
the table says of them, and deletes the others. So deleting comes after the commit: the other way
round, a document that came back after a crash between the two would be in the table and not in the
collection.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ragassets.adapters.look_ahead import one_ahead
from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEX_INTENTS, INDEXED_CHUNKS
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import SOURCE_VERSION, StageState
from ragassets.core.indexing import (
    VERSION_KEYS,
    PointBatch,
    VectorStore,
    chunk_payload,
    point_id,
)
from ragassets.core.stages import SHARD, Outcome, RunContext, StageReport, run_stage
from ragassets.core.tables import PinnedTables, Tables
from ragassets.core.versions import PIPELINE_VERSION, STAGE_VERSIONS
from ragassets.errors import StageError
from ragassets.stages.batches import in_batches
from ragassets.stages.build_windows import BuildWindow, in_version_window, keep_begun
from ragassets.stages.dropped_versions import refuse_dropped
from ragassets.stages.inputs import good_rows, partitions_of, with_source_input_hash
from ragassets.stages.recorded_settings import record_settings

BATCH_POINTS = 1_000
"""Points in one write: 2 MB of vectors and payload at 384 dimensions."""

COLUMNS = ("chunk_id", "document_id", "uri", "source", "source_shard")
PAYLOAD_COLUMNS = (
    "text",
    "page",
    "title",
    "language",
    "document_type",
    "metadata",
    SOURCE_VERSION,
)


def update_indexed_chunks(
    workspace: Workspace, index_version: str, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `indexed_chunks` of some shards, and their points, up to date; a report for each.

    Raises:
        ConfigurationError: The version's settings were others when it was begun.
        IndexVersionError: The version was dropped.
    """
    with workspace.index_writer(index_version) as store:
        refuse_dropped(workspace, index_version)
        record_settings(workspace, "index_versions", index_version, context)
        return _IndexRun(workspace, store, index_version, shards).update(context)


class _IndexRun:
    """One run over some shards of one index version."""

    def __init__(
        self, workspace: Workspace, store: VectorStore, index_version: str, shards: Sequence[str]
    ) -> None:
        self.workspace, self.store = workspace, store
        self.tables: Tables = workspace.tables
        self.name, self.shards = index_version, list(shards)
        self.version = workspace.config.index_version(index_version)
        self.partitions = partitions_of(shards, index_version=index_version)
        self.pipeline_version = PIPELINE_VERSION
        self.inputs = pl.DataFrame()
        self.window = BuildWindow(since=None)

    def update(self, context: RunContext) -> dict[str, StageReport]:
        """Write, verify, commit, delete.

        The tables are pinned once the store's lock is held and the doubtful rows are gone: what was
        pinned before would be outdated by whoever held the lock. The intents are never pinned; they
        tell what happened outside the tables until now.
        """
        self.pipeline_version = context.pipeline_version
        self._ensure_collection()
        self._drop_doubtful_rows()
        self.window = keep_begun(self.workspace, self.name, context.now())
        self.tables = PinnedTables(
            self.workspace.tables, INDEXED_CHUNKS.outputs, INDEXED_CHUNKS.failures
        )
        self.inputs = self._inputs()
        reports = run_stage(
            INDEXED_CHUNKS,
            self.partitions,
            self.inputs,
            self._write_points,
            tables=self.tables,
            # Points are written fast, and a checkpoint could not say whether they are still there.
            context=dataclasses.replace(context, checkpoints=None),
            before_commit=self._intend_deletions,
        )
        settle_intents(self.workspace, self.store, self.name, self.shards)
        return reports

    def _ensure_collection(self) -> None:
        """Create the collection; where it is missing, whatever the table says was indexed is gone.

        The table goes first: a crash in between must not leave rows beside an empty collection.
        """
        embedder = self.workspace.embedder(self.version.embedding_model)
        config = self.workspace.collection_config(self.name).model_copy(
            update={"embedding": embedder.fingerprint}
        )
        self.store.ensure_collection(self.name, config, before_create=self._forget_points)

    def _forget_points(self) -> None:
        """Empty the version's table; from here on nobody else can drop the version."""
        refuse_dropped(self.workspace, self.name)
        snapshot = self.tables.snapshot(INDEXED_CHUNKS.outputs)
        stale = self.tables.read_at(snapshot, [{"index_version": self.name}], columns=[SHARD])
        if stale.height:
            self.tables.replace(
                snapshot,
                partitions_of(sorted(set(stale[SHARD])), index_version=self.name),
                INDEXED_CHUNKS.outputs.empty_frame(),
            )

    def _drop_doubtful_rows(self) -> None:
        """Forget the rows whose points a killed run may have overwritten or deleted.

        Their points stay named in the intents until this run is through.
        """
        retired = set(self._intents([{"index_version": self.name}])[SHARD]) - set(
            self.workspace.config.source_shards()
        )
        shards = sorted({*self.shards, *retired})
        doubtful = self._intents(partitions_of(shards, index_version=self.name))["point_id"]
        if doubtful.is_empty():
            return
        snapshot = self.tables.snapshot(INDEXED_CHUNKS.outputs)
        rows = self.tables.read_at(snapshot, self.partitions)
        is_doubtful = pl.col("point_id").is_in(doubtful.to_list())
        touched = sorted(set(rows.filter(is_doubtful)[SHARD]))
        if touched:
            kept = rows.filter(pl.col(SHARD).is_in(touched) & ~is_doubtful)
            touched_partitions = partitions_of(touched, index_version=self.name)
            self.tables.replace(snapshot, touched_partitions, kept)

    def _inputs(self) -> pl.DataFrame:
        """Chunks that have an embedding, hashed over all that decides their point.

        An embedding whose chunk is gone is one that a pending replacement keeps alive: its point
        stays as it is.
        """
        upstream = read_upstream(self.workspace, self.name, self.shards, self.tables)
        columns = pl.lit(self.name).alias("index_version")
        standing = self.tables.read(
            INDEXED_CHUNKS.outputs, self.partitions, columns=["chunk_id", "input_hash"]
        )
        kept_alive = (
            upstream.embedded.join(upstream.chunks, on="chunk_id", how="anti")
            .with_columns(columns)
            .join(standing, on="chunk_id")
            .select(*INDEXED_CHUNKS.identity, "input_hash")
        )
        wanted = in_version_window(self.window, upstream.wanted, self.shards, self.tables)
        fresh = wanted.with_columns(columns)
        return pl.concat([fresh.select(kept_alive.columns), kept_alive])

    def _write_points(self, keys: list[str]) -> Iterator[Outcome]:
        """Write the points of these chunks and make sure that they are there."""
        self._intend([point_id(key) for key in keys], self._shards_of(keys))
        frames = in_batches(self._points(keys), BATCH_POINTS)
        # Reading tables and waiting for a server leave the interpreter to the other thread.
        for rows, batch in one_ahead(map(self._batch, frames)):
            self.store.upsert(self.name, batch)
            hashes = [str(payload["payload_hash"]) for payload in batch.payloads]
            self._verify(dict(zip(batch.point_ids, hashes, strict=True)))
            output_hashes = [
                stable_hash(*pair) for pair in zip(hashes, rows["vector_hash"], strict=True)
            ]
            yield Outcome(
                rows.with_columns(
                    pl.Series("point_id", batch.point_ids, dtype=pl.String),
                    pl.Series("payload_hash", hashes, dtype=pl.String),
                    pl.Series("output_hash", output_hashes, dtype=pl.String),
                    **{name: pl.lit(value) for name, value in self._stamps.items()},
                ).select(*INDEXED_CHUNKS.content, SOURCE_VERSION, "output_hash")
            )
        self.store.flush(self.name)

    def _batch(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, PointBatch]:
        """The rows, and the points that they become."""
        fields = rows.select(*COLUMNS, *PAYLOAD_COLUMNS)
        vectors = rows["vector"].list.to_array(self._dim).to_numpy()
        batch = PointBatch(
            [point_id(chunk_id) for chunk_id in rows["chunk_id"]],
            np.ascontiguousarray(vectors, np.float32),
            [self._payload(row) for row in fields.to_dicts()],
        )
        return rows, batch

    @property
    def _dim(self) -> int:
        return self.workspace.config.embedding_model(self.version.embedding_model).dim

    def _points(self, keys: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Payload columns, vector and vector hash of the given chunks, a shard at a time.

        Keys are hashes: batches in their order would each read every shard.
        """
        by_shard: dict[str, list[str]] = {}
        for key, shard in zip(keys, self._shards_of(keys), strict=True):
            by_shard.setdefault(shard, []).append(key)
        for shard, wanted in sorted(by_shard.items()):
            where = pl.col("chunk_id").is_in(wanted)
            chunks = good_rows(
                self.tables,
                CHUNKS,
                [shard],
                (*COLUMNS, *PAYLOAD_COLUMNS),
                where=where,
                chunking=self.version.chunking,
            ).drop("output_hash")
            vectors = good_rows(
                self.tables,
                EMBEDDINGS,
                [shard],
                ("chunk_id", "vector"),
                where=where,
                embedding_set=self.version.embedding_set,
            ).rename({"output_hash": "vector_hash"})
            yield chunks.join(vectors, on="chunk_id").sort("chunk_id")

    def _payload(self, row: dict[str, Any]) -> dict[str, object]:
        source = self.workspace.config.source(row["source"])
        versions = self._stamps | {SOURCE_VERSION: row.pop(SOURCE_VERSION)}
        picked = json.loads(row.pop("metadata") or "{}")
        return chunk_payload(
            **row,
            # What the configuration says goes before what a record says of itself.
            metadata={**picked, **source.metadata},
            acl=source.acl,
            tenant=source.tenant,
            versions={name: versions[name] for name in VERSION_KEYS},
        )

    @cached_property
    def _stamps(self) -> dict[str, str]:
        """What every row and point of this run says of what made it."""
        model = self.version.embedding_model
        return {
            "index_version": self.name,
            "chunking": self.version.chunking,
            "embedding_model": model,
            "embedding_model_version": self.workspace.model_version(model),
            "pipeline_version": self.pipeline_version,
        }

    def _verify(self, expected: dict[str, str]) -> None:
        """Make sure that the points are there with the payload that was sent."""
        found = self.store.retrieve(self.name, list(expected))
        wrong = [name for name, hash_ in expected.items() if found.get(name) != hash_]
        if wrong:
            raise StageError(
                stage="indexed_chunks",
                subject=wrong[0],
                detail=f"{len(wrong)} points are not in the collection as they were written",
            )

    def _intend_deletions(self, previous: StageState, changed: StageState) -> None:
        """Record the points that the new state lacks, before it is committed."""
        gone = previous.outputs.join(changed.outputs, on="point_id", how="anti")
        if gone.height:
            self._intend(gone["point_id"].to_list(), gone[SHARD].to_list())

    def _shards_of(self, keys: Sequence[str]) -> list[str]:
        homes: dict[str, str] = dict(self.inputs.select("chunk_id", SHARD).iter_rows())
        return [homes[key] for key in keys]

    def _intents(self, partitions: Sequence[dict[str, str]]) -> pl.DataFrame:
        return self.workspace.tables.read(INDEX_INTENTS, partitions)

    def _intend(self, point_ids: Sequence[str], shards: Sequence[str]) -> None:
        """Record points beside those that are recorded already."""
        add_intents(
            self.workspace, self.name, self.shards, dict(zip(point_ids, shards, strict=True))
        )


@dataclasses.dataclass(frozen=True)
class Upstream:
    """What the points of an index version are made from."""

    chunks: pl.DataFrame
    """`chunk_id` and `output_hash`."""
    embedded: pl.DataFrame
    """Identity of the embedded chunks and `vector_hash`."""
    wanted: pl.DataFrame
    """The chunks that have an embedding, hashed over all that decides their point."""


def read_upstream(
    workspace: Workspace, index_version: str, shards: Sequence[str], tables: Tables
) -> Upstream:
    """Read what an index version's points of some shards are made from, without texts or vectors.

    The seal and the status ask here too, so that they compare with what the next run compares with.
    """
    version = workspace.config.index_version(index_version)
    embedded = good_rows(
        tables, EMBEDDINGS, shards, COLUMNS, embedding_set=version.embedding_set
    ).rename({"output_hash": "vector_hash"})
    chunks = good_rows(tables, CHUNKS, shards, ("chunk_id", SHARD), chunking=version.chunking)
    wanted = with_point_hash(workspace, embedded.join(chunks.drop(SHARD), on="chunk_id"))
    return Upstream(chunks, embedded, wanted)


def with_point_hash(workspace: Workspace, rows: pl.DataFrame) -> pl.DataFrame:
    """Add `input_hash`, over all that decides a chunk's point.

    Args:
        workspace: Knows what the sources add to a payload.
        rows: Chunks with `source`, their own `output_hash` and their embedding's `vector_hash`.
    """
    fingerprints = {
        name: fingerprint(
            {
                "stage": "indexed_chunks",
                "version": STAGE_VERSIONS["indexed_chunks"],
                "metadata": dict(source.metadata),
                "acl": list(source.acl),
                "tenant": source.tenant,
            }
        )
        for name, source in workspace.config.sources.items()
    }
    return with_source_input_hash(rows, fingerprints, "output_hash", "vector_hash")


def add_intents(
    workspace: Workspace, index_version: str, shards: Sequence[str], points: Mapping[str, str]
) -> None:
    """Record points that are about to be written or deleted.

    Args:
        workspace: Where to record.
        index_version: Whose points they are.
        shards: All shards of the run.
        points: Point id to source shard.
    """
    snapshot = workspace.tables.snapshot(INDEX_INTENTS)
    partitions = partitions_of(shards, index_version=index_version)
    earlier = workspace.tables.read_at(snapshot, partitions)
    rows = {"point_id": list(points), SHARD: list(points.values())}
    added = pl.DataFrame(rows, schema={"point_id": pl.String, SHARD: pl.String}).with_columns(
        pl.lit(index_version).alias("index_version")
    )
    merged = pl.concat([earlier, added.select(earlier.columns)]).unique(["point_id", SHARD])
    workspace.tables.replace(snapshot, partitions, merged)


def settle_intents(
    workspace: Workspace, store: VectorStore, index_version: str, shards: Sequence[str]
) -> None:
    """Delete the intended points of some shards that no committed row has, then forget the intents.

    A point that another shard's row has is left alone: documents move between shards when the
    number of shards changes.
    """
    snapshot = workspace.tables.snapshot(INDEX_INTENTS)
    partitions = partitions_of(shards, index_version=index_version)
    intents = workspace.tables.read_at(snapshot, partitions)
    if intents.is_empty():
        return
    intended = set(intents["point_id"])
    standing = workspace.tables.read(
        INDEXED_CHUNKS.outputs,
        [{"index_version": index_version}],
        columns=["point_id"],
        where=pl.col("point_id").is_in(sorted(intended)),
    )
    if gone := sorted(intended - set(standing["point_id"])):
        store.delete(index_version, gone)
        store.flush(index_version)
    workspace.tables.replace(snapshot, partitions, intents.clear())
