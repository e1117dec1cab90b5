"""What `ragassets index evaluate` prints for people."""

from typing import TYPE_CHECKING

from ragassets.cli.output import write_line, write_pairs, write_table

if TYPE_CHECKING:
    from ragassets.queries.evaluation import Evaluation


def write_evaluation(found: "Evaluation") -> None:
    """Metrics, the comparison with the live version, the queries that lost, the gates."""
    write_pairs(
        {
            "index version": found.index_version,
            "state": found.state,
            "judged by": list(found.judged_by),
            "golden queries": found.n_golden_queries,
            "nDCG@10": found.quality and found.quality.ndcg_at_10,
            "recall@10": found.quality and found.quality.recall_at_10,
            "MRR@10": found.quality and found.quality.mrr_at_10,
            "recall vs. exact search": found.recall_vs_exact,
            "search p50, p95 (ms)": found.latency
            and f"{found.latency.p50_ms:.1f}, {found.latency.p95_ms:.1f}",
        }
    )
    if found.note:
        write_line(found.note)
    _write_comparison(found)
    if found.gates:
        write_line()
        write_table(
            [
                {
                    "gate": gate.gate,
                    "limit": gate.limit,
                    "found": gate.value,
                    "passed": gate.passed,
                    "note": gate.note,
                }
                for gate in found.gates
            ],
            title="Gates",
        )


def _write_comparison(found: "Evaluation") -> None:
    comparison = found.comparison
    if comparison is None:
        return
    write_line()
    write_line(
        f"against {found.compared_with}, which is live: nDCG@10 {comparison.difference:+.3f}"
        f" (95 % interval {comparison.low:+.3f} to {comparison.high:+.3f},"
        f" p = {comparison.p_value:.3g}); {comparison.wins} better, {comparison.losses} worse,"
        f" {comparison.ties} equal"
    )
    if comparison.losing_queries:
        write_line()
        write_table(
            [
                {
                    "query": lost.query,
                    "nDCG@10": lost.ndcg_at_10,
                    f"with {found.compared_with}": lost.live_ndcg_at_10,
                }
                for lost in comparison.losing_queries
            ],
            title="Queries that lost most",
        )
