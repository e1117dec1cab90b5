"""A build that is killed five times ends as an undisturbed one, and computes nothing twice.

`python benchmarks/run.py killed_builds` does the same with 50,000 chunks.
"""

from pathlib import Path

import pytest

from ragassets_tests.generated_corpus import write_documents
from ragassets_tests.killed_builds import WINDOW_TEXTS, prove

N_CHUNKS = 2_000


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(3600)
def test_a_build_killed_five_times_ends_identical_to_an_undisturbed_one(tmp_path: Path) -> None:
    """Rows, points with payload and vectors to the bit, catalog and aliases; real everything."""
    proof = prove(tmp_path, N_CHUNKS)
    assert proof.n_chunks > 0.9 * N_CHUNKS
    assert [attempt.is_killed for attempt in proof.killed] == [*[True] * 4, False, True, False]
    assert proof.differences == []
    assert proof.problems == []
    # Two of the kills hit the model; what it had done before each was never asked of it again.
    assert 0 < proof.n_computed_again <= 2 * WINDOW_TEXTS
    assert proof.killed[0].n_embedded == WINDOW_TEXTS
    assert proof.killed[2].n_started <= N_CHUNKS - 2 * WINDOW_TEXTS
    assert proof.killed[3].n_started == proof.killed[4].n_started == 0


def test_the_generated_documents_are_the_same_every_time_and_no_sentence_comes_twice(
    tmp_path: Path,
) -> None:
    """Both builds of a proof, and the figures of two machines, are about the same documents."""
    first, second = (write_documents(tmp_path / name, 120, seed=1) for name in ("a", "b"))
    assert [path.name for path in first] == ["00000.md", "00001.md", "00002.md"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.stat().st_mtime for path in first] == [path.stat().st_mtime for path in second]
    lines = [line for path in first for line in path.read_text().splitlines() if line]
    sentences = [line for line in lines if not line.startswith("#")]
    assert len(set(sentences)) == len(sentences) == 120
