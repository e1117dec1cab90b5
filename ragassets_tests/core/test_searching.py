"""Filters, fusion and the language of a query."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.searching import (
    SearchRequest,
    choose_query_languages,
    condition_terms,
    fuse,
    matches,
    metadata_terms,
    parse_filters,
    payload_condition_terms,
    payload_terms,
    split_unspaced_words,
)

rankings = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=4)


@settings(max_examples=100, deadline=None)
@given(rankings, st.integers(1, 10))
def test_fusion_agrees_with_its_formula_and_ignores_the_order_of_rankings(
    given_rankings: list[list[str]], limit: int
) -> None:
    """Against a slow reference: sum of 1 / (60 + rank)."""
    fused = fuse(given_rankings, limit=limit)
    for identifier, score in fused:
        expected = sum(
            1 / (60 + ranking.index(identifier) + 1)
            for ranking in given_rankings
            if identifier in ranking
        )
        assert score == pytest.approx(expected)
    assert fused == sorted(fused, key=lambda hit: (-hit[1], hit[0]))
    assert len(fused) == min(limit, len({i for ranking in given_rankings for i in ranking}))
    again = fuse(given_rankings[::-1], limit=limit)
    assert [round(score, 12) for _, score in again] == [round(score, 12) for _, score in fused]


def test_a_hit_of_both_rankings_beats_the_best_of_either() -> None:
    """Otherwise fusion would be mere interleaving."""
    assert fuse([["a", "b"], ["c", "b"]], limit=2)[0][0] == "b"


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -0.0, 2.0, float(2**60)]),
    st.sampled_from(["", "1", "true", "x", "0.5", "nan"]),
)
filter_values = st.sampled_from(["", "1", "1.0", "-0", "true", "False", "x", "0.5", "nan", "1e99"])


@settings(max_examples=300, deadline=None)
@given(values | st.lists(values, max_size=3), filter_values)
def test_terms_match_exactly_where_the_condition_holds(value: object, wanted: str) -> None:
    """Engines look up terms; the condition on the payload itself is what they must agree with."""
    conditions = parse_filters({"key": wanted})
    metadata = {"key": value, "other": wanted}
    found = set(metadata_terms(metadata)) & set(condition_terms(conditions[0]))
    assert bool(found) == matches({"metadata": metadata}, conditions)


@settings(max_examples=300, deadline=None)
@given(
    values, values, st.sampled_from(["page", "source", "metadata.source", "team"]), filter_values
)
def test_payload_terms_match_exactly_where_the_condition_holds(
    own: object, other: object, key: str, wanted: str
) -> None:
    """The payload's own keys and metadata of the same name are not mixed up."""
    payload = {"page": own, "source": own, "metadata": {"source": other, "team": other}}
    (condition,) = parse_filters({key: wanted})
    found = set(payload_terms(payload)) & set(payload_condition_terms(condition))
    assert bool(found) == matches(payload, [condition])


def test_payload_keys_address_the_payload_and_all_others_its_metadata() -> None:
    """`source` of the metadata is reached as `metadata.source` is not: the reserved word wins."""
    payload = {"source": "handbook", "metadata": {"team": "hr"}}
    assert matches(payload, parse_filters({"source": "handbook", "team": "hr"}))
    assert not matches(payload, parse_filters({"team": "handbook"}))
    assert matches({}, [])
    assert not matches({}, parse_filters({"team": "hr"}))


@pytest.mark.parametrize(
    ("mode", "vector", "text"),
    [("dense", None, "x"), ("sparse", np.ones(2), None), ("hybrid", np.ones(2), None)],
)
def test_a_request_needs_what_its_mode_uses(mode: str, vector: object, text: str | None) -> None:
    """A hybrid search without a vector would silently be a sparse one."""
    with pytest.raises(ValueError, match=f"a {mode} search needs a"):
        SearchRequest(mode=mode, limit=1, vector=vector, text=text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stop_words", "shares", "expected"),
    [
        ({"en": 2, "de": 0}, {"en": 0.5, "de": 0.5}, ["en"]),
        ({"en": 0, "de": 2}, {"en": 0.99, "de": 0.01}, ["de"]),
        ({"en": 0, "de": 0}, {"en": 0.5, "de": 0.5}, ["en", "de"]),
        ({"en": 0, "ro": 0}, {"en": 0.99, "ro": 0.01}, ["en"]),
        ({"en": 0}, {}, ["en"]),
    ],
)
def test_a_query_is_stemmed_in_the_language_that_its_stop_words_show(
    stop_words: dict[str, int], shares: dict[str, float], expected: list[str]
) -> None:
    """Without evidence every language that is common in the collection counts."""
    assert choose_query_languages(stop_words, shares, default="en") == expected


def test_only_unspaced_scripts_are_cut_into_pairs() -> None:
    """Spaced scripts keep their words."""
    assert split_unspaced_words("plain words, naïve 한국어").split() == [
        "plain",
        "words,",
        "naïve",
        "한국어",
    ]
    assert split_unspaced_words("AI学习法。书").split() == ["AI", "学习", "习法", "。", "书"]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("", ""),
        ("é", "é"),
        ("书", " 书 "),
        ("学习法x书", " 学习 习法 x 书 "),
        ("かな\n漢字", " かな \n 漢字 "),
    ],
)
def test_a_cut_text_is_the_one_of_earlier_releases(text: str, cut: str) -> None:
    """Other terms would not meet those of the points that are written already."""
    assert split_unspaced_words(text) == cut
