"""How many texts the embedding stage hands over between two checkpoints."""

import polars as pl

from ragassets.core.asset_tables import EMBEDDINGS
from ragassets.stages.embedding_speed import Stopwatch
from ragassets.stages.embeddings import _embed
from ragassets_tests.fakes import FakeEmbedder
from ragassets_tests.stage_runs import NOW


def chunks(n_chunks: int) -> pl.DataFrame:
    """New chunks of different texts, as the stage plans them."""
    rows = {
        name: [f"{name}-{number}" for number in range(n_chunks)]
        for name in (*EMBEDDINGS.content, "input_hash", "source_shard")
        if name != "vector"
    }
    return pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.String))


def test_the_embedder_decides_how_much_a_killed_run_may_lose() -> None:
    """A GPU embeds in a moment what takes two cores a minute: one constant fits neither."""
    embedder = FakeEmbedder()
    embedder.window_texts = 2
    new = chunks(5)
    texts = new.select("input_hash", pl.col("chunk_id").alias("text"), n_tokens=pl.lit(3))
    stopwatch = Stopwatch(lambda: NOW)
    outcomes = list(_embed(iter([texts]), new, embedder, stopwatch))
    assert [outcome.rows.height for outcome in outcomes] == [2, 2, 1]


def test_nothing_to_embed_asks_the_embedder_nothing() -> None:
    """Naming its window may load what a run without news must not pay for."""
    assert list(_embed(iter([]), chunks(0), object(), Stopwatch(lambda: NOW))) == []
