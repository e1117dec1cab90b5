"""The settings of a topic of Kafka as a source, as a section of the configuration file."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

SCHEME = "kafka://"

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""Source: https://github.com/apache/kafka, `org.apache.kafka.common.internals.Topic`."""

DEFAULT_PORT = 9092

RESERVED = frozenset(
    {
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "group.id",
        "auto.offset.reset",
    }
)
"""Properties of librdkafka that what is promised here hangs on."""


def _as_text(value: object) -> object:
    """YAML's numbers and truth values as librdkafka writes them."""
    return str(value).lower() if isinstance(value, bool | int | float) else value


Option = Annotated[SecretStr, BeforeValidator(_as_text)]
"""Any of them may be a secret, so none is ever shown."""


class KafkaConfig(BaseModel):
    """How a topic is read, and what its messages are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str | None = None
    """`host:port`, separated by commas, where they are not those of `uri`. Then `uri` is but a
    name, and brokers may move without making every document another one."""
    group_id: str | None = Field(default=None, min_length=1, max_length=255)
    """Under which the position is committed for others to see; `ragassets-<source>` where it is
    not given."""
    identity: Annotated[str, StringConstraints(pattern=r"^(key|(header|field):.+)$")] = "key"
    """What names a message's document: its key, a header (`header:document-id`), or a field of a
    JSON object (`field:meta.id`). A message without one is a document by its position."""
    value: Literal["bytes", "text", "json"] = "bytes"
    """`bytes`: a file of any kind, found out from its content. `text`: text in the character set
    that the header `content-type` names. `json`: as JSON, also behind the five bytes that the
    serializers of a schema registry put before it."""
    suffix: Annotated[str, StringConstraints(pattern=r"^(\.[A-Za-z0-9]{1,8})?$")] = ""
    """Ending for names of documents that lack it, such as `.md`: it decides between kinds of text
    that look alike from inside."""
    username: str | None = None
    password: SecretStr | None = None
    """`${KAFKA_PASSWORD}`, not the password itself."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    tls: bool = False
    ca_file: str | None = None
    """Certificates of who may sign the brokers' own, where they are not the system's."""
    options: Mapping[str, Option] = Field(default_factory=dict[str, SecretStr])
    """Any other property of librdkafka: OAuth, client certificates, time-outs."""

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if (self.username is None) != (self.password is None):
            message = "username and password: one needs the other"
            raise ValueError(message)
        if self.ca_file is not None and not self.tls:
            message = "ca_file: it is of use with tls: true only"
            raise ValueError(message)
        if taken := sorted(RESERVED & self.options.keys()):
            message = f"options: {taken[0]} is set by ragassets itself"
            raise ValueError(message)
        return self

    def identity_of(self, kind: Literal["header", "field"]) -> str | None:
        """The header or the path of the field that names documents; None where it is not that."""
        prefix = f"{kind}:"
        return self.identity.removeprefix(prefix) if self.identity.startswith(prefix) else None


class TopicAddress(NamedTuple):
    """What a `kafka://` URI names."""

    servers: str
    """`host:port`, separated by commas."""
    topic: str


def parse_topic_address(uri: str) -> TopicAddress:
    """The brokers and the topic of `kafka://host:9092[,host2:9092]/topic`.

    Raises:
        ValueError: It is not of that form.
    """
    hosts, _, topic = uri.removeprefix(SCHEME).partition("/")
    names = [host.strip() for host in hosts.split(",")]
    topic = unquote(topic.rstrip("/"))
    if "@" in hosts or not all(names) or not _TOPIC.fullmatch(topic):
        message = (
            "uri: write kafka://host:9092[,host2:9092]/topic; user and password belong into kafka:"
        )
        raise ValueError(message)
    with_ports = [name if _has_port(name) else f"{name}:{DEFAULT_PORT}" for name in names]
    return TopicAddress(",".join(with_ports), topic)


def _has_port(host: str) -> bool:
    return re.search(r":\d+$", host) is not None
