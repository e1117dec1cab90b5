"""An S3 server on loopback (moto) whose answers can be spoilt on demand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from ragassets_tests.faulty_server import Fault, FaultyServer, serving

__all__ = ["BUCKET", "Fault", "S3Server", "running_s3"]

BUCKET = "handbook"


@dataclass
class S3Server(FaultyServer):
    """A server with one bucket."""

    bucket_uri = f"s3://{BUCKET}"
    listing = "list-type=2"
    """A piece of the line of every request that lists."""

    def client(self) -> Any:
        """An SDK client with the environment's credentials."""
        import boto3

        return cast("Any", boto3).client("s3", endpoint_url=self.url, region_name="us-east-1")

    def put(self, key: str, body: bytes | str, **options: object) -> None:
        """Store an object."""
        data = body.encode() if isinstance(body, str) else body
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data, **options)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client().delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def running_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket, and the environment that leads every client to it."""
    server = S3Server()
    for name, value in {
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving(server, DomainDispatcherApplication(create_backend_app)):
        try:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            server.client().create_bucket(Bucket=BUCKET)
            yield server
        finally:
            for service in ("s3", "sqs"):
                for account in cast("Any", get_backend(service)).values():
                    for backend in account.values():
                        backend.reset()
