"""`live_index`: the aliases that queries use. Promotions and rollbacks are its materializations."""

from typing import Any

import dagster as dg

from ragassets.core.versions import STAGE_VERSIONS
from ragassets.defs.assets.stage_asset import OWNERS, RETRY_POLICY
from ragassets.defs.automation import follow_changes
from ragassets.defs.failures import failing_once
from ragassets.defs.metadata import MADE_FROM, Metadata
from ragassets.defs.resources import WorkspaceResource
from ragassets.defs.runtime import run_context
from ragassets.defs.upstream_links import partition_links


class AliasMove(dg.Config):
    """Where an alias shall point; without an alias, those that point nowhere are started."""

    alias: str = ""
    action: str = "start"
    """`start`, `promote` or `rollback`."""
    to_version: str = ""
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
        from ragassets.stages.live_index import move_aliases

        with failing_once(context):
            opened = workspace.workspace
            moves = move_aliases(
                opened,
                run_context(context, workspace),
                alias=config.alias,
                action=config.action,
                to_version=config.to_version,
                actor=config.actor,
                reason=config.reason,
                is_forced=config.is_forced,
            )
            with opened.vector_store() as store:
                targets = store.aliases()
        values: Metadata = {
            MADE_FROM: partition_links({"index_versions": sorted(set(targets.values()))}),
            **{f"alias {name}": target for name, target in targets.items()},
            **{
                f"{move.action} {move.alias}": f"{move.from_version or 'nothing'} →"
                f" {move.to_version} by {move.actor}: {move.reason or 'no reason given'}"
                f"{f' (forced: it {move.forced_over})' if move.forced_over else ''}"
                for move in moves
            },
        }
        version = ",".join(f"{name}={target}" for name, target in sorted(targets.items()))
        return dg.MaterializeResult(
            metadata=dict(values), data_version=dg.DataVersion(version or "none")
        )

    return live_index
