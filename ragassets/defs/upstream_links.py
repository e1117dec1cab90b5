"""Links from a materialization to the partitions that it was made from, for the UI.

Dagster's metadata can link to an asset, not to a partition of one, and knows no address of its own
UI, which may run behind any host and path prefix. So the links are relative to the two pages that
show materializations, an asset's and a run's: `../assets/…` leads from both to the same place.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import dagster as dg

MAX_LINKS = 3
"""Links to one asset's partitions; with more, one link to all of them. The UI folds Markdown of
more than about a thousand characters away."""


class UpstreamLinks:
    """The links of the partitions of one asset."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """Look up the asset's parents and how its partitions depend on theirs."""
        graph = context.job_def.asset_layer.asset_graph
        own = context.asset_key
        self._partitions_def = graph.get(own).partitions_def
        self._parents = [
            (key.to_user_string(), graph.get(key).partitions_def, mapping)
            for key in sorted(graph.get(own).parent_keys)
            for mapping in [graph.get_partition_mapping(own, key)]
        ]

    def of(self, partition: str) -> dg.MarkdownMetadataValue:
        """Links to what this partition was made from."""
        return partition_links(
            {
                name: self._upstream(partition, definition, mapping)
                for name, definition, mapping in self._parents
            }
        )

    def _upstream(
        self,
        partition: str,
        definition: dg.PartitionsDefinition[str] | None,
        mapping: dg.PartitionMapping,
    ) -> Sequence[str]:
        """Keys of a parent's partitions; none stands for all of them."""
        own = self._partitions_def
        if own is None or definition is None or isinstance(mapping, dg.AllPartitionMapping):
            return ()
        found = mapping.get_upstream_mapped_partitions_result_for_partitions(
            own.subset_with_partition_keys([partition]), own, definition
        )
        return sorted(found.partitions_subset.get_partition_keys())


def partition_links(partitions: Mapping[str, Sequence[str]]) -> dg.MarkdownMetadataValue:
    """Links to partitions of assets; to an asset's page where no or too many keys are given."""
    links = [
        link
        for asset, keys in partitions.items()
        for link in (
            [_link(asset, key) for key in keys]
            if 0 < len(keys) <= MAX_LINKS
            else [_link(asset, None)]
        )
    ]
    return dg.MetadataValue.md(" · ".join(links) or "_nothing yet_")


def _link(asset: str, partition: str | None) -> str:
    # An underscore would begin an emphasis, a bar a table.
    text = f"{asset} {partition or ''}".strip().replace("_", r"\_").replace("|", r"\|")
    key = "" if partition is None else f"&partition={quote(partition, safe='')}"
    return f"[{text}](../assets/{quote(asset, safe='')}?view=partitions{key})"
