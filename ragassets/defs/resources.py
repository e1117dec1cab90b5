"""The one resource: a configuration and what it opens.

The adapters are imported when a step opens the workspace, not when the code location loads.
"""

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from ragassets.config import Config

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace


class WorkspaceResource:
    """Opens the workspace of a configuration."""

    def __init__(self, config: Config) -> None:
        """Remember the configuration."""
        self.config = config

    @cached_property
    def workspace(self) -> "Workspace":
        """The workspace; its parts open at first use."""
        from ragassets.adapters.workspace import Workspace

        return Workspace(self.config)


def now() -> datetime:
    """The time, UTC: the only clock that reaches the stages."""
    return datetime.now(UTC)
