"""Embeddings to points of one index version's collection: write, verify, then delete, then commit.

The table `_index_intents` names the points that a run is about to write, before it writes them. A run
that dies after writing leaves them there, and the next one deletes those that are no longer wanted.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.asset_tables import CHUNKS, EMBEDDINGS, INDEX_INTENTS, INDEXED_CHUNKS
from ragassets.core.fingerprints import fingerprint, stable_hash
from ragassets.core.incremental import StageState
from ragassets.core.indexing import PointBatch, VectorStore, chunk_payload, point_id
from ragassets.core.stages import SHARD, Outcome, RunContext, StageReport, run_stage
from ragassets.errors import StageError
from ragassets.stages.inputs import good_rows, partitions_of, with_source_input_hash

BATCH_POINTS = 1_000
"""Points in one write: 2 MB of vectors and payload at 384 dimensions."""

COLUMNS = ("chunk_id", "document_id", "uri", "source", "source_shard")
PAYLOAD_COLUMNS = ("text", "page", "title", "language", "document_type")


def update_indexed_chunks(
    workspace: Workspace, index_version: str, shards: Sequence[str], context: RunContext
) -> dict[str, StageReport]:
    """Bring `indexed_chunks` of some shards, and their points, up to date; a report for each."""
    with workspace.vector_store() as store:
        return _IndexRun(workspace, store, index_version, shards).update(context)


class _IndexRun:
    """One run over some shards of one index version."""

    def __init__(
        self, workspace: Workspace, store: VectorStore, index_version: str, shards: Sequence[str]
    ) -> None:
        self.workspace, self.store = workspace, store
        self.tables = workspace.tables
        self.name, self.shards = index_version, list(shards)
        self.version = workspace.config.index_version(index_version)
        self.partitions = partitions_of(shards, index_version=index_version)
        self.inputs = pl.DataFrame()

    def update(self, context: RunContext) -> dict[str, StageReport]:
        """Write, verify, delete, commit."""
        self._ensure_collection()
        self.inputs = self._inputs()
        reports = run_stage(
            INDEXED_CHUNKS,
            self.partitions,
            self.inputs,
            self._write_points,
            tables=self.tables,
            context=context,
            before_commit=self._delete_old_points,
        )
        if self._intended():
            self._delete_abandoned()
            self._set_intents([])
        return reports

    def _ensure_collection(self) -> None:
        """Create the collection; when it is new, whatever the table says was indexed is gone."""
        is_new = self.name not in self.store.list_collections()
        self.store.ensure_collection(self.name, self.workspace.collection_config(self.name))
        if not is_new:
            return
        snapshot = self.tables.snapshot(INDEXED_CHUNKS.outputs)
        stale = self.tables.read_at(snapshot, [{"index_version": self.name}], columns=[SHARD])
        if stale.height:
            shards = sorted(set(stale[SHARD]))
            self.tables.replace(
                snapshot,
                partitions_of(shards, index_version=self.name),
                INDEXED_CHUNKS.outputs.empty_frame(),
            )

    def _inputs(self) -> pl.DataFrame:
        """Chunks that have an embedding, hashed over all that decides their point.

        An embedding whose chunk is gone is one that a pending replacement keeps alive: its point
        stays as it is.
        """
        embedded = good_rows(
            self.tables,
            EMBEDDINGS,
            self.shards,
            COLUMNS,
            embedding_set=self.version.embedding_set,
        ).rename({"output_hash": "vector_hash"})
        chunks = good_rows(
            self.tables, CHUNKS, self.shards, ("chunk_id",), chunking=self.version.chunking
        )
        sources = self.workspace.config.sources
        fingerprints = {
            name: fingerprint(
                {
                    "stage": "indexed_chunks",
                    "version": "1",
                    "metadata": dict(source.metadata),
                    "acl": list(source.acl),
                }
            )
            for name, source in sources.items()
        }
        columns = pl.lit(self.name).alias("index_version")
        fresh = with_source_input_hash(
            embedded.join(chunks, on="chunk_id").with_columns(columns),
            fingerprints,
            "output_hash",
            "vector_hash",
        ).select(*INDEXED_CHUNKS.identity, "input_hash")
        standing = self.tables.read(
            INDEXED_CHUNKS.outputs, self.partitions, columns=["chunk_id", "input_hash"]
        )
        kept_alive = (
            embedded.join(chunks, on="chunk_id", how="anti")
            .with_columns(columns)
            .join(standing, on="chunk_id")
            .select(*INDEXED_CHUNKS.identity, "input_hash")
        )
        return pl.concat([fresh, kept_alive])

    def _write_points(self, keys: list[str]) -> Iterator[Outcome]:
        """Write the points of these chunks and make sure that they are there."""
        self._set_intents(keys)
        for start in range(0, len(keys), BATCH_POINTS):
            rows = self._points(keys[start : start + BATCH_POINTS])
            payloads = [self._payload(row) for row in rows.drop("vector").iter_rows(named=True)]
            hashes = [str(payload["payload_hash"]) for payload in payloads]
            vectors = rows["vector"].list.to_array(self._dim).to_numpy()
            ids = [point_id(chunk_id) for chunk_id in rows["chunk_id"]]
            self.store.upsert(
                self.name, PointBatch(ids, np.ascontiguousarray(vectors, np.float32), payloads)
            )
            self._verify(dict(zip(ids, hashes, strict=True)))
            output_hashes = [
                stable_hash(*pair) for pair in zip(hashes, rows["vector_hash"], strict=True)
            ]
            yield Outcome(
                rows.with_columns(
                    pl.Series("point_id", ids, dtype=pl.String),
                    pl.lit(self.name).alias("index_version"),
                    pl.Series("payload_hash", hashes, dtype=pl.String),
                    pl.Series("output_hash", output_hashes, dtype=pl.String),
                ).select(*INDEXED_CHUNKS.content, "output_hash")
            )
        self.store.flush(self.name)

    @property
    def _dim(self) -> int:
        return self.workspace.config.embedding_model(self.version.embedding_model).dim

    def _points(self, keys: Sequence[str]) -> pl.DataFrame:
        """Payload columns, vector and vector hash of the given chunks."""
        where = pl.col("chunk_id").is_in(list(keys))
        chunks = good_rows(
            self.tables,
            CHUNKS,
            self.shards,
            (*COLUMNS, *PAYLOAD_COLUMNS),
            where=where,
            chunking=self.version.chunking,
        ).drop("output_hash")
        vectors = good_rows(
            self.tables,
            EMBEDDINGS,
            self.shards,
            ("chunk_id", "vector"),
            where=where,
            embedding_set=self.version.embedding_set,
        ).rename({"output_hash": "vector_hash"})
        return chunks.join(vectors, on="chunk_id").sort("chunk_id")

    def _payload(self, row: dict[str, object]) -> dict[str, object]:
        source = self.workspace.config.source(str(row["source"]))
        fields = {name: row[name] for name in (*COLUMNS, *PAYLOAD_COLUMNS)}
        return chunk_payload(**fields, metadata=source.metadata, acl=source.acl)  # type: ignore

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

    def _delete_old_points(self, previous: StageState, changed: StageState) -> None:
        """Delete the points that the new state lacks; the new ones are verified by now."""
        old = set(previous.outputs["point_id"])
        gone = sorted((old | self._intended()) - set(changed.outputs["point_id"]))
        gone = self._unless_wanted_elsewhere(gone)
        if gone:
            self.store.delete(self.name, gone)
            self.store.flush(self.name)

    def _delete_abandoned(self) -> None:
        """Delete points that a killed run wrote and that nothing wants any more."""
        standing = self.tables.read(
            INDEXED_CHUNKS.outputs, self.partitions, columns=["point_id"]
        )
        gone = self._unless_wanted_elsewhere(sorted(self._intended() - set(standing["point_id"])))
        if gone:
            self.store.delete(self.name, gone)
            self.store.flush(self.name)

    def _unless_wanted_elsewhere(self, point_ids: list[str]) -> list[str]:
        """Leave out points that a shard outside this run holds: documents move between shards when
        the number of shards changes."""
        if not point_ids:
            return point_ids
        holders = self.tables.read(
            INDEXED_CHUNKS.outputs,
            [{"index_version": self.name}],
            columns=["point_id", SHARD],
            where=pl.col("point_id").is_in(point_ids) & ~pl.col(SHARD).is_in(self.shards),
        )
        return sorted(set(point_ids) - set(holders["point_id"]))

    def _intended(self) -> set[str]:
        rows = self.tables.read(INDEX_INTENTS, self.partitions, columns=["point_id"])
        return set(rows["point_id"])

    def _set_intents(self, keys: Sequence[str]) -> None:
        """Record what is about to be written, together with what an earlier run left recorded."""
        snapshot = self.tables.snapshot(INDEX_INTENTS)
        earlier = self.tables.read_at(snapshot, self.partitions)
        if not keys:
            if earlier.height:
                self.tables.replace(snapshot, self.partitions, earlier.clear())
            return
        intended = (
            self.inputs.filter(pl.col("chunk_id").is_in(list(keys)))
            .with_columns(
                pl.col("chunk_id")
                .map_elements(point_id, return_dtype=pl.String)
                .alias("point_id")
            )
            .select(INDEX_INTENTS.schema.names())
        )
        merged = pl.concat([earlier, intended]).unique(["point_id", SHARD])
        self.tables.replace(snapshot, self.partitions, merged)
