"""What sound vectors are, and how texts are grouped for a model."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ragassets.core.embedding import (
    batch_by_count,
    batch_by_tokens,
    estimate_tokens,
    truncate_vectors,
    validate_vectors,
)
from ragassets.core.settings import EmbeddingModelConfig


def test_each_unsound_vector_gets_its_own_reason() -> None:
    """One bad row must not condemn the batch."""
    vectors = np.array(
        [[1, 0], [np.nan, 0], [np.inf, 0], [0, 0], [1e-45, 0], [2, 0], [3e38, 0], [0.6, 0.8]],
        dtype=np.float32,
    )
    assert validate_vectors(vectors, dim=2) == [
        None,
        "is not finite",
        "is not finite",
        "is zero",
        "is zero",
        "has length 2 instead of 1",
        "has length 3e+38 instead of 1",
        None,
    ]
    assert validate_vectors(vectors[5:7], dim=2, is_normalized=False) == [None, None]


def test_a_wrong_dimension_is_said_for_every_row() -> None:
    """The engine would only complain about the first."""
    vectors = np.ones((2, 3), dtype=np.float32)
    assert validate_vectors(vectors, dim=2) == ["has dimension 3 instead of 2"] * 2
    assert validate_vectors(np.empty((0, 3), dtype=np.float32), dim=2) == []


def test_truncated_vectors_are_unit_vectors_in_the_same_direction() -> None:
    """Cosine distances of shorter vectors need the new length."""
    vectors = np.array([[3, 4, 12], [0, 0, 1]], dtype=np.float32)
    truncated = truncate_vectors(vectors, dim=2)
    assert truncated.dtype == np.float32
    np.testing.assert_allclose(truncated, [[0.6, 0.8], [0, 0]], atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300)), st.integers(1, 2_000))
def test_batches_hold_every_text_once_within_the_budget(
    n_tokens: list[int], batch_tokens: int
) -> None:
    """A padded batch costs its longest text times its size."""
    batches = batch_by_tokens(n_tokens, batch_tokens=batch_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(n_tokens)))
    for batch in batches:
        padded = max(n_tokens[i] for i in batch) * len(batch)
        assert padded <= batch_tokens or len(batch) == 1
    lengths = [n_tokens[i] for batch in batches for i in batch]
    assert lengths == sorted(lengths, reverse=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300)), st.integers(1, 20), st.integers(1, 600))
def test_batches_for_a_service_keep_the_order_and_both_limits(
    n_tokens: list[int], batch_texts: int, batch_tokens: int
) -> None:
    """A service refuses a batch of too many texts or tokens as a whole."""
    batches = batch_by_count(n_tokens, batch_texts=batch_texts, batch_tokens=batch_tokens)
    assert [i for batch in batches for i in batch] == list(range(len(n_tokens)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_texts
        assert sum(n_tokens[i] for i in batch) <= batch_tokens or len(batch) == 1
    for batch, following in itertools.pairwise(batches):
        is_full = len(batch) == batch_texts
        assert is_full or sum(n_tokens[i] for i in [*batch, following[0]]) > batch_tokens


@pytest.mark.parametrize(
    ("text", "n_tokens"),
    [("", 1), ("a cat", 2), ("word " * 100, 167), ("日本語", 5), ("naïve", 3), ("\ud800", 2)],
)
def test_tokens_are_estimated_from_above(text: str, n_tokens: int) -> None:
    """A token of three ASCII characters or of two bytes of other scripts, and one for the text."""
    assert estimate_tokens(text) == n_tokens


def test_the_estimate_is_above_the_bundled_tokenizer_for_prose() -> None:
    """Too low meets throttling; much too high wastes half of a rate limit."""
    from ragassets.adapters.tokenizers import load_tokenizer
    from ragassets_tests.scenario import manual

    text = manual()
    actual = len(load_tokenizer().offsets(text))
    assert actual < estimate_tokens(text) < 2 * actual


def test_a_key_is_never_printed() -> None:
    """Configurations end up in logs."""
    config = EmbeddingModelConfig.model_validate(
        {"provider": "openai", "model": "m", "dim": 3, "api_key": "sk-secret"}
    )
    assert "sk-secret" not in f"{config!r} {config} {config.model_dump_json()}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"model": ""},
        {"provider": "x"},
        {"dims": 3},
        {"provider": "openai", "devices": ["cuda:0"]},
        {"batch_tokens": 0},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    """A misspelt key that is ignored costs an embedding of the whole corpus."""
    with pytest.raises(ValidationError):
        EmbeddingModelConfig.model_validate({"model": "m", "dim": 3, **wrong})
