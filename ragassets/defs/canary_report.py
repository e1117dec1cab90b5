"""The comparison of a canary's arms as Markdown, for the UI."""

from typing import TYPE_CHECKING

import dagster as dg

from ragassets.core.canaries import format_share
from ragassets.defs.metadata import markdown_rows

if TYPE_CHECKING:
    from ragassets.core.arm_comparison import ArmSummary, Difference
    from ragassets.queries.canary_comparison import CanaryComparison


def canary_report(found: "CanaryComparison") -> dg.MarkdownMetadataValue:
    """What the arms found, how fast, and what users said of it."""
    running = "running" if found.is_running else "ended"
    since = "" if found.since is None else f"; searches since {found.since:%Y-%m-%d %H:%M} UTC"
    parts = [
        f"## {found.index_version} beside {found.live_version}",
        f"{format_share(found.share)} of the searches of {found.alias}, {running}{since}.",
        markdown_rows([_arm_row(arm) for arm in found.searches.arms]),
        "### Canary minus live",
        markdown_rows([_difference_row(entry) for entry in found.searches.differences]),
        f"### Golden queries\n\n{found.describe_golden()}",
    ]
    return dg.MetadataValue.md("\n\n".join(parts))


def _arm_row(arm: "ArmSummary") -> dict[str, object]:
    return {
        "arm": arm.arm,
        "searches": arm.searches,
        "users or queries": arm.units,
        "fallbacks": arm.fallbacks,
        "p50 ms": _number(arm.latency_ms_p50),
        "p95 ms": _number(arm.latency_ms_p95),
        "of": f"{arm.timed} {'first' if arm.is_cold else 'warm'}",
        "feedback": arm.feedback,
    }


def _difference_row(entry: "Difference") -> dict[str, object]:
    interval = "" if entry.low is None else f"{entry.low:+.3f} to {entry.high:+.3f}"
    return {
        "metric": entry.metric,
        "live": _number(entry.live),
        "canary": _number(entry.canary),
        "difference": _number(entry.difference),
        "95 % interval": interval,
        "p": _number(entry.p_value),
        "verdict": entry.verdict,
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
