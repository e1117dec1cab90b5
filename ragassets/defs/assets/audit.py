"""`audit`: whether tables, catalog, landing zone and collections say the same; mends on request."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs import metadata
from ragassets.defs.assets.stage_asset import OWNERS
from ragassets.defs.checks import audit_check_results, audit_check_specs
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import Metadata
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import PROGRESS

if TYPE_CHECKING:
    from ragassets.defs.repair import RepairReport
    from ragassets.queries.audit import Audit

REPORTS: dict[str, "Callable[[RepairReport], None]"] = {}
"""Who wants the report of a run that a command computes in its own process, by run id."""


class AuditRequest(dg.Config):
    """What an audit does about what it finds."""

    repair: bool = False
    """Mend what differs, by runs of the ordinary stages, and audit again."""


def build_audit() -> dg.AssetsDefinition:
    """The asset, unpartitioned: its history is the history of all audits.

    The checks are checks of this asset, not of those that they are about: checks of an asset run
    whenever it is materialized, and an audit of everything after each run would starve the runs.
    """

    @dg.asset(
        name="audit",
        description="Tables, catalog, landing zone and collections compared in both directions."
        " With `repair` in the run's configuration what differs is mended.",
        group_name="operations",
        kinds={"deltalake", "qdrant", "sql"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["audit"],
        deps=[
            dg.AssetDep("document_catalog", partition_mapping=dg.AllPartitionMapping()),
            dg.AssetDep("index_versions", partition_mapping=dg.AllPartitionMapping()),
        ],
        check_specs=audit_check_specs(),
    )
    def audit(  # pyright: ignore[reportUnknownParameterType]
        context: dg.AssetExecutionContext,
        config: AuditRequest,
        workspace: dg.ResourceParam[WorkspaceResource],
        # With a type argument, Dagster takes several outputs for a mistake.
    ) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument]
        from ragassets.defs.repair import RepairReport, repair, writable_versions
        from ragassets.queries.audit import run_audit

        run_id = context.run.run_id
        at_work = other_runs(context.instance, run_id)
        with failing_once(context):
            if config.repair:
                progress = PROGRESS.get(run_id, lambda _stage, _done, _total: None)
                report = repair(workspace, context.instance, progress=progress)
            else:
                found = run_audit(workspace.workspace)
                report = RepairReport(found, found, 0, writable_versions(workspace.workspace))
        at_work |= other_runs(context.instance, run_id)
        if run_id in REPORTS:
            REPORTS[run_id](report)
        return dg.MaterializeResult(
            metadata=dict(_shown(report)),
            check_results=audit_check_results(report.after, n_runs_at_work=len(at_work)),
        )

    return audit


def other_runs(instance: DagsterInstance, run_id: str) -> set[str]:
    """Runs that are going on beside this one: what they have half done looks like damage."""
    going_on = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED]))
    return {run.run_id for run in going_on} - {run_id}


def _shown(report: "RepairReport") -> Metadata:
    counts: Mapping[str, int] = {entry.name: entry.count for entry in report.after.findings}
    values: dict[str, Any] = {
        "clean": "yes" if report.after.is_clean else "no",
        "n_damages": sum(entry.count for entry in report.after.damage),
        "findings": _table(report.after),
        **counts,
    }
    if report.n_runs or report.repaired:
        values["n_repaired"] = sum(report.repaired.values())
        values["found before the repair"] = _table(report.before)
    return values


def _table(found: "Audit") -> dg.MarkdownMetadataValue:
    rows = [
        {
            "check": entry.name,
            "found": entry.count,
            "meaning": entry.meaning,
            "examples": ", ".join(entry.examples),
        }
        for entry in found.findings
        if entry.count
    ]
    return metadata.markdown_table(rows, n_rows=len(rows))
