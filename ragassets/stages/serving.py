"""Makes a complete index version fit to be searched: indexed, and on a store that is well."""

from ragassets.adapters.workspace import Workspace
from ragassets.stages.completeness import Problem


def make_searchable(workspace: Workspace, index_version: str) -> list[Problem]:
    """Build the approximate index where the store wants one; return what keeps it from serving.

    Killed anywhere, nothing is lost: the store goes on with its index by itself, or the next
    sealing asks again.
    """
    with workspace.vector_store() as store:
        if index_version not in store.list_collections():
            return []  # the counts say that it is missing
        store.optimize(index_version)
        return [Problem("counts", text) for text in store.problems(index_version)]
