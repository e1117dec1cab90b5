"""How a plan is shown to a person."""

from datetime import timedelta
from typing import TYPE_CHECKING

from ragassets.cli.output import write_line, write_pairs, write_table

if TYPE_CHECKING:
    from ragassets.queries.plan import Estimate, IndexPlan


def write_plan(plan: "IndexPlan") -> None:
    """What each stage would do, and what it takes."""
    stages = {
        "chunks": plan.chunks,
        "embeddings": plan.embeddings,
        "points": plan.points,
    }
    write_table(
        [
            {
                "stage": name,
                "compute": work.compute,
                "reuse": work.reuse,
                "remove": work.remove,
            }
            for name, work in stages.items()
        ]
    )
    write_line()
    write_pairs(
        {
            "index version": plan.index_version,
            "documents": f"{plan.documents}, of which {plan.documents_to_chunk} are split anew",
            **_costs(plan.estimate),
        }
    )


def _costs(estimate: "Estimate") -> dict[str, object]:
    speed = f"{estimate.tokens_per_second:,.0f} tokens/s"
    basis = "measured by earlier runs" if estimate.is_speed_measured else "assumed, not measured"
    counts = "exact"
    if estimate.sampled_documents:
        share = f"{estimate.error_share:.1%}"
        counts = f"from a sample of {estimate.sampled_documents} documents, within {share} (95 %)"
    cost = "no price in the configuration"
    if estimate.usd is not None:
        cost = f"{estimate.usd:,.2f} USD"
    return {
        "counts": counts,
        "tokens to embed": f"{estimate.tokens:,}",
        "time to split": _duration(estimate.chunking_seconds),
        "time to embed": f"{_duration(estimate.embedding_seconds)} at {speed}, {basis}",
        "time to index": f"{_duration(estimate.indexing_seconds)}, assumed, not measured",
        "price": cost,
        "disk": size(estimate.disk_bytes),
        "vector store": size(estimate.vector_store_bytes),
    }


def _duration(seconds: float) -> str:
    """Whole seconds, as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def size(n_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{n_bytes / 1e6:,.1f} MB"
