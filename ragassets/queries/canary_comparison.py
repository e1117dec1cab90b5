"""The arms of a canary compared: by its searches, by what users said, and by the golden queries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import polars as pl

from ragassets.adapters.workspace import Workspace
from ragassets.core.arm_comparison import ArmComparison, compare_arms
from ragassets.core.asset_tables import INDEX_VERSIONS
from ragassets.core.search_log import FEEDBACK, SEARCHES
from ragassets.core.tables import TableSpec
from ragassets.errors import ConfigurationError
from ragassets.queries.json_values import json_value
from ragassets.stages.alias_history import AliasSwitch, find_canary, read_history


@dataclass(frozen=True)
class CanaryComparison:
    """What is known of the last canary of an alias."""

    alias: str
    canary_id: str
    index_version: str
    live_version: str
    share: float
    is_running: bool
    since: datetime | None
    """Searches from here on count: what was asked for, or the last change of the share, since a
    larger share moves users from one arm to the other."""
    searches: ArmComparison
    golden: Mapping[str, object] | None
    """Golden queries, query by query: nDCG@10 of the canary's version minus the live one's, as its
    last seal found; None where it was compared with another version or with none."""
    golden_note: str = ""

    def describe_golden(self) -> str:
        """The comparison of the golden queries in one line, or why there is none."""
        found = self.golden
        if found is None:
            return self.golden_note
        return (
            "nDCG@10 {difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, p = {p_value:.3g})"
            " over {n_queries} queries; {wins} better, {losses} worse, {ties} equal"
        ).format(**found)

    def as_json(self) -> dict[str, object]:
        """The public shape."""
        values = cast("dict[str, object]", json_value(self))
        compared = cast("dict[str, list[dict[str, object]]]", values.pop("searches"))
        arms = {str(arm.pop("arm")): arm for arm in compared["arms"]}
        differences = {str(entry.pop("metric")): entry for entry in compared["differences"]}
        return {**values, "arms": arms, "differences": differences}


def compare_canary(
    workspace: Workspace, alias: str, *, since: datetime | None = None
) -> CanaryComparison:
    """Compare the arms of an alias's canary, of the last one where none is running.

    Reads what `fold_search_log` moved into the tables.

    Raises:
        ConfigurationError: The alias never had a canary.
    """
    events = read_history(workspace.tables, alias)
    begun = [event for event in events if event.action == "canary"]
    if not begun:
        raise ConfigurationError(
            key="--alias",
            value=alias,
            problem="never had a canary",
            fix="Begin one: ragassets index canary VERSION --share 10%",
        )
    last = begun[-1]
    begin = max(filter(None, (since, last.happened_at)), default=None)
    searches = _rows(workspace, SEARCHES, alias).filter(canary_id=last.canary_id or "")
    if begin is not None:
        searches = searches.filter(pl.col("searched_at") >= begin)
    golden, note = _golden(workspace, last)
    with workspace.vector_store() as store:
        running = find_canary(events, store.alias_target(alias))
    return CanaryComparison(
        alias=alias,
        canary_id=last.canary_id or "",
        index_version=last.to_version,
        live_version=last.from_version or "",
        share=last.canary_share or 0.0,
        is_running=running is not None,
        since=begin,
        searches=compare_arms(searches, _rows(workspace, FEEDBACK, alias)),
        golden=golden,
        golden_note=note,
    )


def _rows(workspace: Workspace, spec: TableSpec, alias: str) -> pl.DataFrame:
    """Rows of one alias, each once: two who fold the log at once may add a row twice."""
    return workspace.tables.read(spec, [{"alias": alias}]).unique(spec.key)


def _golden(workspace: Workspace, canary: AliasSwitch) -> tuple[Mapping[str, object] | None, str]:
    """The judge's comparison of the two versions, or why there is none."""
    rows = workspace.tables.read(
        INDEX_VERSIONS,
        [{"index_version": canary.to_version}],
        columns=["compared_with", "comparison"],
    )
    rival, comparison = next(rows.iter_rows(), (None, None))
    if comparison is None:
        return None, "no golden queries were compared: see `aliases.<alias>.golden_queries`"
    if rival != canary.from_version:
        return None, f"the golden queries compared it with {rival!r}: build it again"
    return cast("dict[str, object]", json.loads(comparison)), ""
