"""Consumers of Kafka and what their errors mean."""

import logging
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ragassets.core.kafka_settings import KafkaConfig
from ragassets.errors import ConfigurationError, SourceRefusedError, SourceUnavailableError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

REFUSALS: Mapping[str, str] = {
    "UNKNOWN_TOPIC_OR_PART": "Mend the topic's name in the source's uri, or make the topic",
    "TOPIC_AUTHORIZATION_FAILED": "Let this user read and describe the topic",
    "GROUP_AUTHORIZATION_FAILED": "Let this user read the consumer group, or set kafka.group_id",
    "CLUSTER_AUTHORIZATION_FAILED": "Let this user describe the cluster",
    "SASL_AUTHENTICATION_FAILED": "Mend username, password and mechanism under kafka:",
    "UNSUPPORTED_SASL_MECHANISM": "Mend kafka.mechanism",
    "_AUTHENTICATION": "Mend username, password and mechanism under kafka:",
    "_SSL": "Mend tls and ca_file under kafka:",
    "UNKNOWN_MEMBER_ID": "Another program consumes under this group: set another kafka.group_id",
    "ILLEGAL_GENERATION": "Another program consumes under this group: set another kafka.group_id",
}
"""What a person has to mend, by the name of the error. Source:
https://kafka.apache.org/protocol#protocol_error_codes, and `rdkafka.h` for those with `_`."""

SETTINGS: Mapping[str, str | int | bool] = {
    # Offsets are committed by us, after what was read is recorded.
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # A position that the topic has no more is told, not silently replaced.
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "check.crcs": True,
    # How long a broker without new messages keeps a request: the end is noticed so late.
    "fetch.wait.max.ms": 100,
    # Read ahead at most so much, for each partition; the default of 64 MiB times a hundred
    # partitions is more than a machine has.
    "queued.max.messages.kbytes": 4096,
}

MAX_TOLD = 100
"""Messages that are thrown away to hear of an error; the reading ends with it anyway."""

CLOSE_SECONDS = 5.0

_LOG = logging.getLogger("ragassets.kafka")
_LOG.disabled = True  # what librdkafka writes may hold user names; its errors reach us anyway


def consumer_settings(config: KafkaConfig, servers: str, group_id: str) -> dict[str, Any]:
    """The properties of librdkafka, secrets included; never to be shown."""
    settings: dict[str, Any] = {
        **SETTINGS,
        "bootstrap.servers": config.bootstrap_servers or servers,
        "group.id": group_id,
        "client.id": "ragassets",
    }
    protocol = "ssl" if config.tls else "plaintext"
    if config.username is not None and config.password is not None:
        protocol = f"sasl_{protocol}"
        settings |= {
            "sasl.mechanism": config.mechanism,
            "sasl.username": config.username,
            "sasl.password": config.password.get_secret_value(),
        }
    if config.ca_file is not None:
        settings["ssl.ca.location"] = config.ca_file
    settings["security.protocol"] = protocol
    return settings | {name: text.get_secret_value() for name, text in config.options.items()}


class Troubles:
    """The last thing that a client said went wrong; its threads say so at any time."""

    def __init__(self) -> None:
        """Begin without any."""
        self.last: KafkaError | None = None
        self.client: Any = None
        """Who tells them, and only when it is asked for messages."""
        self.n_commits = 0
        """Answers to commits of offsets."""
        self.commit_error: KafkaError | None = None

    def __call__(self, error: "KafkaError") -> None:
        """Note it; a refusal is not covered by what follows from it."""
        if self.last is None or self.last.name() not in REFUSALS:
            self.last = error

    def on_commit(self, error: "KafkaError | None", _places: object) -> None:
        """Note what became of a commit of offsets."""
        self.n_commits += 1
        self.commit_error = error

    def listen(self) -> None:
        """Hear what the client has to tell; a message that comes with it is lost."""
        for _ in range(MAX_TOLD):
            if self.client is None or self.client.poll(0) is None:
                return


def open_consumer(settings: Mapping[str, Any], troubles: Troubles) -> Any:
    """A consumer; `Any`, since parts of the SDK have no types. Nothing is sent yet.

    Raises:
        ConfigurationError: A property cannot be meant.
    """
    from confluent_kafka import Consumer, KafkaException

    try:
        troubles.client = Consumer(
            {**settings, "error_cb": troubles, "on_commit": troubles.on_commit, "logger": _LOG}
        )
    except KafkaException as error:
        # The SDK's text may repeat a value, which may be a secret: only its property is told.
        text = str(error.args[0].str()) if error.args else ""
        named = next((name for name in sorted(settings, key=len)[::-1] if name in text), "options")
        raise ConfigurationError(
            key=f"kafka.options.{named}" if named in settings else "kafka.options",
            value=None,
            problem="is not a property that librdkafka knows, or has a value that it refuses",
            fix="See https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md",
        ) from error
    return troubles.client


def close_consumer(consumer: Any) -> None:
    """Close a consumer, but wait no longer than `CLOSE_SECONDS`.

    After a commit to a broker that died, librdkafka waits for it for most of a minute. By then
    everything of ours is recorded, so nobody needs to wait with it.
    """
    closing = threading.Thread(target=consumer.close, name="close-kafka", daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)


@contextmanager
def translated_errors(subject: str, troubles: Troubles) -> Generator[None]:
    """Turn the errors of the SDK into ours; `subject` is what was asked for."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise unavailable(subject, error.args[0], troubles) from error


def unavailable(
    subject: str, error: "KafkaError | None", troubles: Troubles
) -> SourceUnavailableError:
    """What an error means; a refusal that was told before says more than a time-out after it."""
    troubles.listen()
    told = troubles.last
    if told is not None and (error is None or error.name() not in REFUSALS):
        error = told if told.name() in REFUSALS or error is None else error
    name = error.name() if error is not None else "no answer"
    if fix := REFUSALS.get(name):
        return SourceRefusedError(service=subject, detail=f"Kafka says {name}", fix=fix)
    return SourceUnavailableError(
        service=subject,
        detail=f"cannot be read ({name.lstrip('_')})",
        fix="Nothing is lost or deleted, the next reading goes on from here. Where it stays: look"
        " whether the brokers run, and whether tls, username and mechanism under kafka: are theirs",
    )
