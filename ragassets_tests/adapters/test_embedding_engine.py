"""Batches in, vectors out: order, memory, several devices. With encoders that need no model."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ragassets.adapters.embedders.engine import EmbeddingEngine, Wait
from ragassets.adapters.embedders.token_batches import (
    PreparedText,
    TokenBatch,
    batches_ahead,
)
from ragassets.errors import SystemResourceError


def prepare(texts: list[str]) -> list[PreparedText]:
    """One token a word; its id is the word's length."""
    ids = [np.array([len(word) for word in text.split()] or [0]) for text in texts]
    return [PreparedText(text, len(row), row) for text, row in zip(texts, ids, strict=True)]


class SummingEncoder:
    """The "vector" of a text: its number of tokens and the sum of their ids."""

    def __init__(
        self, most_tokens: int | None = None, error: Callable[[], Exception] = MemoryError
    ):
        self.sizes: list[int] = []
        self.n_releases = 0
        self._most_tokens = most_tokens
        self._error = error

    def start(self, batch: TokenBatch) -> Wait:
        self.sizes.append(batch.n_padded_tokens)
        if self._most_tokens is not None and batch.n_padded_tokens > self._most_tokens:
            raise self._error()
        token_ids, mask = batch.pad(99)
        assert token_ids[mask == 0].tolist() == [99] * int((mask == 0).sum())
        vectors = np.stack([mask.sum(axis=1), (token_ids * mask).sum(axis=1)], axis=1)
        return lambda: vectors.astype(np.float32)

    def release_memory(self) -> None:
        self.n_releases += 1


def engine(*encoders: SummingEncoder, batch_tokens: int = 8, slice_texts: int = 5):
    return EmbeddingEngine(
        encoders, prepare, dim=2, batch_tokens=batch_tokens, slice_texts=slice_texts, n_threads=2
    )


def expected(texts: list[str]) -> NDArray[np.float32]:
    rows = [(len(text.split()) or 1, sum(map(len, text.split()))) for text in texts]
    return np.array(rows, dtype=np.float32).reshape(-1, 2)


TEXTS = [
    "a",
    "bb cc",
    "",
    "d e f g",
    "hh ii jj",
    "k l m n o p q r s t",
    "u",
    "vv",
    "w x",
    "y z a b",
]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(alphabet="ab ", max_size=30), max_size=40),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_every_text_gets_its_own_vector(
    texts: list[str], batch_tokens: int, slice_texts: int, n_devices: int
) -> None:
    """Whatever the budget, the slices and the number of devices."""
    devices = [SummingEncoder() for _ in range(n_devices)]
    one = engine(*devices, batch_tokens=batch_tokens, slice_texts=slice_texts)
    np.testing.assert_array_equal(one.embed(texts), expected(texts))


def test_batches_are_the_same_every_time_and_hold_little_padding() -> None:
    """Equal batches are what makes two runs equal to the byte."""

    def batches() -> list[list[int]]:
        found = batches_ahead(TEXTS, prepare, batch_tokens=8, slice_texts=4, n_threads=3)
        return [batch.positions for batch in found]

    assert batches() == [[5], [3, 9], [4, 1], [8, 7, 0, 6], [2]]
    assert batches() == batches()


def test_the_next_slice_is_tokenized_while_the_device_computes() -> None:
    """Otherwise a fast device waits for its tokenizer half of the time."""
    second_slice_is_ready = threading.Event()

    def watched(texts: list[str]) -> list[PreparedText]:
        if "u" in texts:
            second_slice_is_ready.set()
        return prepare(texts)

    class Waiting(SummingEncoder):
        def start(self, batch: TokenBatch) -> Wait:
            assert second_slice_is_ready.wait(timeout=30)
            return super().start(batch)

    one = EmbeddingEngine([Waiting()], watched, dim=2, batch_tokens=8, slice_texts=5)
    np.testing.assert_array_equal(one.embed(TEXTS), expected(TEXTS))


def test_padding_goes_to_the_side_that_the_model_was_trained_with() -> None:
    """A decoder that pools its last token must not pool padding."""
    batch = TokenBatch([0, 1], prepare(["aa b", "c"]))
    assert [part.tolist() for part in batch.pad(9)] == [[[2, 1], [1, 9]], [[1, 1], [1, 0]]]
    left = [part.tolist() for part in batch.pad(9, on_the_left=True)]
    assert left == [[[2, 1], [9, 1]], [[1, 1], [0, 1]]]


@pytest.mark.parametrize(
    "error",
    [MemoryError, lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_what_does_not_fit_is_halved_and_the_lesson_is_kept(
    error: Callable[[], Exception],
) -> None:
    """A long document should cost time, not the run; and not the same failure for every batch."""
    device = SummingEncoder(most_tokens=10, error=error)
    one = engine(device, batch_tokens=64, slice_texts=64)
    texts = ["a b"] * 32
    np.testing.assert_array_equal(one.embed(texts), expected(texts))
    assert device.sizes == [64, 32, 16, 8, 8, 8, 8, 8, 8, 8, 8]
    assert device.n_releases == 3
    assert one.budget.n_tokens == 8
    device.sizes.clear()
    one.embed(texts)
    assert device.sizes == [8] * 8


def test_torch_running_out_of_gpu_memory_counts_too() -> None:
    """Its error is a class of its own."""
    import torch

    device = SummingEncoder(most_tokens=4, error=lambda: torch.OutOfMemoryError("CUDA out of"))
    np.testing.assert_array_equal(engine(device).embed(["a b"] * 4), expected(["a b"] * 4))
    assert device.sizes == [8, 4, 4]


def test_a_text_is_given_up_only_when_nothing_else_holds_memory() -> None:
    """What is still computing may be what the text lacks."""

    class OneAtATime(SummingEncoder):
        n_held = 0

        def start(self, batch: TokenBatch) -> Wait:
            if self.n_held:
                raise MemoryError
            self.n_held += 1
            done = super().start(batch)

            def wait() -> NDArray[np.float32]:
                self.n_held -= 1
                return done()

            return wait

    texts = ["a b c d e f g h i j", "a b c d e f g h i"]
    one = engine(OneAtATime())
    np.testing.assert_array_equal(one.embed(texts), expected(texts))
    assert one.budget.n_tokens == 8


@pytest.mark.parametrize("message", ["can't allocate memory", "CUDA error: device lost"])
@pytest.mark.parametrize("n_devices", [1, 2])
def test_a_lack_of_memory_or_a_lost_gpu_is_a_transient_system_error(
    message: str, n_devices: int
) -> None:
    """So that the run is tried again on another worker; the other devices stop."""
    devices = [
        SummingEncoder(most_tokens=0, error=lambda: RuntimeError(message)) for _ in range(n_devices)
    ]
    started = time.monotonic()
    with pytest.raises(SystemResourceError):
        engine(*devices).embed(TEXTS)
    assert time.monotonic() - started < 30
    assert all(len(device.sizes) <= 4 for device in devices)


def test_any_other_error_is_not_disguised() -> None:
    """A programming error must not be retried for ever."""
    device = SummingEncoder(most_tokens=0, error=lambda: RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine(device).embed(TEXTS)


def test_a_tokenizer_that_fails_stops_the_run() -> None:
    """Nothing may wait for batches that never come."""

    def failing(texts: list[str]) -> list[PreparedText]:
        raise ValueError("no such token")

    one = EmbeddingEngine(
        [SummingEncoder(), SummingEncoder()], failing, dim=2, batch_tokens=8, slice_texts=5
    )
    with pytest.raises(ValueError, match="no such token"):
        one.embed(TEXTS)
