"""Points for tests of collections: payloads that are complete where nobody cares what they hold."""

import hashlib
from collections.abc import Sequence

from ragassets.core.indexing import Payload, PointBatch, chunk_payload, point_id
from ragassets_tests.fakes import FakeEmbedder


def chunk_id_of(text: str) -> str:
    """The same id for the same text."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def payload_of(text: str = "a text", **changes: object) -> Payload:
    """A whole payload around a text; the chunk id follows from the text unless given."""
    fields: dict[str, object] = {
        "chunk_id": chunk_id_of(text),
        "document_id": "d" * 32,
        "uri": "file:///a.md",
        "source": "handbook",
        "source_shard": "handbook-000",
        "page": None,
        "title": None,
        "language": None,
        "document_type": None,
        "metadata": {},
        "acl": [],
        **changes,
    }
    return chunk_payload(text=text, **fields)  # type: ignore[arg-type]


def points_of(embedder: FakeEmbedder, texts: Sequence[str], **changes: object) -> PointBatch:
    """A point a text, under the same ids whenever the text comes again."""
    payloads = [payload_of(text, **changes) for text in texts]
    ids = [point_id(str(payload["chunk_id"])) for payload in payloads]
    return PointBatch(ids, embedder.embed_documents(texts), payloads)
