"""Messages of S3's event notifications, as the service writes them."""

import json

import pytest

from ragassets.core.s3_event_messages import UnknownMessageError, objects_of_message

# Source: the examples of https://docs.aws.amazon.com/AmazonS3/latest/userguide/
# notification-content-structure.html and ev-events.html, shortened.
DIRECT = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": "2026-01-02T03:04:05.678Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "s3SchemaVersion": "1.0",
                "bucket": {"name": "handbook", "arn": "arn:aws:s3:::handbook"},
                "object": {
                    "key": "docs/red+flower%2B%C3%BC.md",
                    "size": 1024,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        },
        {
            "eventName": "ObjectRemoved:Delete",
            "s3": {"bucket": {"name": "handbook"}, "object": {"key": "docs/gone.md"}},
        },
    ]
}
BRIDGE = {
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {"bucket": {"name": "handbook"}, "object": {"key": "docs/a+b c.md", "size": 5}},
}
EXPECTED = [("handbook", "docs/red flower+ü.md"), ("handbook", "docs/gone.md")]


def test_a_message_names_the_objects_that_something_happened_to() -> None:
    """The key is encoded as in a form."""
    assert objects_of_message(json.dumps(DIRECT)) == EXPECTED


def test_a_topic_in_between_changes_nothing() -> None:
    """SNS wraps the message as text."""
    envelope = {"Type": "Notification", "TopicArn": "arn", "Message": json.dumps(DIRECT)}
    assert objects_of_message(json.dumps(envelope)) == EXPECTED


def test_keys_that_come_through_eventbridge_are_plain() -> None:
    """A plus is a plus there."""
    assert objects_of_message(json.dumps(BRIDGE)) == [("handbook", "docs/a+b c.md")]


def test_the_message_that_s3_sends_to_a_new_queue_names_nothing() -> None:
    assert objects_of_message('{"Service": "Amazon S3", "Event": "s3:TestEvent"}') == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        "{}",
        "null",
        '{"Records": [{}]}',
        '{"Records": 5}',
        '{"source": "aws.s3"}',
        '{"Type": "Notification"}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_refused_without_repeating_it(body: str) -> None:
    """A queue may be shared, and its messages hold other people's data."""
    with pytest.raises(UnknownMessageError, match=f"{len(body)} characters is no event of S3"):
        objects_of_message(body)
