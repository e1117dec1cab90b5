"""Retrieval quality: the numbers that decide whether a version may go live."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.evaluation import (
    GoldenQuery,
    evaluate_rankings,
    ndcg,
    parse_golden_queries,
    rank_documents,
    recall,
    recall_against_exact,
    reciprocal_rank,
    score_rankings,
)
from ragassets.errors import ConfigurationError

GRADES = {"a": 3.0, "b": 2.0, "c": 1.0}


def test_ndcg_by_hand() -> None:
    """(3 + 1 / log2 4) / (3 + 2 / log2 3 + 1 / log2 4)."""
    expected = (3 + 1 / 2) / (3 + 2 / math.log2(3) + 1 / 2)
    assert ndcg(["a", "x", "c"], GRADES) == pytest.approx(expected)
    assert ndcg(["a", "b", "c"], GRADES) == 1
    assert ndcg(["x", "y"], GRADES) == 0
    assert ndcg([], GRADES) == 0
    assert ndcg(["a"], {}) == 0


def test_ranks_beyond_the_cutoff_do_not_count() -> None:
    """Nobody reads them."""
    assert ndcg([*"0123456789", "a"], GRADES) == 0
    assert recall([*"0123456789", "a"], GRADES) == 0
    assert reciprocal_rank([*"0123456789", "a"], GRADES) == 0


def test_a_document_of_grade_zero_is_not_relevant() -> None:
    """Some judgements say so explicitly."""
    judged = {"a": 1.0, "b": 0.0}
    assert recall(["b"], judged) == 0
    assert recall(["a"], judged) == 1
    assert reciprocal_rank(["b", "a"], judged) == 0.5


def test_means_over_queries() -> None:
    """Each query counts the same."""
    queries = [GoldenQuery("one", {"a": 1}), GoldenQuery("two", {"b": 1})]
    found = evaluate_rankings(queries, [["a"], ["a", "b"]])
    assert found.n_queries == 2
    assert found.recall_at_10 == 1
    assert found.mrr_at_10 == 0.75
    assert found.ndcg_at_10 == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert evaluate_rankings([], []).n_queries == 0


def test_documents_rank_by_their_best_chunk() -> None:
    """Several chunks of one document fill one rank."""
    assert rank_documents(["a", "b", "a", "c", "b"]) == ["a", "b", "c"]


@given(
    st.lists(st.sampled_from("abcdefghijklmn"), unique=True),
    st.dictionaries(st.sampled_from("abcdefghijklmn"), st.integers(0, 3)),
)
def test_metrics_stay_in_range_and_the_ideal_order_is_best(
    ranking: list[str], relevant: dict[str, int]
) -> None:
    """Whatever is ranked and judged."""
    for metric in (ndcg, recall, reciprocal_rank):
        assert 0 <= metric(ranking, relevant) <= 1 + 1e-12
    ideal = sorted(ranking, key=lambda name: -relevant.get(name, 0))
    assert ndcg(ideal, relevant) >= ndcg(ranking, relevant) - 1e-12


def test_golden_queries_are_json_lines() -> None:
    """Empty lines may separate them."""
    text = '{"query": "q", "relevant": {"file:///a.md": 2}}\n\n{"query": "r", "relevant": {}}\n'
    assert parse_golden_queries(text, origin="golden.jsonl") == [
        GoldenQuery("q", {"file:///a.md": 2}),
        GoldenQuery("r", {}),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"query": 1, "relevant": {}}',
        '{"query": "q"}',
        '{"query": "q", "relevant": {"a": "b"}}',
    ],
)
def test_a_wrong_line_is_named(line: str) -> None:
    """The file is written by people."""
    good = '{"query": "q", "relevant": {}}'
    with pytest.raises(ConfigurationError, match=r"golden\.jsonl:2"):
        parse_golden_queries(f"{good}\n{line}\n", origin="golden.jsonl")


@given(
    st.lists(st.sampled_from("abcdefghijklmn"), unique=True),
    st.dictionaries(st.sampled_from("abcdefghijklmn"), st.integers(0, 3)),
)
def test_scores_agree_with_a_slow_reference(ranking: list[str], relevant: dict[str, int]) -> None:
    """The definitions, written out."""
    (score,) = score_rankings([GoldenQuery("q", relevant)], [ranking])
    first = ranking[:10]
    gain = sum(relevant.get(name, 0) / math.log2(i + 2) for i, name in enumerate(first))
    grades = sorted(relevant.values(), reverse=True)[:10]
    ideal = sum(grade / math.log2(i + 2) for i, grade in enumerate(grades))
    good = {name for name, grade in relevant.items() if grade}
    ranks = [i + 1 for i, name in enumerate(first) if name in good]
    assert score.ndcg_at_10 == pytest.approx(gain / ideal if ideal else 0)
    assert score.recall_at_10 == (len([n for n in first if n in good]) / len(good) if good else 0)
    assert score.reciprocal_rank == (1 / ranks[0] if ranks else 0)


def test_recall_against_exact_search_by_hand() -> None:
    """Equal scores at the edge are equally good; what lies beyond the cutoff does not count."""
    exact = [("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.7), ("e", 0.1)]
    assert recall_against_exact(["a", "b", "d"], exact, 3) == 1
    assert recall_against_exact(["a", "b", "e"], exact, 3) == pytest.approx(2 / 3)
    assert recall_against_exact(["x", "y", "z", "a"], exact, 3) == 0
    assert recall_against_exact([], exact, 3) == 0
    assert recall_against_exact(["a", "b"], exact[:2]) == 1
    assert recall_against_exact([], []) == 1


@given(
    st.lists(st.sampled_from("abcdefghijklmn"), unique=True),
    st.dictionaries(st.sampled_from("abcdefghijklmn"), st.integers(0, 3).map(float)),
    st.integers(1, 12),
)
def test_recall_against_exact_search_stays_in_range_and_is_1_for_exact_search(
    found: list[str], scores: dict[str, float], cutoff: int
) -> None:
    """Whatever is found."""
    exact = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    assert 0 <= recall_against_exact(found, exact, cutoff) <= 1
    assert recall_against_exact([name for name, _ in exact], exact, cutoff) == 1
