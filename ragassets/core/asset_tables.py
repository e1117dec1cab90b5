"""The rows of every asset: content columns, keys and partition columns, in one place.

They are public, because users read the tables with any Delta reader: columns may be added, none
goes. What a column means is said here once. Bookkeeping columns come from `core/incremental.py`.
"""

import polars as pl

from ragassets.core.incremental import TIMESTAMP
from ragassets.core.stages import SHARD, Stage
from ragassets.core.tables import TableSpec

TEXT, COUNT, NUMBER, FLAG = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()

ELEMENT = pl.Struct({"kind": TEXT, "text": TEXT, "page": COUNT, "level": COUNT})
BLOCK = pl.Struct(
    {"kind": TEXT, "start_char": COUNT, "end_char": COUNT, "page": COUNT, "level": COUNT}
)

SHARD_PROBLEM = pl.Struct({"check": TEXT, SHARD: TEXT, "problem": TEXT, "count": COUNT})
QUERY_SCORE = pl.Struct(
    {"query": TEXT, "ndcg_at_10": NUMBER, "recall_at_10": NUMBER, "reciprocal_rank": NUMBER}
)

DOCUMENT: dict[str, pl.DataType] = {"document_id": TEXT, "uri": TEXT, "source": TEXT, SHARD: TEXT}
DOCUMENT_IDENTITY = tuple(DOCUMENT)

MODEL: dict[str, pl.DataType] = {"embedding_model": TEXT, "embedding_model_version": TEXT}
"""Name in the configuration, and which weights that was; see `core.versions.model_version`."""

SOURCE_OBJECTS = TableSpec(
    "source_objects",
    pl.Schema(
        {
            **DOCUMENT,
            "etag": TEXT,
            "size_bytes": COUNT,
            "modified_at": TIMESTAMP,
            "is_deleted": FLAG,
            "first_seen_at": TIMESTAMP,
            "changed_at": TIMESTAMP,
            "pipeline_version": TEXT,
        }
    ),
    (SHARD,),
    "document_id",
)
"""What the sources hold now. A vanished object stays as a tombstone (`is_deleted`).
`pipeline_version` is what recorded the row's last change; its version at the source is `etag`."""

SOURCE_LISTINGS = TableSpec(
    "_source_listings",
    pl.Schema(
        {
            "source": TEXT,
            "listed_at": TIMESTAMP,
            "is_complete": FLAG,
            "n_objects": COUNT,
            "n_refused_deletions": COUNT,
            "message": TEXT,
        }
    ),
    ("source",),
    "source",
)
"""How the last listing of each source went."""

SOURCE_TROUBLES = TableSpec(
    "_source_troubles",
    pl.Schema({"source": TEXT, "began_at": TIMESTAMP, "message": TEXT}),
    ("source",),
    "source",
)
"""Sources whose queue of events does not answer now; a note of a listing says nothing of that."""

STREAM_POSITIONS = TableSpec(
    "_stream_positions",
    pl.Schema(
        {"source": TEXT, "stream": TEXT, "part": TEXT, "position": COUNT, "updated_at": TIMESTAMP}
    ),
    ("source",),
    "part",
)
"""How far a source that is a stream was read and recorded: of each part (a partition of a topic)
the first message that was not. `stream` is its address: another one begins anew."""

FORGOTTEN_DOCUMENTS = TableSpec(
    "_forgotten_documents",
    pl.Schema(
        {
            "document_id": TEXT,
            "source": TEXT,
            "content_hash": TEXT,
            "actor": TEXT,
            "reason": TEXT,
            "forgotten_at": TIMESTAMP,
            "run_id": TEXT,
        }
    ),
    ("source",),
    "document_id",
)
"""Tombstones: documents that no ingestion takes in again. `document_id` is a hash of source and
URI, `content_hash` the sha256 of the bytes; neither URI nor text is kept."""

RECORDED_SETTINGS = TableSpec(
    "_recorded_settings",
    pl.Schema(
        {
            "section": TEXT,
            "name": TEXT,
            "settings": TEXT,
            "recorded_at": TIMESTAMP,
            "run_id": TEXT,
        }
    ),
    ("section", "name"),
    "name",
)
"""What the names of the configuration stood for when they were built; `settings` is JSON."""

BUILD_WINDOWS = TableSpec(
    "_build_windows",
    pl.Schema({"index_version": TEXT, "since": TIMESTAMP, "begun_at": TIMESTAMP}),
    ("index_version",),
    "index_version",
)
"""Index versions that were begun. `since`: only documents modified since then; null for all."""

DROPPED_VERSIONS = TableSpec(
    "_dropped_versions",
    pl.Schema(
        {
            "index_version": TEXT,
            "state": TEXT,
            "dropped_at": TIMESTAMP,
            "actor": TEXT,
            "reason": TEXT,
            "chunking": TEXT,
            "embedding_set": TEXT,
            "run_id": TEXT,
        }
    ),
    ("index_version",),
    "index_version",
)
"""Index versions that somebody dropped. `state` is `dropping` from the first removal to the last,
`dropped` from then on, and `begun_anew` once it is built again. `chunking` and `embedding_set` are
what it was made of; null where nobody knows."""

RAW_DOCUMENTS = Stage(
    name="raw_documents",
    content={
        **DOCUMENT,
        "content_hash": TEXT,
        "size_bytes": COUNT,
        "etag": TEXT,
        "version_id": TEXT,
        "modified_at": TIMESTAMP,
    },
    key="document_id",
    identity=DOCUMENT_IDENTITY,
)

PARSED_DOCUMENTS = Stage(
    name="parsed_documents",
    content={
        **DOCUMENT,
        "content_hash": TEXT,
        "media_type": TEXT,
        "parser": TEXT,
        "n_pages": COUNT,
        "is_ocr": FLAG,
        "title": TEXT,
        "text": TEXT,
        "elements": pl.List(ELEMENT),
        "metadata": TEXT,
    },
    key="document_id",
    identity=DOCUMENT_IDENTITY,
)
"""`metadata` is a JSON object of what was picked out of a record; null for other documents. It goes
along with `title` from here on."""

VALID_DOCUMENTS = Stage(
    name="valid_documents",
    content={
        **DOCUMENT,
        "language": TEXT,
        "language_confidence": NUMBER,
        "n_words": COUNT,
        "quality": TEXT,
    },
    key="document_id",
    identity=DOCUMENT_IDENTITY,
)
"""`quality` is a JSON object of the measured shares."""

CLEAN_DOCUMENTS = Stage(
    name="clean_documents",
    content={
        **DOCUMENT,
        "title": TEXT,
        "metadata": TEXT,
        "language": TEXT,
        "document_type": TEXT,
        "media_type": TEXT,
        "n_chars": COUNT,
        "n_removed": COUNT,
        "n_repaired_chars": COUNT,
        "text": TEXT,
        "blocks": pl.List(BLOCK),
    },
    key="document_id",
    identity=DOCUMENT_IDENTITY,
)

DOCUMENT_SIGNATURES = Stage(
    name="_document_signatures",
    content={**DOCUMENT, "text_hash": TEXT, "minhash": pl.Binary(), "n_shingles": COUNT},
    key="document_id",
    identity=DOCUMENT_IDENTITY,
)

UNIQUE_DOCUMENTS = Stage(
    name="unique_documents",
    content={**DOCUMENT, "duplicate_of": TEXT, "similarity": NUMBER},
    key="document_id",
    identity=DOCUMENT_IDENTITY,
)

CHUNKS = Stage(
    name="chunks",
    content={
        "chunk_id": TEXT,
        **DOCUMENT,
        "chunking": TEXT,
        "text": TEXT,
        "text_hash": TEXT,
        "n_tokens": COUNT,
        "start_char": COUNT,
        "end_char": COUNT,
        "page": COUNT,
        "headings": pl.List(TEXT),
        "title": TEXT,
        "metadata": TEXT,
        "language": TEXT,
        "document_type": TEXT,
    },
    key="document_id",
    identity=(*DOCUMENT_IDENTITY, "chunking"),
    partition_by=(SHARD, "chunking"),
    has_inline_failures=False,
)

EMBEDDINGS = Stage(
    name="embeddings",
    content={
        "chunk_id": TEXT,
        **DOCUMENT,
        "embedding_set": TEXT,
        "chunking": TEXT,
        **MODEL,
        "text_hash": TEXT,
        "vector": pl.List(pl.Float32()),
    },
    key="chunk_id",
    identity=("chunk_id", *DOCUMENT_IDENTITY, "embedding_set"),
    partition_by=(SHARD, "embedding_set"),
    group="document_id",
    has_inline_failures=False,
)

INDEXED_CHUNKS = Stage(
    name="indexed_chunks",
    content={
        "chunk_id": TEXT,
        "point_id": TEXT,
        **DOCUMENT,
        "index_version": TEXT,
        "payload_hash": TEXT,
        "chunking": TEXT,
        **MODEL,
    },
    key="chunk_id",
    identity=("chunk_id", *DOCUMENT_IDENTITY, "index_version"),
    partition_by=(SHARD, "index_version"),
    group="document_id",
    has_inline_failures=False,
)

INDEX_INTENTS = TableSpec(
    "_index_intents",
    pl.Schema({"point_id": TEXT, SHARD: TEXT, "index_version": TEXT}),
    (SHARD, "index_version"),
    "point_id",
)
"""Points that a run is about to write: what a crash leaves behind is found here."""

STAGES: tuple[Stage, ...] = (
    RAW_DOCUMENTS,
    PARSED_DOCUMENTS,
    VALID_DOCUMENTS,
    CLEAN_DOCUMENTS,
    DOCUMENT_SIGNATURES,
    UNIQUE_DOCUMENTS,
    CHUNKS,
    EMBEDDINGS,
    INDEXED_CHUNKS,
)
"""In the order of the graph."""

DEAD_LETTERS = TableSpec(
    "dead_letters",
    pl.Schema(
        {
            "dead_letter_id": TEXT,
            **DOCUMENT,
            "chunk_id": TEXT,
            "stage": TEXT,
            "category": TEXT,
            "reason": TEXT,
            "error_type": TEXT,
            "message": TEXT,
            "stack_trace": TEXT,
            "content_hash": TEXT,
            "is_transient": FLAG,
            "attempts": COUNT,
            "first_failed_at": TIMESTAMP,
            "last_failed_at": TIMESTAMP,
            "run_id": TEXT,
            "pipeline_version": TEXT,
        }
    ),
    (SHARD,),
    "dead_letter_id",
)
"""`chunk_id` is null for failures of a whole document; `content_hash` names the raw bytes."""

INDEX_VERSIONS = TableSpec(
    "index_versions",
    pl.Schema(
        {
            "index_version": TEXT,
            "state": TEXT,
            "specification": TEXT,
            "n_documents": COUNT,
            "n_chunks": COUNT,
            "n_points": COUNT,
            "n_failed": COUNT,
            "problems": pl.List(TEXT),
            "quality": TEXT,
            "content_version": TEXT,
            "golden_version": TEXT,
            "shard_problems": pl.List(SHARD_PROBLEM),
            "query_scores": pl.List(QUERY_SCORE),
            "latency_ms_p50": NUMBER,
            "latency_ms_p95": NUMBER,
            "recall_vs_exact": NUMBER,
            "n_recall_samples": COUNT,
            "dead_letter_share": NUMBER,
            "judged_by": pl.List(TEXT),
            "compared_with": TEXT,
            "comparison": TEXT,
            "gates": TEXT,
            "failed_gates": pl.List(TEXT),
            "sealed_at": TIMESTAMP,
            "run_id": TEXT,
            "pipeline_version": TEXT,
        }
    ),
    ("index_version",),
    "index_version",
)
"""`state` is `sealed`, `incomplete` or `failed_gates`; `quality` is a JSON object of golden-query
metrics or null; `content_version` is the hash of the points that were sealed, `golden_version` that
of the golden queries. `comparison` is a JSON object or null: nDCG@10 against `compared_with`, the
version that was live; `gates` a JSON list of every gate with limit, value and verdict."""

ALIAS_SWITCHES = TableSpec(
    "live_index",
    pl.Schema(
        {
            "switch_id": TEXT,
            "alias": TEXT,
            "from_version": TEXT,
            "to_version": TEXT,
            "action": TEXT,
            "reason": TEXT,
            "actor": TEXT,
            "forced_over": TEXT,
            "canary_id": TEXT,
            "canary_share": NUMBER,
            "switched_at": TIMESTAMP,
            "run_id": TEXT,
            "pipeline_version": TEXT,
        }
    ),
    ("alias",),
    "switch_id",
)
"""One row a promotion, rollback, or beginning, change or end of a canary; `forced_over` names the
gates that a forced one overruled. `canary_share` is a fraction; `canary_id` stays with a canary."""

STORE_ALIASES = TableSpec(
    "_store_aliases",
    pl.Schema({"store": TEXT, "alias": TEXT, "target": TEXT}),
    ("store", "alias"),
    "alias",
)
"""Where aliases point, of vector stores that have none. `store` is a hash of its location, so that
another store begins without any."""
