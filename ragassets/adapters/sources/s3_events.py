"""Event notifications of a bucket, taken from a queue (SQS)."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from ragassets.adapters.sources.aws import sdk_client, translated_errors
from ragassets.adapters.sources.s3_bucket import S3Bucket
from ragassets.core.s3_event_messages import UnknownMessageError, objects_of_message
from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.core.sources import EventBatch, Listing

MESSAGES_AT_ONCE = 10
"""The service gives and deletes no more in one request."""

BATCH_MESSAGES = 500
"""Looked up and committed together; a commit takes a fraction of a second, however many."""

COLLECT_SECONDS = 5.0
"""A slow service gives smaller batches: looking up and deleting take as long again, and a tick of
the sensor has to end in time."""

WAIT_SECONDS = 1
"""For the first message; long polling asks all of the service's machines."""

Message = Mapping[str, Any]


class S3EventQueue:
    """The objects of a source that something happened to, as the store has them now."""

    def __init__(
        self, url: str, bucket: S3Bucket, *, store: ObjectStoreConfig, fetching: FetchConfig
    ) -> None:
        """Describe the queue; nothing is sent yet.

        Args:
            url: Of the queue.
            bucket: Whose events they are; others are acknowledged and forgotten.
            store: Region and profile.
            fetching: Time-outs.
        """
        self._url, self._bucket = url, bucket
        self._store, self._fetching = store, fetching

    def receive(self) -> EventBatch | None:
        """The next events; None when there are none now.

        Raises:
            SourceUnavailableError: Queue or bucket do not answer.
        """
        messages = self._messages()
        if not messages:
            return None
        keys: set[str] = set()
        understood: list[Message] = []
        problems: list[str] = []
        for message in messages:
            try:
                objects = objects_of_message(str(message["Body"]))
            except UnknownMessageError as error:
                problems.append(f"queue {self._url}: {error}; it stays in the queue")
                continue
            keys |= {key for name, key in objects if name == self._bucket.name}
            understood.append(message)
        found, gone = self._bucket.look_up(sorted(keys))
        listing = Listing(
            found, is_complete=False, message="; ".join(problems[:3]), deleted=tuple(gone)
        )
        return EventBatch(listing, lambda: self._delete(understood))

    def _messages(self) -> list[Message]:
        """As many as there are now, within bounds."""
        messages: dict[str, Message] = {}
        deadline = time.monotonic() + COLLECT_SECONDS
        while len(messages) < BATCH_MESSAGES:
            with translated_errors(self._url):
                answer = self._client.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=MESSAGES_AT_ONCE,
                    WaitTimeSeconds=0 if messages else WAIT_SECONDS,
                )
            received = cast("list[Message]", answer.get("Messages", []))
            # A queue with a short visibility time-out gives the same ones again.
            if all(message["MessageId"] in messages for message in received):
                break
            messages |= {message["MessageId"]: message for message in received}
            if time.monotonic() >= deadline:
                break
        return list(messages.values())

    def _delete(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), MESSAGES_AT_ONCE):
            part = messages[start : start + MESSAGES_AT_ONCE]
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(part)
            ]
            with translated_errors(self._url):
                # What could not be deleted comes again, and changes nothing.
                self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)

    @cached_property
    def _client(self) -> Any:
        with translated_errors(self._url):
            return sdk_client("sqs", self._store, self._fetching)
