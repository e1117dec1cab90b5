"""`forgotten_documents`: what was removed for good, and the proof; each removal its own event."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import Metadata
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import PROGRESS, run_context

if TYPE_CHECKING:
    from ragassets.defs.forget import ForgetReport

REPORTS: dict[str, "Callable[[ForgetReport], None]"] = {}
"""Who wants the report of a run that a command computes in its own process, by run id."""

URIS: dict[str, Sequence[str]] = {}
"""What the documents of such a run are called, by run id: needed to clean the history of runs."""


class ForgetRequest(dg.Config):
    """Which documents are forgotten, or taken in again; by id, because a run is kept for ever."""

    action: str = "look"
    """`forget`, `undo`, or `look`, which changes nothing."""
    documents: dict[str, str] = Field(default_factory=dict[str, str])
    """Document id to source."""
    actor: str = "dagster"
    reason: str = ""


def build_forgotten_documents() -> dg.AssetsDefinition:
    """The asset, unpartitioned: its history is the history of all removals."""

    @dg.asset(
        name="forgotten_documents",
        description="Documents that were removed from everything and are never taken in again:"
        " `ragassets forget URI`. Only the hashes of their names and bytes are kept.",
        group_name="operations",
        kinds={"deltalake"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["forgotten_documents"],
    )
    def forgotten_documents(
        context: dg.AssetExecutionContext,
        config: ForgetRequest,
        workspace: dg.ResourceParam[WorkspaceResource],
    ) -> dg.MaterializeResult[Any]:
        from ragassets.defs.forget import forget
        from ragassets.stages.tombstones import (
            Named,
            remove_tombstones,
        )
        from ragassets.stages.tombstones import (
            forgotten_documents as forgotten_ids,
        )

        run_id = context.run.run_id
        named = [Named(name, source) for name, source in config.documents.items()]
        values: Metadata = {"action": config.action, "actor": config.actor, "reason": config.reason}
        with failing_once(context):
            if config.action == "forget":
                report = forget(
                    workspace,
                    context.instance,
                    named,
                    run_context(context, workspace),
                    actor=config.actor,
                    reason=config.reason,
                    progress=PROGRESS.get(run_id, lambda _stage, _done, _total: None),
                    uris=URIS.get(run_id, ()),
                )
                values = {**values, **_shown(report)}
                if run_id in REPORTS:
                    REPORTS[run_id](report)
            elif config.action == "undo":
                remove_tombstones(workspace.workspace, named)
            n_forgotten = len(forgotten_ids(workspace.workspace))
        return dg.MaterializeResult(metadata={**values, metadata.N_DOCUMENTS: n_forgotten})

    return forgotten_documents


def _shown(report: "ForgetReport") -> Metadata:
    removed = report.removed
    return {
        "n_points": removed.n_points,
        "n_rows": removed.n_rows,
        "n_table_files": removed.n_files,
        "n_landing_zone_objects": removed.n_objects,
        "n_ledger_vectors": removed.n_vectors,
        "n_history_entries": report.n_events,
        "n_searches": report.proof.n_searches,
        "left": "; ".join(report.proof.left) or "nothing",
        "notes": "; ".join(report.notes) or "none",
    }
