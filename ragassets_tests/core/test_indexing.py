"""Point ids, payloads and the rules that every vector store shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.collection_config import CollectionConfig, check_same_config
from ragassets.core.indexing import PointBatch, check_batch, hash_payload, point_id
from ragassets.errors import IndexVersionError, InvalidVectorError
from ragassets_tests.points import payload_of

CHUNK_ID = "0123456789abcdef0123456789abcdef"


def test_a_point_id_is_the_chunk_id_written_as_a_uuid() -> None:
    """Pinned: another rule would orphan every point that was ever written."""
    assert point_id(CHUNK_ID) == "01234567-89ab-cdef-0123-456789abcdef"
    for no_id in ("", CHUNK_ID[:-1], CHUNK_ID.upper(), f"{CHUNK_ID[:-1]}z"):
        with pytest.raises(ValueError, match="32 hex"):
            point_id(no_id)


def test_the_payload_has_the_keys_that_search_results_promise() -> None:
    """The `--json` shape of `search` is read from it."""
    assert list(payload_of(metadata={"team": "hr"}, acl=["group:hr"])) == [
        "chunk_id",
        "document_id",
        "uri",
        "source",
        "source_shard",
        "page",
        "text",
        "title",
        "language",
        "document_type",
        "metadata",
        "readers",
        "payload_hash",
    ]
    assert payload_of(metadata={"team": "hr"}, acl=["x"])["metadata"] == {
        "team": "hr",
        "acl": ["x"],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"acl": ["x"]},
        {"tenant": "acme"},
        {"metadata": {"a": 1}},
        {"page": 1},
        {"title": "t"},
        {"uri": "file:///b.md"},
    ],
)
def test_the_payload_hash_changes_with_every_field(changes: dict[str, object]) -> None:
    """It decides whether a metadata change reaches the collection."""
    assert payload_of(**changes)["payload_hash"] != payload_of()["payload_hash"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_the_payload_hash_ignores_key_order_and_itself(content: dict[str, object]) -> None:
    """The same payload read back from a store must compare equal."""
    turned = dict(reversed(content.items()))
    assert hash_payload(turned) == hash_payload(content)
    assert hash_payload({**content, "payload_hash": "x"}) == hash_payload(
        {key: value for key, value in content.items() if key != "payload_hash"}
    )


def test_batch_parts_are_parallel_and_of_equal_length() -> None:
    """A shifted row would give chunks foreign vectors."""
    with pytest.raises(ValueError, match="differ in length"):
        PointBatch(["a"], np.ones((2, 3), dtype=np.float32), [{}])


@given(st.integers(0, 30), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_parts_tile_a_batch_in_order(n_points: int, size: int) -> None:
    """No point is lost or written twice."""
    vectors = np.arange(n_points, dtype=np.float32).reshape(-1, 1)
    batch = PointBatch([str(i) for i in range(n_points)], vectors, [{}] * n_points)
    parts = list(batch.parts(size))
    assert all(1 <= len(part) <= size for part in parts)
    assert [i for part in parts for i in part.point_ids] == list(batch.point_ids)
    assert [float(v[0]) for part in parts for v in part.vectors] == list(range(n_points))


def test_a_refused_batch_names_the_chunk() -> None:
    """The dead letter needs an id."""
    vectors = np.array([[1, 0], [0, 0]], dtype=np.float32)
    batch = PointBatch(["a", "b"], vectors, [payload_of(), payload_of(chunk_id="f" * 32)])
    with pytest.raises(InvalidVectorError, match=f"{'f' * 32}.*is zero"):
        check_batch(batch, CollectionConfig(dim=2))


def test_a_collection_keeps_to_its_model_where_both_are_known() -> None:
    """Collections that were made before models were recorded stay usable."""
    made = CollectionConfig(dim=2, embedding="a")
    check_same_config("v1", existing=made, wanted=made)
    check_same_config("v1", existing=CollectionConfig(dim=2), wanted=made)
    with pytest.raises(IndexVersionError, match=r"another embedding model\. Give the changed"):
        check_same_config("v1", existing=made, wanted=CollectionConfig(dim=2, embedding="b"))
