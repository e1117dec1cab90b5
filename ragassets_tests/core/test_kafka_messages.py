"""What messages of a topic are: who they name, what is in them, what they delete."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.kafka_messages import Folded, Message, fold_messages
from ragassets.core.kafka_settings import KafkaConfig, parse_topic_address
from ragassets.core.media_types import JSON, MARKDOWN, detect_media_type
from ragassets.core.record_settings import RecordConfig
from ragassets.core.records import RecordMapping, read_envelope

BASE = "kafka://broker:9092/docs"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def message(
    offset: int = 0,
    key: bytes | None = b"key",
    value: bytes | None = b"text",
    *headers: tuple[str, bytes],
    partition: int = 0,
) -> Message:
    """A message of a partition."""
    return Message(partition, offset, key, value, NOW + timedelta(seconds=offset), headers)


def fold(*messages: Message, **settings: object) -> Folded:
    """What messages leave behind under some settings."""
    return fold_messages(messages, BASE, KafkaConfig.model_validate(settings))


def test_a_key_is_the_last_part_of_the_uri_whatever_it_holds() -> None:
    folded = fold(
        message(0, b"handbook/intro.md"), message(1, "größe 1".encode()), message(2, b"\xff\0")
    )
    assert list(folded.bodies) == [
        f"{BASE}/handbook%2Fintro.md",
        f"{BASE}/gr%C3%B6%C3%9Fe%201",
        f"{BASE}/%FF%00",
    ]


def test_the_last_message_of_a_key_wins() -> None:
    folded = fold(message(0, b"a", b"old"), message(1, b"b", b"b"), message(2, b"a", b"new"))
    assert folded.bodies == {f"{BASE}/a": b"new", f"{BASE}/b": b"b"}
    assert folded.written_at[f"{BASE}/a"] == NOW + timedelta(seconds=2)


def test_a_null_value_deletes_and_an_empty_one_does_not() -> None:
    folded = fold(message(0, b"a", b"x"), message(1, b"a", None), message(2, b"b", b""))
    assert (folded.deleted, folded.bodies) == ({f"{BASE}/a"}, {f"{BASE}/b": b""})


def test_a_key_that_comes_back_is_not_deleted() -> None:
    folded = fold(message(0, b"a", None), message(1, b"a", b"back"))
    assert (folded.deleted, folded.bodies) == (frozenset(), {f"{BASE}/a": b"back"})


def test_a_message_without_key_is_a_document_by_its_position() -> None:
    """It is not lost, it is the same document when it is read again, and it is counted."""
    folded = fold(message(7, None, b"x", partition=3), message(8, b"", b"y", partition=3))
    assert set(folded.bodies) == {f"{BASE}/@3/7", f"{BASE}/@3/8"}
    assert folded.n_without_identity == 2
    assert not set(fold(message(0, b"@3/7")).bodies) & set(folded.bodies)


def test_a_deletion_that_does_not_say_of_what_is_counted() -> None:
    folded = fold(message(0, None, None))
    assert (folded.n_ignored, folded.bodies, folded.deleted) == (1, {}, frozenset())


def test_a_header_may_name_the_document() -> None:
    folded = fold(
        message(0, b"ignored", b"x", ("document-id", b"d1")),
        message(1, b"ignored", None, ("document-id", b"d2")),
        message(2, b"ignored", b"y"),
        identity="header:document-id",
    )
    assert set(folded.bodies) == {f"{BASE}/d1", f"{BASE}/@0/2"}
    assert folded.deleted == {f"{BASE}/d2"}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (b'{"meta": {"id": "d1"}}', "d1"),
        (b'{"meta": {"id": 17}}', "17"),
        (b'\0\0\0\0\x05{"meta": {"id": "d1"}}', "d1"),
        (b'{"meta": {"id": true}}', "@0/0"),
        (b'{"meta": []}', "@0/0"),
        (b"[" * 100_000, "@0/0"),
        (b"no JSON", "@0/0"),
    ],
)
def test_a_field_of_a_json_object_may_name_the_document(value: bytes, path: str) -> None:
    folded = fold(message(0, b"key", value), identity="field:meta.id")
    assert set(folded.bodies) == {f"{BASE}/{path}"}


def test_a_deletion_has_no_fields_so_its_key_names_the_document() -> None:
    assert fold(message(0, b"d1", None), identity="field:id").deleted == {f"{BASE}/d1"}


def test_json_behind_the_number_of_a_schema_is_json() -> None:
    """As the serializers of a schema registry write it."""
    folded = fold(message(0, b"a", b'\0\0\0\0\x05{"a": "hello"}'), value="json")
    (body,) = folded.bodies.values()
    assert body == b'{"a": "hello"}'
    assert detect_media_type(body, f"{BASE}/a") == JSON


def test_fields_of_a_json_object_become_a_document_with_title_and_metadata() -> None:
    """As of an API; what nothing picks makes no change."""
    mapping = RecordMapping(
        RecordConfig(
            text="body.text", title="title", updated_at="at", deleted="gone", metadata={"team": "t"}
        )
    )

    def folded(*values: dict[str, object]) -> Folded:
        messages = [
            message(number, b"a", b"\0\0\0\0\1" + json.dumps(value).encode())
            for number, value in enumerate(values)
        ]
        return fold_messages(messages, BASE, KafkaConfig(), mapping=mapping)

    said = {"title": "T", "body": {"text": "words"}, "t": "x", "at": "2026-02-03T04:05:06Z"}
    found = folded({**said, "views": 1})
    envelope = read_envelope(found.bodies[f"{BASE}/a"])
    assert (envelope.title, envelope.body, envelope.body_type) == ("T", "words", "text")
    assert envelope.metadata == {"team": "x"}
    assert found.written_at == {f"{BASE}/a": datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)}
    assert folded({**said, "views": 2}) == found
    assert folded(said, {**said, "gone": True}).deleted == {f"{BASE}/a"}
    assert fold_messages([message()], BASE, KafkaConfig(), mapping=mapping).bodies == {
        f"{BASE}/key": b"text"
    }


def test_a_suffix_makes_markdown_of_what_looks_like_text() -> None:
    folded = fold(
        message(0, b"a", b"# One"), message(1, b"b.MD", b"# Two"), message(2, None), suffix=".md"
    )
    assert set(folded.bodies) == {f"{BASE}/a.md", f"{BASE}/b.MD", f"{BASE}/@0/2.md"}
    assert detect_media_type(b"# One", f"{BASE}/a.md") == MARKDOWN
    assert fold(message(3, b"a", None), suffix=".md").deleted == {f"{BASE}/a.md"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"text/plain; charset=iso-8859-1", "größe".encode()),
        (b'text/plain; Charset="ISO-8859-1"', "größe".encode()),
        (b"text/plain", "größe".encode("latin-1")),
        (b"text/plain; charset=klingon", "größe".encode("latin-1")),
        (b"text/plain; charset=utf-8", "größe".encode("latin-1")),
    ],
)
def test_text_is_kept_as_utf8_where_a_header_says_what_it_is(
    content_type: bytes, body: bytes
) -> None:
    """What is said wrongly changes nothing: the parsers guess better."""
    value = "größe".encode("latin-1")
    folded = fold(message(0, b"a", value, ("Content-Type", content_type)), value="text")
    assert list(folded.bodies.values()) == [body]
    folded = fold(message(0, b"a", value, ("Content-Type", content_type)))
    assert list(folded.bodies.values()) == [value]


def test_unwanted_documents_are_neither_taken_in_nor_deleted() -> None:
    folded = fold_messages(
        [message(0, b"a/1"), message(1, b"b/1"), message(2, b"b/2", None)],
        BASE,
        KafkaConfig(),
        lambda name: name.startswith("a/"),
    )
    assert (set(folded.bodies), folded.deleted) == ({f"{BASE}/a%2F1"}, frozenset())


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c", None]), st.none() | st.binary()), max_size=20
    ),
    st.data(),
)
def test_some_messages_again_and_then_all_leave_the_same_behind(
    pairs: list[tuple[bytes | None, bytes | None]], data: st.DataObject
) -> None:
    """What a process that was killed has read is read again from an earlier place on."""
    messages = [message(offset, key, value) for offset, (key, value) in enumerate(pairs)]
    begin = data.draw(st.integers(0, len(messages)))
    once, again = fold(*messages), fold(*messages, *messages[begin:])
    assert (once.bodies, once.deleted) == (again.bodies, again.deleted)


@pytest.mark.parametrize(
    ("uri", "servers", "topic"),
    [
        ("kafka://broker/docs", "broker:9092", "docs"),
        ("kafka://a:1,b,c:3/my.topic-1/", "a:1,b:9092,c:3", "my.topic-1"),
    ],
)
def test_an_address_names_brokers_and_a_topic(uri: str, servers: str, topic: str) -> None:
    assert parse_topic_address(uri) == (servers, topic)


@pytest.mark.parametrize(
    "uri",
    [
        "kafka://broker",
        "kafka:///docs",
        "kafka://a,,b/docs",
        "kafka://u:secret@a/docs",
        "kafka://a/b/c",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="write kafka://host:9092"):
        parse_topic_address(uri)
