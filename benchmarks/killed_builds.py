"""A build of 50,000 chunks, killed five times, against an undisturbed one. Takes half an hour.

`RAGASSETS_KILLED_CHUNKS` sets another size. Not part of `make benchmarks`: ask for it by name.
"""

import os
import tempfile
from pathlib import Path

from ragassets_tests.killed_builds import WINDOW_TEXTS, Attempt, Proof, prove

TITLE = "A build that is killed five times"
N_CHUNKS = 50_000


def measure() -> list[str]:
    """Build twice under one path, and compare all that is stored."""
    n_chunks = int(os.environ.get("RAGASSETS_KILLED_CHUNKS", N_CHUNKS))
    with tempfile.TemporaryDirectory(prefix="ragassets-killed-") as folder:
        return _lines(prove(Path(folder), n_chunks))


def _lines(proof: Proof) -> list[str]:
    runs = [
        ("undisturbed: the first build", proof.undisturbed[0]),
        ("undisturbed: after edits and deletions", proof.undisturbed[1]),
    ]
    names = iter(_spelled(kill.moment, kill.at) for kill in proof.kills)
    for attempt in proof.killed:
        what = f"killed: {next(names)}" if attempt.is_killed else "until it is done"
        runs.append((what, attempt))
    verdict = "Identical" if not proof.differences else f"DIFFERENT: {proof.differences}"
    limit = len(proof.kills) * WINDOW_TEXTS
    return [
        (
            f"`ragassets ingest` of generated documents; {proof.n_chunks:,} chunks of about 20"
            " tokens after the second build, 8 shards, the bundled model, the embedded engine. A"
            " killed run is killed with its whole process group."
        ),
        "",
        "| run | seconds | texts given to the model |",
        "|---|---|---|",
        *(_row(what, attempt) for what, attempt in runs),
        "",
        (
            f"{verdict}: every row of every table but times and run ids, every point with payload"
            " and vectors to the bit, catalog, aliases, collections."
            f" Contradictions between them: {len(proof.problems)}."
        ),
        "",
        (
            f"Embedded again: {proof.n_computed_again:,} of {proof.n_computed:,} texts (at most one"
            f" window of {WINDOW_TEXTS} a kill: {limit:,}). A kill costs"
            f" {proof.share_lost:.1%} of the undisturbed build's time, the start of the process"
            " included."
        ),
    ]


def _row(what: str, attempt: Attempt) -> str:
    return f"| {what} | {attempt.seconds:.0f} | {attempt.n_started:,} |"


def _spelled(moment: str, at: int) -> str:
    """The moment in words of the documentation."""
    return {
        "in the model": f"in the middle of window {at} that it embeds",
        "the model is done": f"window {at} is embedded and not kept yet",
        "before replace embeddings": "all is in the ledger, nothing is committed",
        "after upsert": f"{at} writes of points are done",
        "after replace indexed_chunks": "between the commit and the deletion of points",
    }[moment]
