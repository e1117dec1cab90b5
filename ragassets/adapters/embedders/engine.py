"""Drives one model on one or several devices: batches in, vectors out, whatever memory there is."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.embedders.token_batches import Prepare, TokenBatch, batches_ahead
from ragassets.errors import SystemResourceError

MAX_IN_FLIGHT = 2
"""Batches that a device has been given and not yet answered. Two: while the vectors of one are
copied back, the next computes. More would only hold memory."""

Wait = Callable[[], NDArray[np.float32]]

_Started = tuple[TokenBatch, Wait]


class Encoder(Protocol):
    """A model on one device."""

    def start(self, batch: TokenBatch) -> Wait:
        """Begin a forward pass; calling the result gives (n_texts, dim) float32.

        Raises:
            MemoryError: or the device's own error: the batch is too large.
        """
        ...

    def release_memory(self) -> None:
        """Give cached memory back to the device."""
        ...


class TokenBudget:
    """Tokens that a forward pass may hold. It only ever shrinks, for as long as the process lives.

    Shared by the devices: they are of one kind, so what did not fit into one fits into none.
    """

    def __init__(self, n_tokens: int) -> None:
        self._n_tokens = n_tokens
        self._lock = Lock()

    @property
    def n_tokens(self) -> int:
        """The most tokens of a batch, padding included."""
        return self._n_tokens

    def halve(self, failed_tokens: int) -> None:
        """Allow half of what has just failed."""
        with self._lock:
            self._n_tokens = min(self._n_tokens, max(1, failed_tokens // 2))


class EmbeddingEngine:
    """Embeds texts on all devices at once; the vectors come in the order of the texts.

    The same texts give the same batches, so a second run gives the same bytes (unless one of the
    two runs out of memory and goes on with smaller batches). In another batch a text's float32
    vector differs by less than 1e-5 in each component: sums are added in another order.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        prepare: Prepare,
        *,
        dim: int,
        batch_tokens: int,
        slice_texts: int,
        n_threads: int = 1,
    ) -> None:
        """Drive these encoders.

        Args:
            encoders: one for each device, all of the same model.
            prepare: tokenizes texts, in threads.
            dim: the model's own dimension.
            batch_tokens: the first budget of a forward pass.
            slice_texts: texts that are tokenized at once.
            n_threads: threads that tokenize.
        """
        self.dim = dim
        self.budget = TokenBudget(batch_tokens)
        self._encoders = encoders
        self._prepare = prepare
        self._slice_texts = slice_texts
        self._n_threads = n_threads

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n_texts, dim) float32, as the model gives them.

        Raises:
            SystemResourceError: not even one text fits into memory, or a GPU is lost.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        batches = self.batches(texts)
        feed = _Feed(batches)
        try:
            if len(self._encoders) == 1:
                self._work(self._encoders[0], feed, vectors)
            else:
                self._work_together(feed, vectors)
        finally:
            batches.close()
        return vectors

    def batches(self, texts: Sequence[str]) -> Generator[TokenBatch]:
        """The texts as the devices get them, while the next ones are tokenized."""
        return batches_ahead(
            texts,
            self._prepare,
            batch_tokens=self.budget.n_tokens,
            slice_texts=self._slice_texts,
            n_threads=self._n_threads,
        )

    def _work_together(self, feed: "_Feed", vectors: NDArray[np.float32]) -> None:
        with ThreadPoolExecutor(len(self._encoders), thread_name_prefix="device") as pool:
            workers = [pool.submit(self._work, one, feed, vectors) for one in self._encoders]
            for worker in workers:
                worker.result()

    def _work(self, encoder: Encoder, feed: "_Feed", vectors: NDArray[np.float32]) -> None:
        """Encode batches until none is left, a few at a time."""
        in_flight: deque[_Started] = deque()
        try:
            for batch in feed:
                self._encode(encoder, batch, in_flight, vectors)
            _finish(in_flight, vectors, n_left=0)
        except BaseException as error:
            # The others need not go on: without this worker's vectors theirs are lost too.
            feed.close()
            if not isinstance(error, RuntimeError) or "CUDA" not in str(error):
                raise
            raise SystemResourceError(
                resource="GPU",
                detail=f"it failed while embedding ({type(error).__name__})",
                fix="Run again in a new process",
            ) from error

    def _encode(
        self,
        encoder: Encoder,
        batch: TokenBatch,
        in_flight: deque[_Started],
        vectors: NDArray[np.float32],
    ) -> None:
        """Start the batch, in parts where memory does not suffice."""
        parts = deque([batch])
        while parts:
            part = parts.popleft()
            budget = self.budget.n_tokens
            if part.n_padded_tokens > budget and len(part.texts) > 1:
                parts.extendleft(reversed(part.split(budget)))
                continue
            wait = self._start(encoder, part, is_alone=not in_flight)
            if wait is None:
                # What is still computing holds memory too.
                _finish(in_flight, vectors, n_left=0)
                encoder.release_memory()
                parts.appendleft(part)
            else:
                in_flight.append((part, wait))
                _finish(in_flight, vectors, n_left=MAX_IN_FLIGHT - 1)

    def _start(self, encoder: Encoder, batch: TokenBatch, *, is_alone: bool) -> Wait | None:
        """Start the batch; None when it does not fit, with a smaller budget for the next try."""
        try:
            return encoder.start(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.texts) == 1 and is_alone:
                raise SystemResourceError(
                    resource="memory",
                    detail="one text does not fit into it while embedding",
                    fix="Use a machine with more memory, a smaller model or dtype float16",
                ) from error
        # Outside of the handler: the error's traceback keeps the failed batch's tensors alive.
        if len(batch.texts) > 1:
            self.budget.halve(batch.n_padded_tokens)
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help."""
    import torch

    # The CPU allocator raises a plain RuntimeError.
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


class _Feed:
    """The batches, for several workers: each goes to the one that asks first."""

    def __init__(self, batches: Iterator[TokenBatch]) -> None:
        self._batches = batches
        self._lock = Lock()
        self._is_closed = False

    def __iter__(self) -> Iterator[TokenBatch]:
        while True:
            with self._lock:
                batch = None if self._is_closed else next(self._batches, None)
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Hand out no more: a worker failed, so the others' work would be lost anyway."""
        self._is_closed = True


def _finish(in_flight: deque[_Started], vectors: NDArray[np.float32], *, n_left: int) -> None:
    """Store the oldest results until so many are left."""
    while len(in_flight) > n_left:
        batch, wait = in_flight.popleft()
        vectors[batch.positions] = wait()
