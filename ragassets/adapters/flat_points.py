"""Points as stores with flat metadata keep them: Chroma and Pinecone.

Every point has the same keys: the payload as JSON, what an audit asks for, and one list of filter
terms. An upsert that merges with what was there, as Chroma's does, so leaves nothing of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from ragassets.core.indexing import Payload, PointBatch, StoredPoint
from ragassets.core.searching import payload_terms

PAYLOAD, TERMS, AUDITED = "payload", "terms", ("chunk_id", "document_id", "payload_hash")

EVERY_POINT = "*"
"""A term that all points have: no store takes an empty list."""


def flat_metadata(payload: Payload) -> dict[str, object]:
    """Return what is stored beside a vector."""
    return {
        **{key: str(payload.get(key, "")) for key in AUDITED},
        PAYLOAD: json.dumps(payload, ensure_ascii=False),
        TERMS: [EVERY_POINT, *sorted(set(payload_terms(payload)))],
    }


def read_payload(metadata: Mapping[str, object] | None) -> dict[str, object]:
    """Return the payload; empty for a point that somebody else wrote."""
    return cast("dict[str, object]", json.loads(str((metadata or {}).get(PAYLOAD, "{}"))))


def read_audited(point_id: str, metadata: Mapping[str, object] | None) -> StoredPoint:
    """Return what an audit asks for; somebody else's point has none of it, and must be seen."""
    return StoredPoint(point_id, *(str((metadata or {}).get(key, "")) for key in AUDITED))


def last_of_each(batch: PointBatch) -> PointBatch:
    """Return the batch with the last of several points with one id."""
    last = dict(zip(batch.point_ids, range(len(batch)), strict=True))
    if len(last) == len(batch):
        return batch
    places = list(last.values())
    return PointBatch(list(last), batch.vectors[places], [batch.payloads[i] for i in places])


def id_pages(point_ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yield the ids in order, at most `size` at a time."""
    for start in range(0, len(point_ids), size):
        yield [*point_ids[start : start + size]]
