"""`live_index`: the aliases that queries use.

Promotions, rollbacks and canaries are its materializations.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from ragassets.core.canaries import format_share
from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.automation import follow_changes
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import MADE_FROM, Metadata
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import run_context
from ragassets.defs.upstream_links import partition_links

if TYPE_CHECKING:
    from ragassets.adapters.workspace import Workspace
    from ragassets.core.canaries import Canary
    from ragassets.core.stages import RunContext
    from ragassets.stages.alias_history import AliasSwitch


class AliasMove(dg.Config):
    """Where an alias shall point; without an alias, those that point nowhere are started."""

    alias: str = ""
    action: str = "start"
    """`start`, `promote`, `rollback`, `canary` or `canary_off`."""
    to_version: str = ""
    share: float = 0.0
    """Of the searches that a canary answers."""
    actor: str = "dagster"
    reason: str = ""
    is_forced: bool = False
    """Serve a version that is whole although it fails its gates; needs a reason."""


def build_live_index() -> dg.AssetsDefinition:
    """The asset, unpartitioned: its history is the history of all aliases."""

    @dg.asset(
        name="live_index",
        description="Where the aliases point. A version must be sealed before an alias may serve"
        " it.",
        group_name="indexing",
        kinds={"qdrant"},
        owners=OWNERS,
        code_version=STAGE_VERSIONS["live_index"],
        deps=[dg.AssetDep("index_versions", partition_mapping=dg.AllPartitionMapping())],
        pool="vector_store",
        retry_policy=RETRY_POLICY,
        automation_condition=follow_changes(),
    )
    def live_index(
        context: dg.AssetExecutionContext,
        config: AliasMove,
        workspace: dg.ResourceParam[WorkspaceResource],
    ) -> dg.MaterializeResult[Any]:
        with failing_once(context):
            opened, run = workspace.workspace, run_context(context, workspace)
            _, before = _state(opened)
            events = _apply(opened, run, config)
            targets, canaries = _state(opened)
            reports = _report(opened, run, {canary.alias for canary in [*before, *canaries]})
        versions = {*targets.values(), *(canary.index_version for canary in canaries)}
        values: Metadata = {
            MADE_FROM: partition_links({"index_versions": sorted(versions)}),
            **{f"alias {name}": target for name, target in targets.items()},
            **{
                f"canary of {canary.alias}": f"{canary.index_version}, {format_share(canary.share)}"
                for canary in canaries
            },
            **{f"{event.action} {event.alias}": _describe(event) for event in events},
            **reports,
        }
        parts = [f"{name}={target}" for name, target in sorted(targets.items())]
        parts += [f"{c.alias}~{c.index_version}@{c.share:g}" for c in canaries]
        return dg.MaterializeResult(
            metadata=dict(values), data_version=dg.DataVersion(",".join(parts) or "none")
        )

    return live_index


def _apply(workspace: "Workspace", context: "RunContext", asked: AliasMove) -> "list[AliasSwitch]":
    """Do what was asked; what happened."""
    from ragassets.stages.canaries import change_canary
    from ragassets.stages.live_index import move_aliases

    if asked.action in ("canary", "canary_off"):
        event = change_canary(
            workspace,
            context,
            alias=asked.alias,
            index_version=asked.to_version,
            share=asked.share if asked.action == "canary" else None,
            actor=asked.actor,
            reason=asked.reason,
            is_forced=asked.is_forced,
        )
        return [] if event is None else [event]
    return move_aliases(
        workspace,
        context,
        alias=asked.alias,
        action=asked.action,
        to_version=asked.to_version,
        actor=asked.actor,
        reason=asked.reason,
        is_forced=asked.is_forced,
    )


def _state(workspace: "Workspace") -> "tuple[dict[str, str], list[Canary]]":
    """Where the aliases point, and their canaries."""
    from ragassets.stages.alias_history import running_canaries

    with workspace.vector_store() as store:
        targets = store.aliases()
    return targets, running_canaries(workspace.tables, targets)


def _report(workspace: "Workspace", context: "RunContext", aliases: set[str]) -> Metadata:
    """The arms of the canaries that run, or ended just now, compared; the log is folded before."""
    from ragassets.defs.canary_report import canary_report
    from ragassets.queries.canary_comparison import compare_canary
    from ragassets.stages.search_log import fold_search_log

    fold_search_log(workspace, context.now())
    return {
        f"comparison {alias}": canary_report(compare_canary(workspace, alias))
        for alias in sorted(aliases)
    }


def _describe(event: "AliasSwitch") -> str:
    share = (
        ""
        if event.canary_share is None
        else f" ({format_share(event.canary_share)} of the searches)"
    )
    forced = f" (forced: it {event.forced_over})" if event.forced_over else ""
    return (
        f"{event.from_version or 'nothing'} → {event.to_version}{share} by {event.actor}:"
        f" {event.reason or 'no reason given'}{forced}"
    )
