"""Which canaries run."""

from ragassets.adapters.workspace import Workspace
from ragassets.core.canaries import Canary
from ragassets.stages.alias_history import find_canary, read_history


def read_canary(workspace: Workspace, alias: str) -> Canary | None:
    """The running canary of an alias; it takes no lock."""
    with workspace.vector_store() as store:
        target = store.alias_target(alias)
    return find_canary(read_history(workspace.tables, alias), target)
