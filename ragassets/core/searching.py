"""Search requests, filters and the fusion of dense and sparse rankings; pure.

Every engine ranks by itself what it is good at (one vector, one filter); combining the rankings
happens here, so that all engines give the same hybrid order.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ragassets.core.access import EVERYTHING, READERS, TENANT, Access, AnyOf
from ragassets.errors import ConfigurationError

SearchMode = Literal["dense", "sparse", "hybrid"]

PAYLOAD_KEYS = frozenset(
    {"source", "uri", "document_id", "language", "document_type", "title", "page"}
)
"""Filter keys that address the payload itself; every other key addresses its `metadata`."""

RANK_CONSTANT = 60
"""The `k` of reciprocal rank fusion, as its authors recommend: on Cranfield anything from 10 to 60
gives nDCG@10 within 0.003, so there is no reason to be clever."""

FUSION_DEPTH = 100
"""Hits that each ranking brings into the fusion, at least. 50, 100 and 200 rank Cranfield alike."""

COMMON_LANGUAGE_SHARE = 0.05
"""A language with a smaller share of the chunks is taken for a slip of the language detection,
unless the query itself shows that it is written in it."""

LARGEST_EXACT_FLOAT = 2**53
"""From here on integers have no exact float64, so engines could confuse neighbours."""


OWN_TERM = "payload/"
"""Before terms of the payload's own keys: metadata may have keys of the same names."""

UNSPACED_RUN = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)")
"""Hiragana, katakana and Han characters."""


@dataclass(frozen=True)
class FilterCondition:
    """One `key=value`: the field equals the value, or, being a list, has an element that does.

    `number` and `boolean` are the value's other readings: `year=2024` finds 2024, 2024.0 and
    "2024".
    """

    path: tuple[str, ...]
    text: str
    number: int | float | None
    boolean: bool | None


Condition = FilterCondition | AnyOf


@dataclass(frozen=True, eq=False)
class SearchRequest:
    """One query. `dense` needs `vector`, `sparse` needs `text`, `hybrid` both."""

    mode: SearchMode
    limit: int
    vector: NDArray[np.float32] | None = None
    """(dim,) float32 of the query."""
    text: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict[str, str])
    exact: bool = False
    """Compare with every vector as it is: no approximate index, no quantized values. Slow on large
    collections, and what approximate search is measured against."""
    access: Access = EVERYTHING
    """For whom it is asked."""

    def __post_init__(self) -> None:
        """Refuse a request that its mode cannot answer."""
        if self.limit < 1:
            message = f"limit must be at least 1, not {self.limit}"
            raise ValueError(message)
        if self.mode in ("dense", "hybrid") and self.vector is None:
            message = f"a {self.mode} search needs a vector"
            raise ValueError(message)
        if self.mode in ("sparse", "hybrid") and self.text is None:
            message = f"a {self.mode} search needs a text"
            raise ValueError(message)

    @property
    def conditions(self) -> list[Condition]:
        """All that a hit must satisfy: what was asked for, and what may be seen."""
        return [*parse_filters(self.filters), *self.access.conditions]


@dataclass(frozen=True)
class SearchHit:
    """One found point. Scores compare within one result only."""

    point_id: str
    score: float
    payload: Mapping[str, object]


def parse_filters(filters: Mapping[str, str]) -> list[FilterCondition]:
    """Return the conditions that `key=value` pairs stand for; all of them must hold."""
    return [_parse_filter(key, value) for key, value in filters.items()]


def matches(payload: Mapping[str, object], conditions: Sequence[Condition]) -> bool:
    """Whether a payload satisfies every condition: the reference that engines must agree with."""
    return all(_matches_one(payload, condition) for condition in conditions)


def fuse(rankings: Sequence[Sequence[str]], *, limit: int) -> list[tuple[str, float]]:
    """Return the best ids of several rankings with their fused scores, best first.

    Reciprocal rank fusion: an id scores 1 / (k + rank) in each ranking that holds it. It needs no
    scores, so cosine similarities and BM25 sums need not be made comparable. Ties go by id.

    Source: Cormack, Clarke and Buettcher, Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods, SIGIR 2009, https://doi.org/10.1145/1571941.1572114
    """
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, identifier in enumerate(ranking, start=1):
            scores[identifier] += 1 / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]


def fusion_depth(limit: int) -> int:
    """Return how many hits to ask of each ranking for `limit` fused ones."""
    return max(FUSION_DEPTH, 2 * limit)


def choose_query_languages(
    stop_words: Mapping[str, int], shares: Mapping[str, float], *, default: str
) -> list[str]:
    """Return the languages whose stemming a query gets, given what the collection holds.

    The language that knows most of the query's words as stop words is the likely one. Where several
    tie, as in a query of key words alone, all of them count that are common in the collection.

    Args:
        stop_words: per candidate language, how many words of the query it drops.
        shares: per candidate language, its share of the collection's chunks.
        default: the collection's default, always common.
    """
    most = max(stop_words.values(), default=0)
    leaders = [language for language, n_words in stop_words.items() if n_words == most]
    common = [
        language
        for language in leaders
        if language == default or shares.get(language, 0) >= COMMON_LANGUAGE_SHARE
    ]
    return common or leaders


def split_unspaced_words(text: str) -> str:
    """Return the text with runs of Chinese and Japanese characters cut into overlapping pairs.

    These scripts do not put spaces between words, so a tokenizer takes a whole clause for one word
    and nothing ever matches. Pairs are what search engines without a dictionary index.

    Source: Lucene's CJKBigramFilter; Nie and Ren, Chinese information retrieval: using characters
    or words?, https://doi.org/10.1016/S0306-4573(98)00051-5
    """
    if text.isascii():  # most are, and the pattern looks at every character
        return text
    parts = UNSPACED_RUN.split(text)
    parts[1::2] = [f" {_pairs(run)} " for run in parts[1::2]]
    return "".join(parts)


def _pairs(run: str) -> str:
    return " ".join(map(add, run, run[1:])) or run


def _parse_filter(key: str, value: str) -> FilterCondition:
    name = key.removeprefix("metadata.")
    if not name:
        raise ConfigurationError(
            key="filter", value=key, problem="is not a usable key", fix="Use KEY=VALUE"
        )
    path = (key,) if key in PAYLOAD_KEYS else ("metadata", name)
    return FilterCondition(
        path=path,
        text=value,
        number=_parse_number(value),
        boolean={"true": True, "false": False}.get(value.lower()),
    )


def _parse_number(value: str) -> int | float | None:
    for parse in (int, float):
        try:
            number = parse(value)
        except ValueError:
            continue
        is_usable = abs(number) < LARGEST_EXACT_FLOAT  # False for NaN too
        return number if is_usable else None
    return None


def _matches_one(payload: Mapping[str, object], condition: Condition) -> bool:
    if isinstance(condition, AnyOf):
        return condition.is_met(payload)
    elements = _elements(_look_up(payload, condition.path))
    return any(_equals(element, condition) for element in elements)


def metadata_terms(metadata: Mapping[str, object]) -> list[str]:
    """Return one typed `key=value` term for each value, and each element of a list.

    Stored beside a point under one index, they make a filter on any metadata key exact and fast:
    a condition holds exactly if the point has one of its `condition_terms`.
    """
    return [
        term
        for key, value in metadata.items()
        for element in _elements(value)
        for term in _value_terms(key, element)
    ]


def condition_terms(condition: FilterCondition) -> list[str]:
    """Return the terms, any of which satisfies a condition on metadata."""
    readings = (condition.text, condition.number, condition.boolean)
    return [term for reading in readings for term in _value_terms(condition.path[-1], reading)]


def payload_terms(payload: Mapping[str, object]) -> list[str]:
    """Return the terms of everything in a payload that a condition can ask for.

    For engines that can look for a term, and for nothing of what `FilterCondition` means.
    """
    own = {key: payload.get(key) for key in sorted({*PAYLOAD_KEYS, TENANT, READERS})}
    metadata = payload.get("metadata")
    known = cast("dict[str, object]", metadata) if isinstance(metadata, dict) else {}
    return [*(OWN_TERM + term for term in metadata_terms(own)), *metadata_terms(known)]


def payload_condition_terms(condition: Condition) -> list[str]:
    """Return the `payload_terms`, any of which satisfies a condition."""
    if isinstance(condition, AnyOf):
        return [
            OWN_TERM + term
            for value in condition.values
            for term in _value_terms(condition.key, value)
        ]
    prefix = "" if condition.path[0] == "metadata" else OWN_TERM
    return [prefix + term for term in condition_terms(condition)]


def _value_terms(key: str, value: object) -> list[str]:
    match value:
        case bool():
            return [f"b:{key}={value}"]
        case int() | float():
            # Adding zero turns -0.0, which equals 0.0, into the same text.
            return [f"n:{key}={value + 0.0!r}"] if abs(value) < LARGEST_EXACT_FLOAT else []
        case str():
            return [f"s:{key}={value}"]
        case _:
            return []


def _elements(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _look_up(payload: Mapping[str, object], path: Sequence[str]) -> object:
    found: object = payload
    for name in path:
        found = _member(found, name)
    return found


def _member(value: object, name: str) -> object:
    if not isinstance(value, Mapping):
        return None
    return cast("Mapping[str, object]", value).get(name)


def _equals(value: object, condition: FilterCondition) -> bool:
    if isinstance(value, bool):
        return value is condition.boolean
    if isinstance(value, int | float):
        return condition.number is not None and value == condition.number
    return value == condition.text
