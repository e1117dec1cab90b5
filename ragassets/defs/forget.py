"""What `ragassets forget` does: remove, let the others move up, clean the history, prove it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster import DagsterInstance

from ragassets.defs import jobs
from ragassets.defs.ingest import CommandRuns
from ragassets.defs.notifications import forget_in_notifications
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.run_history import scrub_run_history
from ragassets.defs.runtime import Progress
from ragassets.errors import RagAssetsError

if TYPE_CHECKING:
    from ragassets.core.stages import RunContext
    from ragassets.queries.forgotten import Proof
    from ragassets.stages.forgetting import Forgotten
    from ragassets.stages.tombstones import Named


@dataclass(frozen=True)
class ForgetReport:
    """What was removed, and what was looked for afterwards."""

    removed: "Forgotten"
    proof: "Proof"
    n_events: int
    """Events of Dagster's history that named a document."""
    notes: tuple[str, ...]
    """What needs attention but is not the document's text."""

    @property
    def is_gone(self) -> bool:
        """Whether nothing was found any more."""
        return not self.proof.left

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets forget --json`: fields may be added, none goes."""
        return {
            "forgotten": self.is_gone,
            "removed": {
                "points": self.removed.n_points,
                "rows": self.removed.n_rows,
                "table_files": self.removed.n_files,
                "landing_zone_objects": self.removed.n_objects,
                "ledger_vectors": self.removed.n_vectors,
                "history_entries": self.n_events,
            },
            "proof": {
                "searches": self.proof.n_searches,
                "files_read": self.proof.n_files,
                "left": list(self.proof.left),
            },
            "notes": list(self.notes),
        }


def forget(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    documents: "Sequence[Named]",
    context: "RunContext",
    *,
    actor: str,
    reason: str,
    progress: Progress,
    uris: Sequence[str] = (),
) -> ForgetReport:
    """Remove documents from everything, then run the stages that follow from it.

    The removal needs no model and no service but the stores, so that an outage cannot stop it.

    Raises:
        RagAssetsError: The removal was interrupted; run it again.
    """
    from ragassets.core.indexing import RewritesFiles
    from ragassets.queries.forgotten import prove_forgotten
    from ragassets.stages.forgetting import forget_documents

    workspace = resource.workspace
    removed = forget_documents(workspace, documents, context, actor=actor, reason=reason)
    notes: list[str] = []
    try:
        _follow_up(resource, instance, progress)
    except RagAssetsError as error:
        notes.append(
            f"it is removed, but what follows is not done ({error}): run `ragassets ingest`"
        )
    with workspace.vector_store() as store:
        if not isinstance(store, RewritesFiles):
            notes.append(
                "the points are deleted, and no search finds them; their bytes leave the vector"
                " store's own files when it next cleans those up"
            )
    all_uris = removed.traces.uris.union(uris)
    scrubbed = scrub_run_history(instance, all_uris)
    forget_in_notifications(instance, resource.config, all_uris)
    if scrubbed.note:
        notes.append(scrubbed.note)
    if removed.shared_bytes:
        notes.append(
            f"{len(removed.shared_bytes)} objects of the landing zone stay: other documents have"
            " the same bytes"
        )
    proof = prove_forgotten(workspace, documents, removed.traces)
    return ForgetReport(removed, proof, scrubbed.n_changed, tuple(notes))


def _follow_up(resource: WorkspaceResource, instance: DagsterInstance, progress: Progress) -> None:
    """Duplicates move up, versions are sealed as they are now, the catalog is written."""
    from ragassets.stages.build_windows import current_versions

    shards = resource.config.source_shards()
    span = (shards[0], shards[-1])
    runs = CommandRuns(resource, instance, progress)
    runs.execute(jobs.PROCESS_DOCUMENTS, partitions=span)
    runs.execute(jobs.DECIDE_DUPLICATES, partitions=span)
    runs.build(list(current_versions(resource.workspace)))
    runs.execute(jobs.MOVE_ALIASES)
    runs.execute(jobs.UPDATE_CATALOG, partitions=span)


def forget_as_run(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    documents: "Sequence[Named]",
    *,
    uris: Sequence[str],
    actor: str,
    reason: str,
    progress: Progress,
) -> ForgetReport:
    """Forget documents as a materialization of `forgotten_documents`, so that the UI shows it.

    The run's configuration knows the documents by their ids alone: it is kept for ever. After a
    kill the tables may not know their URIs any more, so they are handed over beside it.

    Raises:
        RagAssetsError: The removal was interrupted; run it again.
    """
    from ragassets.defs.assets.forgotten_documents import REPORTS, URIS

    reports: list[ForgetReport] = []
    run_id = str(uuid.uuid4())
    REPORTS[run_id], URIS[run_id] = reports.append, uris
    config = _run_config("forget", documents, actor=actor, reason=reason)
    try:
        CommandRuns(resource, instance, progress).execute(jobs.FORGET, config=config, run_id=run_id)
    finally:
        del REPORTS[run_id], URIS[run_id]
    return reports[0]


def remember_as_run(
    resource: WorkspaceResource,
    instance: DagsterInstance,
    documents: "Sequence[Named]",
    *,
    actor: str,
    reason: str,
) -> None:
    """Remove the tombstones, as a materialization of `forgotten_documents`."""
    runs = CommandRuns(resource, instance, lambda _stage, _done, _total: None)
    runs.execute(jobs.FORGET, config=_run_config("undo", documents, actor=actor, reason=reason))


def _run_config(
    action: str, documents: "Sequence[Named]", *, actor: str, reason: str
) -> dict[str, object]:
    asked = {
        "action": action,
        "documents": {document.document_id: document.source for document in documents},
        "actor": actor,
        "reason": reason,
    }
    return {"ops": {"forgotten_documents": {"config": asked}}}
