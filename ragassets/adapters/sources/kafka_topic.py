"""A topic of Kafka as a source: keys are documents, values their bytes, null values deletions.

The consumer assigns itself all partitions instead of joining its group: a process that was killed
then blocks nobody until its session is over, and who may read is decided by the caller's lock. How
far it was read is the caller's to keep, beside what it recorded; the group's offsets follow it, so
that everybody sees the lag. Offsets that were set back with Kafka's own tools are obeyed.
"""

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from ragassets.adapters.sources.integrity import check_size
from ragassets.adapters.sources.kafka_client import (
    Troubles,
    close_consumer,
    consumer_settings,
    open_consumer,
    translated_errors,
    unavailable,
)
from ragassets.adapters.sources.landed_bodies import LandedBodies
from ragassets.adapters.sources.path_patterns import PathPatterns
from ragassets.core.kafka_messages import Folded, Message, fold_messages
from ragassets.core.kafka_settings import KafkaConfig, parse_topic_address
from ragassets.core.records import RecordMapping
from ragassets.core.source_settings import FetchConfig
from ragassets.core.sources import Listing, SourceObject, StreamBatch

BATCH_MESSAGES = 2_000
"""Landed and committed together: a commit costs a fraction of a second however many there are, and
so many objects are written to a store within a few seconds."""

BATCH_BYTES = 64 * 1024**2
"""Of the values of a batch, which are held in memory."""

ANSWER_SECONDS = 10.0
"""For metadata, watermarks and offsets. A cluster that elects a leader is back sooner."""

POLL_SECONDS = 0.2
COMMIT_POLL_SECONDS = 0.02

OUTAGE_SECONDS = 5.0
"""Without a message, after the client said that no broker can be reached: librdkafka tries to
connect again every 0.1 to 10 s."""


@dataclass(frozen=True)
class _Extent:
    """What a partition holds."""

    first: int
    end: int
    """The offset that the next message will get."""


class KafkaTopic:
    """The documents that the messages of one topic make."""

    def __init__(
        self,
        uri: str,
        patterns: PathPatterns | None,
        bodies: LandedBodies,
        *,
        config: KafkaConfig,
        fetching: FetchConfig,
        group_id: str,
        mapping: RecordMapping | None = None,
    ) -> None:
        """Describe the topic; nothing is sent yet.

        Args:
            uri: `kafka://host:9092/topic`.
            patterns: Which documents are wanted, by their names; None for all.
            bodies: Where the values go.
            config: How to read it, and what its messages are.
            fetching: Time-out and size limit.
            group_id: Under which positions are committed.
            mapping: What values that are JSON objects become, where they are records.
        """
        self._uri = uri.rstrip("/")
        self._servers, self._topic = parse_topic_address(uri)
        self._patterns, self._bodies = patterns, bodies
        self._config, self._fetching, self._group_id = config, fetching, group_id
        self._mapping = mapping

    def probe(self) -> str:
        """The topic and how much it holds.

        Raises:
            SourceUnavailableError: It cannot be read.
        """
        troubles = Troubles()
        with self._opened(troubles) as consumer:
            extents = self._extents(consumer, troubles)
        n_messages = sum(extent.end - extent.first for extent in extents.values())
        return f"{self._uri}: {len(extents)} partitions, {n_messages:,} messages"

    def list_objects(self) -> Listing:
        """Nothing: a topic cannot be listed, it is read."""
        return Listing((), is_complete=False, message=f"{self._uri} is read, not listed")

    def fetch(self, wanted: SourceObject) -> bytes:
        """The bytes that were landed; see `Source`."""
        check_size(wanted.uri, wanted.size_bytes, self._fetching)
        return self._bodies.read(wanted.etag)

    def count_behind(self, positions: Mapping[str, int]) -> int:
        """See `StreamSource`."""
        troubles = Troubles()
        with self._opened(troubles) as consumer:
            extents = self._extents(consumer, troubles)
        return sum(
            max(0, extent.end - max(extent.first, positions.get(str(partition), 0)))
            for partition, extent in extents.items()
        )

    def open_stream(self, positions: Mapping[str, int]) -> "TopicReader":
        """See `StreamSource`."""
        troubles = Troubles()
        consumer = self._open(troubles)
        try:
            extents = self._extents(consumer, troubles)
            told = self._told_positions(consumer, list(extents), troubles)
            starts, problems = _starts(self._uri, extents, positions, told)
            self._assign(consumer, starts, troubles)
        except BaseException:
            close_consumer(consumer)
            raise
        return TopicReader(self, consumer, troubles, starts, extents, problems)

    def make_batch(
        self, messages: Sequence[Message], positions: Mapping[str, int], problems: Sequence[str]
    ) -> StreamBatch:
        """Land the values of some messages."""
        folded = fold_messages(messages, self._uri, self._config, self._is_wanted, self._mapping)
        etags = self._bodies.land(folded.bodies)
        objects = [
            SourceObject(uri, etags[uri], len(body), folded.written_at[uri])
            for uri, body in folded.bodies.items()
        ]
        return StreamBatch(
            Listing(objects, is_complete=False, deleted=folded.deleted),
            positions,
            n_without_identity=folded.n_without_identity,
            problems=(*problems, *_ignored(self._uri, folded)),
        )

    @property
    def uri(self) -> str:
        """The topic's address."""
        return self._uri

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic

    @property
    def patience_seconds(self) -> float:
        """How long a broker may send nothing though it has more."""
        return self._fetching.timeout_seconds

    def _is_wanted(self, name: str) -> bool:
        return self._patterns is None or self._patterns.wants(name)

    @contextmanager
    def _opened(self, troubles: Troubles) -> Generator[Any]:
        consumer = self._open(troubles)
        try:
            yield consumer
        finally:
            close_consumer(consumer)

    def _open(self, troubles: Troubles) -> Any:
        settings = consumer_settings(self._config, self._servers, self._group_id)
        return open_consumer(settings, troubles)

    def _extents(self, consumer: Any, troubles: Troubles) -> dict[int, _Extent]:
        from confluent_kafka import TopicPartition

        with translated_errors(self._uri, troubles):
            metadata = consumer.list_topics(self._topic, timeout=ANSWER_SECONDS)
            found = metadata.topics[self._topic]
            if found.error is not None:
                raise unavailable(self._uri, found.error, troubles)
            return {
                partition: _Extent(
                    *consumer.get_watermark_offsets(
                        TopicPartition(self._topic, partition), timeout=ANSWER_SECONDS
                    )
                )
                for partition in sorted(found.partitions)
            }

    def _told_positions(
        self, consumer: Any, partitions: Sequence[int], troubles: Troubles
    ) -> dict[int, int]:
        """What the group has committed."""
        from confluent_kafka import TopicPartition

        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        with translated_errors(f"{self._uri}, group {self._group_id}", troubles):
            found = consumer.committed(wanted, timeout=ANSWER_SECONDS)
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def _assign(self, consumer: Any, starts: Mapping[int, int], troubles: Troubles) -> None:
        from confluent_kafka import TopicPartition

        with translated_errors(self._uri, troubles):
            consumer.assign([TopicPartition(self._topic, *start) for start in starts.items()])


class TopicReader:
    """One reading of a topic, up to where it ended when the reading began."""

    def __init__(
        self,
        topic: KafkaTopic,
        consumer: Any,
        troubles: Troubles,
        starts: Mapping[int, int],
        extents: Mapping[int, _Extent],
        problems: Sequence[str],
    ) -> None:
        """Go on with a consumer that has its partitions; see `KafkaTopic.open_stream`."""
        self._topic, self._consumer, self._troubles = topic, consumer, troubles
        self._positions = dict(starts)
        self._ends = {partition: extent.end for partition, extent in extents.items()}
        self._open = set(starts)
        self._seen: set[int] = set()
        self._problems = list(problems)
        self._early: deque[Any] = deque()
        """What came while something else was waited for."""

    def receive(self, *, wait_seconds: float) -> StreamBatch | None:
        """See `StreamReader`."""
        messages = self._gather(wait_seconds)
        if not messages and not self._problems:
            return None
        positions = {str(partition): place for partition, place in self._positions.items()}
        problems, self._problems = self._problems, []
        return self._topic.make_batch(messages, positions, problems)

    def tell(self, positions: Mapping[str, int]) -> None:
        """See `StreamReader`: commit the group's offsets."""
        from confluent_kafka import TopicPartition

        places = [
            TopicPartition(self._topic.topic, int(part), place) for part, place in positions.items()
        ]
        subject, troubles = f"{self._topic.uri}, the group's offsets", self._troubles
        # The SDK's synchronous call waits for most of a minute where the broker has died.
        n_before, deadline = troubles.n_commits, time.monotonic() + ANSWER_SECONDS
        with translated_errors(subject, troubles):
            self._consumer.commit(offsets=places, asynchronous=True)
        while troubles.n_commits == n_before:
            if time.monotonic() > deadline:
                raise unavailable(subject, None, troubles)
            if (found := self._consumer.poll(COMMIT_POLL_SECONDS)) is not None:
                self._early.append(found)
        if (error := troubles.commit_error) is not None:
            raise unavailable(subject, error, troubles)

    def n_behind(self) -> int:
        """See `StreamReader`."""
        return sum(
            max(0, self._end(partition) - place) for partition, place in self._positions.items()
        )

    def close(self) -> None:
        """See `StreamReader`."""
        close_consumer(self._consumer)

    def _gather(self, wait_seconds: float) -> list[Message]:
        """Messages until a batch is full or the end is reached; some, where they stop coming."""
        messages: list[Message] = []
        n_bytes, heard_at = 0, time.monotonic()
        while self._open and len(messages) < BATCH_MESSAGES and n_bytes < BATCH_BYTES:
            found = self._early.popleft() if self._early else self._consumer.poll(POLL_SECONDS)
            if found is None:
                silence = time.monotonic() - heard_at
                if silence >= min(wait_seconds, self._patience()):
                    if messages:
                        break
                    raise unavailable(self._topic.uri, None, self._troubles)
                continue
            heard_at = time.monotonic()
            if (message := self._take(found)) is not None:
                messages.append(message)
                n_bytes += len(message.value or b"")
        return messages

    def _patience(self) -> float:
        is_out = self._troubles.last is not None
        return min(self._topic.patience_seconds, OUTAGE_SECONDS if is_out else float("inf"))

    def _take(self, found: Any) -> Message | None:
        """One message; None for the end of a partition."""
        from confluent_kafka import KafkaError

        error = found.error()
        partition = cast("int", found.partition())
        if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its only name
            self._open.discard(partition)
            # Behind the last message there may be marks of transactions, which nobody is given.
            self._positions[partition] = max(self._positions[partition], found.offset())
            return None
        if error is not None:
            raise unavailable(self._topic.uri, error, self._troubles)
        self._troubles.last = None
        if partition not in self._seen:
            self._seen.add(partition)
            self._ends[partition] = self._end(partition)
        offset = cast("int", found.offset())
        self._positions[partition] = offset + 1
        if offset + 1 >= self._ends[partition]:
            # What is written meanwhile is the next reading's: a busy topic never ends.
            self._open.discard(partition)
        return _message(found, partition, offset)

    def _end(self, partition: int) -> int:
        """Where a partition ends as far as is known; brokers tell with every answer."""
        from confluent_kafka import TopicPartition

        place = TopicPartition(self._topic.topic, partition)
        with translated_errors(self._topic.uri, self._troubles):
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
        return max(self._ends[partition], high)


def _starts(
    uri: str,
    extents: Mapping[int, _Extent],
    positions: Mapping[str, int],
    told: Mapping[int, int],
) -> tuple[dict[int, int], list[str]]:
    """Where each partition is read on, and what is wrong with that."""
    starts: dict[int, int] = {}
    problems: list[str] = []
    for partition, extent in extents.items():
        own = positions.get(str(partition))
        wanted = extent.first if own is None else min(own, told.get(partition, own))
        starts[partition] = wanted
        if wanted < extent.first:
            starts[partition] = extent.first
            if own is not None and own < extent.first:
                problems.append(
                    f"{uri}: partition {partition} lost {extent.first - own:,} messages that were"
                    " never read: the topic keeps them for too short a time, so documents may be"
                    " missing or old"
                )
        elif wanted > extent.end:
            starts[partition] = extent.first
            problems.append(
                f"{uri}: partition {partition} ends before what was read of it: the topic was made"
                " anew, and is read from its beginning; documents that it has no more stay until"
                " they are deleted"
            )
    return starts, problems


def _message(found: Any, partition: int, offset: int) -> Message:
    kind, milliseconds = found.timestamp()
    written_at = (
        datetime.fromtimestamp(milliseconds / 1000, UTC)
        if kind and milliseconds >= 0
        else datetime.now(UTC)
    )
    headers = tuple((name, value) for name, value in found.headers() or ())
    return Message(partition, offset, found.key(), found.value(), written_at, headers)


def _ignored(uri: str, folded: Folded) -> list[str]:
    if not folded.n_ignored:
        return []
    return [f"{uri}: {folded.n_ignored} deletions do not say of which document, and did nothing"]
