"""The judgement of an index version as Markdown, for the UI: verdict, gates, comparison, losers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ragassets.defs.metadata import markdown_rows

if TYPE_CHECKING:
    from ragassets.core.evaluation import QueryScore
    from ragassets.core.gates import GateVerdict
    from ragassets.core.paired_comparison import PairedComparison
    from ragassets.stages.index_versions import SealReport

VERDICTS: Mapping[str, str] = {
    "sealed": "It is complete and sound, keeps every gate, and may be served.",
    "incomplete": "It is not complete, and must not be served.",
    "failed_gates": "It is complete and sound, but a gate failed: it must not be served as it is.",
}

BAR_CELLS = 20
"""Width of the longest bar: the UI's narrowest column still shows it on one line."""

BINS = 10
"""Bars of the distribution of nDCG@10: one a tenth."""

WORST_QUERIES = 5


def judgement_report(report: "SealReport") -> dg.MarkdownMetadataValue:
    """Everything that was found, to be read from top to bottom."""
    parts = [
        f"## {report.index_version}: {report.state.replace('_', ' ')}\n\n{VERDICTS[report.state]}",
        _problems(report),
        _gates(report.verdict.gates),
        _quality(report),
        _comparison(report.verdict.compared_with, report.verdict.comparison),
        _distribution(report.measured.scores),
    ]
    return dg.MetadataValue.md("\n\n".join(part for part in parts if part))


def bar(share: float) -> str:
    """A bar of text, `share` of the full width, in eighths of a block.

    Text shows wherever the Markdown does; a picture would need a plotting library.
    """
    eighths = round(max(0.0, min(1.0, share)) * BAR_CELLS * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "") or "▏"


def _problems(report: "SealReport") -> str:
    if not report.problems:
        return ""
    lines = [f"- {problem.text}" for problem in report.problems]
    rows = [
        {"source shard": shard, "lacks": problem.what, "count": count}
        for problem in report.problems
        for shard, count in sorted(problem.by_shard.items())
    ]
    return "\n".join(["### What is wrong", "", *lines, "", markdown_rows(rows)])


def _gates(verdicts: "Sequence[GateVerdict]") -> str:
    rows = [
        {
            "gate": verdict.gate,
            "limit": f"{verdict.limit:g}",
            "found": "–" if verdict.value is None else f"{verdict.value:.4g}",
            "verdict": "passed" if verdict.passed else "FAILED",
            "note": verdict.note,
        }
        for verdict in verdicts
    ]
    return f"### Gates\n\n{markdown_rows(rows)}" if rows else ""


def _quality(report: "SealReport") -> str:
    quality, measured = report.quality, report.measured
    if quality is None:
        judged = "" if report.problems else "Judged on completeness and soundness alone: "
        return f"{judged}no golden queries are configured." if judged else ""
    rows = [
        {"metric": name, "value": f"{value:.4f}", "0 to 1": bar(value)}
        for name, value in (
            ("nDCG@10", quality.ndcg_at_10),
            ("recall@10", quality.recall_at_10),
            ("MRR@10", quality.mrr_at_10),
        )
    ]
    if measured.recall is not None:
        share = measured.recall.recall
        rows.append({"metric": "recall vs. exact", "value": f"{share:.4f}", "0 to 1": bar(share)})
    text = f"### Quality on {quality.n_queries} golden queries\n\n{markdown_rows(rows)}"
    if measured.latency is not None:
        p50, p95 = measured.latency.p50_ms, measured.latency.p95_ms
        text += f"\n\nSearch in the vector store: p50 {p50:.1f} ms, p95 {p95:.1f} ms."
    return text


def _comparison(rival: str | None, found: "PairedComparison | None") -> str:
    if rival is None or found is None:
        return ""
    chance = "no accident" if found.p_value <= 0.05 else "it may be chance"  # noqa: PLR2004 - the customary level, for the wording only
    difference = (
        f"nDCG@10 {found.difference:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f},"
        f" p = {found.p_value:.3g}: {chance})."
    )
    lines = [
        f"### Against {rival}, which is live",
        "",
        difference,
        "",
        markdown_rows(
            [
                {"queries": name, "count": count, "share": bar(count / found.n_queries)}
                for name, count in (
                    ("better", found.wins),
                    ("equal", found.ties),
                    ("worse", found.losses),
                )
            ]
        ),
    ]
    if found.losing_queries:
        rows = [
            {
                "query": lost.query,
                "nDCG@10": f"{lost.ndcg_at_10:.3f}",
                f"with {rival}": f"{lost.live_ndcg_at_10:.3f}",
                "lost": bar(lost.live_ndcg_at_10 - lost.ndcg_at_10),
            }
            for lost in found.losing_queries
        ]
        lines += ["", "Queries that lost most:", "", markdown_rows(rows)]
    return "\n".join(lines)


def _distribution(scores: "Sequence[QueryScore] | None") -> str:
    """How many queries are answered how well, and the worst of them."""
    if not scores:
        return ""
    counts = [0] * BINS
    for score in scores:
        counts[min(BINS - 1, int(score.ndcg_at_10 * BINS))] += 1
    rows = [
        {
            "nDCG@10": f"{number / BINS:.1f} to {(number + 1) / BINS:.1f}",
            "queries": count,
            "share": bar(count / max(counts)),
        }
        for number, count in enumerate(counts)
        if count
    ]
    worst = sorted(scores, key=lambda score: (score.ndcg_at_10, score.query))[:WORST_QUERIES]
    answered = [{"query": s.query, "nDCG@10": f"{s.ndcg_at_10:.3f}"} for s in worst]
    return (
        f"### Query by query\n\n{markdown_rows(rows)}\n\nAnswered worst:\n\n"
        f"{markdown_rows(answered)}"
    )
