"""The settings of sources, as sections of the configuration file: frozen models, nothing else."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ragassets.core.settings import RetryConfig

FETCH_RETRY = RetryConfig(
    attempts=4,
    first_wait_seconds=1.0,
    max_wait_seconds=30.0,
    jitter_seconds=1.0,
    max_retry_after_seconds=60.0,
)
"""Of one object: REQUIREMENTS E4 asks for 3 to 5 tries. The next run tries again anyway, so nobody
waits for minutes."""


NIGHTLY = "0 3 * * *"
"""Of a source whose queue tells of changes: an event that was never sent, or was lost, is found by
a whole listing only. One a night costs 1,000 requests for a million objects."""


class FetchConfig(BaseModel):
    """How the objects of a source are fetched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retry: RetryConfig = FETCH_RETRY
    """Of sources behind a network; a file of this machine is tried once a run."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Without a byte from the other side."""
    max_bytes: Annotated[int, Field(ge=1)] = 512 * 1024**2
    """A larger object becomes a dead letter and is not fetched. It is held in memory, eight at a
    time: 512 MiB is far above any document and far below what a machine has."""


class SensorConfig(BaseModel):
    """How a daemon looks for changes of a source by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_seconds: Annotated[int, Field(ge=5, le=86_400)] = 30
    """Between two looks. A look at 100,000 objects of S3 is 100 requests."""
    queue: str | None = None
    """URL of a queue (SQS) that gets the bucket's event notifications: then it is read instead of
    the bucket being listed."""


class ObjectStoreConfig(BaseModel):
    """Where an object store is found, if not where the environment says.

    Keys and tokens come from the environment alone (`AWS_…`, `GOOGLE_…`, `AZURE_…`, or the role of
    the machine). `profile` picks another account of the AWS configuration file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = None
    """URL of a server that speaks the store's protocol: S3's, Azure's with the account as its path
    (`http://127.0.0.1:10000/devstoreaccount1`), or Google's."""
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    """The bucket is public: requests are not signed."""

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.anonymous and self.profile:
            message = f"profile: {self.profile!r} signs requests, anonymous: true does not"
            raise ValueError(message)
        return self
