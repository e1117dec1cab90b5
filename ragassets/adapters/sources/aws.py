"""Clients of AWS and what their errors mean, for everything of ours that talks to it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

from ragassets.core.source_settings import FetchConfig, ObjectStoreConfig
from ragassets.errors import (
    ChangedDuringReadError,
    ObjectGoneError,
    SourceRefusedError,
    SourceUnavailableError,
)

ClientOpener = Callable[[], Any]
"""Gives a new client of the SDK."""

CONNECT_SECONDS = 10.0

MAX_CONNECTIONS = 16
"""Twice the threads that fetch, so that none waits for a connection."""

REFUSALS = {
    "NoSuchBucket": "Mend the bucket's name in the source's uri",
    "AccessDenied": "Let these credentials list the bucket and get its objects",
    "403": "Let these credentials list the bucket and get its objects",
    "QueueDoesNotExist": "Mend the queue's URL under `sensor`",
    "AWS.SimpleQueueService.NonExistentQueue": "Mend the queue's URL under `sensor`",
    "InvalidAccessKeyId": "Mend the credentials in the environment",
    "SignatureDoesNotMatch": "Mend the credentials in the environment",
    "ExpiredToken": "Renew the credentials in the environment",
    "RequestTimeTooSkewed": "Set this machine's clock: it is off by more than 15 minutes",
    "InvalidObjectState": "It is archived: restore it in the store, or exclude it",
    "PermanentRedirect": "Set the region that the bucket is in: `store: {region: …}`",
    "NoCredentialsError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `store: {anonymous:"
    " true}` for a public bucket",
    "ProfileNotFound": "Mend the profile in `store`",
    "InvalidRegionError": "Mend the region in `store`",
}
"""What a person has to mend, by the code of the store or the name of the SDK's error. Source:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList"""

GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
CHANGED = frozenset({"PreconditionFailed", "412"})


def sdk_client(service: str, store: ObjectStoreConfig, fetching: FetchConfig) -> Any:
    """A client that tries once, with our time-outs; `Any`, since the SDK types none of its own.

    Args:
        service: `s3` or `sqs`.
        store: Where it is, if not where the environment says. An endpoint is that of S3 alone.
        fetching: Time-outs.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=fetching.timeout_seconds,
        max_pool_connections=MAX_CONNECTIONS,
        # Tries are ours (`Patience`): the SDK's own would multiply them.
        retries={"mode": "standard", "total_max_attempts": 1},
        signature_version=UNSIGNED if store.anonymous and service == "s3" else None,
    )
    session = cast("Any", boto3.Session(profile_name=store.profile))
    return session.client(
        service,
        endpoint_url=store.endpoint if service == "s3" else None,
        region_name=store.region,
        config=config,
    )


@contextmanager
def translated_errors(subject: str) -> Generator[None]:
    """Turn the errors of the SDK into ours; `subject` is what was asked for."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code = str(cast("dict[str, Any]", error.response)["Error"].get("Code", "no code"))
        if code in CHANGED:
            raise ChangedDuringReadError(uri=subject) from error
        if code in GONE:
            raise ObjectGoneError(uri=subject) from error
        raise _unavailable(subject, code, f"the service says {code}") from error
    except (BotoCoreError, HTTPError, OSError) as error:
        # `HTTPError`: a body that breaks off reaches us past the SDK. The text of all of them is
        # left out: it may repeat a signed URL.
        name = type(error).__name__
        raise _unavailable(subject, name, f"cannot be read ({name})") from error


def _unavailable(subject: str, code: str, detail: str) -> SourceUnavailableError:
    if fix := REFUSALS.get(code):
        return SourceRefusedError(service=subject, detail=detail, fix=fix)
    return SourceUnavailableError(service=subject, detail=detail)
