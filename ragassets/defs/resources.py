"""The one resource: a configuration and what it opens.

The adapters are imported when a step opens the workspace, not when the code location loads.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

import dagster as dg

from ragassets.config import Config
from ragassets.errors import ConfigurationError

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace


class S3Access(Protocol):
    """What gives a client of S3: `dagster_aws.s3.S3Resource`, or whatever has its method."""

    def get_client(self) -> Any:
        """A new client of boto3."""
        ...


class WorkspaceResource:
    """Opens the workspace of a configuration."""

    def __init__(self, config: Config, s3: Mapping[str, S3Access] = MappingProxyType({})) -> None:
        """Remember the configuration.

        Args:
            config: What is opened.
            s3: By source, the resource that gives its client.

        Raises:
            ConfigurationError: There is no such source, or it is not in S3.
        """
        self.config, self.s3 = config, s3
        for name in s3:
            _check_is_in_s3(config, name)

    @cached_property
    def workspace(self) -> "Workspace":
        """The workspace; its parts open at first use."""
        from ragassets.adapters.workspace import Workspace

        clients = {name: partial(_client, access) for name, access in self.s3.items()}
        return Workspace(self.config, clients)


def _client(access: S3Access) -> Any:
    if isinstance(access, dg.ConfigurableResource):
        # Values of the environment (`EnvVar`) are read now, not when the code location loads.
        access = cast("S3Access", access.process_config_and_initialize())
    return access.get_client()


def _check_is_in_s3(config: Config, name: str) -> None:
    source = config.sources.get(name)
    if source is None or source.scheme != "s3":
        raise ConfigurationError(
            key="s3",
            value=name,
            problem="is no source in S3",
            fix="Name an entry of `sources` whose uri begins with s3://",
        )


def now() -> datetime:
    """The time, UTC: the only clock that reaches the stages."""
    return datetime.now(UTC)
