"""Hashes that tables live by for years: stable, unambiguous, blind to order and time."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.fingerprints import (
    content_hash,
    data_version,
    document_id,
    fingerprint,
    shard_index,
    stable_hash,
)

Part = str | bytes | int | None
parts = st.lists(st.one_of(st.none(), st.text(), st.binary(), st.integers()), max_size=4)
pairs = st.lists(st.tuples(st.text("ab0"), st.text("ab0")), max_size=5)


def test_hashes_are_those_of_earlier_releases() -> None:
    """Another value here means that every stored row of every project is computed again."""
    assert stable_hash("a", b"b", 3, None) == "ae8d79dc80b10a874cc2835fdc81fb73"
    assert fingerprint({"version": "1", "max_tokens": 256}) == "5e9fa2bb2fce8d1d8247ab73c75cad24"
    assert document_id("handbook", "file:///a%20b.md") == "41bddd17f8b7f728e4af868c01288ff1"
    assert data_version([("b", "2"), ("a", "1")]) == "20949baa59911a5c2937a533413fec0f"
    assert content_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(parts, parts)
def test_different_parts_hash_differently(one: list[Part], other: list[Part]) -> None:
    """`("ab", "c")` and `("a", "bc")` must not share an id, nor a missing text and an empty one."""
    is_same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert (stable_hash(*one) == stable_hash(*other)) == is_same


def test_parts_are_typed_and_framed() -> None:
    """The pairs that a plain concatenation would confuse."""
    confusable = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("ab", None, "c"),
        ("ab", "", "c"),
        ("ab", b"c"),
    ]
    assert len({stable_hash(*each) for each in confusable}) == len(confusable)
    assert stable_hash(1) != stable_hash("1")
    assert stable_hash() != stable_hash(None) != stable_hash("")


def test_text_with_a_lone_surrogate_can_be_hashed() -> None:
    """JSON may carry one; a hash that raises would stop the run."""
    assert len(stable_hash("\ud800")) == 32
    assert len(fingerprint({"text": "\ud800"})) == 32


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=4))
def test_a_fingerprint_ignores_the_order_of_keys(parameters: dict[str, object]) -> None:
    """Moving a line in the configuration must not recompute a corpus."""
    assert fingerprint(parameters) == fingerprint(dict(reversed(parameters.items())))
    assert fingerprint({**parameters, "another": None}) != fingerprint(parameters)


@given(pairs, st.randoms())
def test_a_data_version_ignores_order_and_nothing_else(
    pairs: list[tuple[str, str]], random: Random
) -> None:
    """Downstream automation wakes when, and only when, content changed."""
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert data_version(shuffled) == data_version(pairs)
    assert data_version([*pairs, ("a", "new")]) != data_version(pairs)


@given(st.text(), st.text(), st.integers(1, 5000))
def test_documents_have_an_identity_and_a_shard(source: str, uri: str, n_shards: int) -> None:
    """The id is 32 hex characters, and the shard follows from the id alone."""
    identity = document_id(source, uri)
    assert len(identity) == 32
    assert int(identity, 16) >= 0
    assert 0 <= shard_index(identity, n_shards) < n_shards


def test_shards_are_even() -> None:
    """A shard of twice the mean would set the length of every run."""
    counts = [0] * 16
    for number in range(16_000):
        counts[shard_index(document_id("s", f"file:///{number}"), 16)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150
