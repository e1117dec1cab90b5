"""Duplicates: signatures are stable and sound, decisions are global, explainable and chain-free."""

import itertools
import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ragassets.core import deduplication
from ragassets.core.deduplication import (
    DECISION_SCHEMA,
    SIGNATURE_SCHEMA,
    assign_leaders,
    resolve_duplicates,
    sign_document,
)
from ragassets.core.minhash import compute_minhash, find_shared_buckets, split_words
from ragassets.core.settings import DeduplicationConfig

CONFIG = DeduplicationConfig()
SMALL = DeduplicationConfig(threshold=0.75, n_permutations=64, n_bands=16, rows_per_band=4)
PARAGRAPH = " ".join(f"word{number}" for number in range(200))


def _frame(texts: dict[str, str], config: DeduplicationConfig = CONFIG) -> pl.DataFrame:
    """Signatures of {uri: text}; the document id is the URI reversed, so the two sort apart."""
    rows = []
    for uri, text in texts.items():
        signature = sign_document(text, config)
        rows.append((uri[::-1], uri, signature.text_hash, signature.minhash, signature.n_shingles))
    return pl.DataFrame(rows, schema=SIGNATURE_SCHEMA, orient="row")


def _duplicates(texts: dict[str, str], config: DeduplicationConfig = CONFIG) -> dict[str, str]:
    """{URI of a duplicate: URI of its survivor}."""
    decisions = resolve_duplicates(_frame(texts, config), config)
    return {
        row["document_id"][::-1]: row["duplicate_of"][::-1]
        for row in decisions.iter_rows(named=True)
        if row["duplicate_of"] is not None
    }


def _edited(text: str, n_edits: int) -> str:
    """The text with its first words replaced: n_edits of them, next to each other."""
    words = text.split()
    return " ".join([f"new{number}" for number in range(n_edits)] + words[n_edits:])


# One synthetic document: its family, how far it strayed from it, and which text it holds.
_documents = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0, 2, 6, 10, 14, 40]), st.integers(0, 5)),
    max_size=24,
)


def _synthetic(documents: list[tuple[int, int, int]]) -> pl.DataFrame:
    """Signatures without texts: equal tuples are exact copies, one family is more or less alike."""
    rows = []
    for number, (family, n_changes, variant) in enumerate(documents):
        minhash = np.random.default_rng(family).integers(0, 2**32, 64, dtype="<u4")
        changes = np.random.default_rng(10_000 + variant + 10 * n_changes)
        places = changes.choice(64, n_changes, replace=False)
        minhash[places] = changes.integers(0, 2**32, n_changes)
        text = f"{family}-{n_changes}-{variant if n_changes else 0}"
        uri = f"file:///{(number * 37) % 101:03d}"
        rows.append((f"{number:032x}", uri, text, minhash.tobytes(), 100))
    return pl.DataFrame(rows, schema=SIGNATURE_SCHEMA, orient="row")


def _resolve_slowly(signatures: pl.DataFrame) -> dict[str, tuple[str | None, float | None]]:
    """The rule of `resolve_duplicates`, word by word, without buckets or arrays."""
    decisions: dict[str, tuple[str | None, float | None]] = {}
    leaders: list[dict[str, Any]] = []
    by_text: dict[str, dict[str, Any]] = {}

    def similarity(one: dict[str, Any], other: dict[str, Any]) -> float:
        left, right = (np.frombuffer(row["minhash"], "<u4") for row in (one, other))
        equal = left == right
        is_candidate = any(equal[start : start + 4].all() for start in range(0, 64, 4))
        return float(equal.mean()) if is_candidate else 0.0

    for row in sorted(signatures.to_dicts(), key=lambda row: (row["uri"], row["document_id"])):
        twin = by_text.setdefault(row["text_hash"], row)
        if twin is not row:
            of, score = decisions[twin["document_id"]]
            decisions[row["document_id"]] = (of, score) if of else (twin["document_id"], 1.0)
            continue
        scores = [similarity(row, leader) for leader in leaders]
        if scores and max(scores) >= SMALL.threshold:
            best = leaders[scores.index(max(scores))]
            decisions[row["document_id"]] = (best["document_id"], max(scores))
        else:
            decisions[row["document_id"]] = (None, None)
            leaders.append(row)
    return decisions


def _as_dict(decisions: pl.DataFrame) -> dict[str, tuple[str | None, float | None]]:
    return {row[0]: (row[1], row[2]) for row in decisions.iter_rows()}


# --- signatures ------------------------------------------------------------------------------


def test_a_signature_never_changes_between_releases_and_machines() -> None:
    """Signatures are stored: another value for the same text would compare apples with pears."""
    signature = sign_document("The quick brown fox jumps over the lazy dog and runs away.", CONFIG)
    assert signature.text_hash == "94760621b6d14563711493a55e982de5"
    assert signature.n_shingles == 8
    assert len(signature.minhash) == 256 * 4
    assert np.frombuffer(signature.minhash, "<u4")[:3].tolist() == [438174909, 523061744, 187625041]


def test_a_sketch_does_not_show_its_batches() -> None:
    """Long documents are sketched in pieces; the result must be that of the whole, bit by bit."""
    generator = np.random.default_rng(5)
    shingles = np.unique(generator.integers(0, 2**64, 1500, dtype=np.uint64))
    whole = MinHash(num_perm=256, seed=1, scheme="affine32", hashfunc=int)
    whole.update_batch((shingles >> np.uint64(32)).tolist())
    assert compute_minhash(shingles, 256, 1).tolist() == whole.hashvalues.tolist()


@pytest.mark.parametrize("share", [0.5, 0.7, 0.85, 0.95])
def test_the_estimate_is_within_four_standard_errors_of_the_jaccard_index(share: float) -> None:
    """A biased estimate would move the threshold unseen."""
    generator = random.Random(7)
    n_words = 3000
    words = [f"w{generator.randrange(10**6)}" for _ in range(n_words)]
    n_kept = round(n_words * 2 * share / (1 + share))
    other = words[:n_kept] + [f"x{number}" for number in range(n_words - n_kept)]
    sets = [set(zip(*(text[i:] for i in range(5)), strict=False)) for text in (words, other)]
    exact = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    left, right = (
        np.frombuffer(sign_document(" ".join(text), CONFIG).minhash, "<u4")
        for text in (words, other)
    )
    standard_error = (exact * (1 - exact) / 256) ** 0.5
    assert abs((left == right).mean() - exact) < 4 * standard_error


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        ("two  words\n", "two words", True),
        ("\ufb01ve", "five", True),
        ("Two words", "two words", False),
        ("two words.", "two words", False),
    ],
)
def test_the_text_hash_ignores_white_space_and_compatibility_forms_only(
    one: str, other: str, is_equal: bool
) -> None:
    """Exact means exact to a reader: layout does not count, case and punctuation do."""
    hashes = [sign_document(text, CONFIG).text_hash for text in (one, other)]
    assert (hashes[0] == hashes[1]) is is_equal


@given(st.text(st.characters(), max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_signed(text: str) -> None:
    """Signing may not cost a document, whatever is in it, lone surrogates included."""
    signature = sign_document(text, CONFIG)
    n_words = len(split_words(text))
    assert len(signature.text_hash) == 32
    assert len(signature.minhash) in (0, 1024)
    assert signature == sign_document(text, CONFIG)
    assert signature.n_shingles <= 4 * max(0, n_words) + 200


def test_a_lone_surrogate_is_signed() -> None:
    """Broken JSON escapes leave them in texts, and UTF-8 cannot encode them."""
    assert sign_document(PARAGRAPH + " \ud800", CONFIG).n_shingles == 196


def test_a_text_shorter_than_a_shingle_is_one_shingle() -> None:
    """Otherwise a short text would look like one without words."""
    config = DeduplicationConfig(min_words=1)
    assert sign_document("only three words", config).n_shingles == 1
    assert sign_document("", config).n_shingles == 0
    assert sign_document("one two three four five six", config).n_shingles == 2


def test_where_signing_fails_the_text_is_nobodys_near_duplicate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A document that cannot be compared stays searchable; exact copies are still found."""

    def fail(*_: object) -> None:
        message = "no"
        raise ValueError(message)

    monkeypatch.setattr(deduplication, "compute_minhash", fail)
    signature = sign_document(PARAGRAPH, CONFIG)
    assert (signature.minhash, signature.n_shingles) == (b"", 0)
    near = {"a": PARAGRAPH, "b": PARAGRAPH, "c": PARAGRAPH + " more"}
    assert _duplicates(near) == {"b": "a"}


def test_memory_exhaustion_while_signing_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the machine's failure, not the document's: a rerun may help."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(deduplication, "compute_minhash", fail)
    with pytest.raises(MemoryError):
        sign_document(PARAGRAPH, CONFIG)


def test_chinese_and_japanese_characters_count_as_words() -> None:
    r"""There `\w+` is a whole clause: one edited character would hide a near-duplicate."""
    assert split_words("Das Wort 数据库 ok") == ["das", "wort", "数", "据", "库", "ok"]
    generator = random.Random(3)
    text = "".join(chr(0x4E00 + generator.randrange(3000)) for _ in range(400))
    assert _duplicates({"a": text, "b": text[:200] + "新" + text[201:]}) == {"b": "a"}


# --- configuration ---------------------------------------------------------------------------


def test_a_pair_at_085_is_missed_by_the_bands_in_less_than_one_case_in_a_hundred() -> None:
    """What the bands miss, no threshold brings back."""
    assert 1 - CONFIG.candidate_probability(0.85) < 0.01
    assert 1 - CONFIG.candidate_probability(0.85) == pytest.approx(3.8e-5, rel=0.05)
    assert CONFIG.candidate_probability(0.15) < 1e-4


def test_bands_that_need_more_permutations_than_there_are_are_refused() -> None:
    """They would compare rows that do not exist."""
    with pytest.raises(ValidationError, match=r"n_bands \* rows_per_band is 512"):
        DeduplicationConfig(n_bands=64)


def test_only_the_parameters_of_a_signature_ask_for_new_signatures() -> None:
    """A new threshold is a new decision over old signatures: it must not read every text again."""
    changed = DeduplicationConfig(threshold=0.9, n_bands=16, rows_per_band=16)
    assert changed.signature_parameters() == CONFIG.signature_parameters()
    assert DeduplicationConfig(seed=2).signature_parameters() != CONFIG.signature_parameters()


# --- decisions -------------------------------------------------------------------------------


def test_near_duplicates_point_at_the_first_by_uri_and_others_survive() -> None:
    """The plain case, with its similarity written where a person can see it."""
    texts = {
        "c": PARAGRAPH,
        "b": _edited(PARAGRAPH, 8),
        "a": "Something else entirely. " * 3 + _edited(PARAGRAPH, 150),
        "d": PARAGRAPH,
    }
    decisions = resolve_duplicates(_frame(texts), CONFIG)
    assert decisions["document_id"].to_list() == ["a", "b", "c", "d"]
    assert decisions["duplicate_of"].to_list() == [None, None, "b", "b"]
    similarity = decisions["similarity"].to_list()
    assert similarity[:2] == [None, None]
    assert similarity[2] == similarity[3] == pytest.approx(188 / 204, abs=0.07)


def test_an_exact_copy_of_a_survivor_has_similarity_one() -> None:
    """1.0 tells a person that nothing differs."""
    decisions = resolve_duplicates(_frame({"a": PARAGRAPH, "b": PARAGRAPH + "\n"}), CONFIG)
    assert decisions.rows() == [("a", None, None), ("b", "a", 1.0)]


def test_duplicates_do_not_chain() -> None:
    """Each page is like the one before it; merging all three would hide the third's own text."""
    config = DeduplicationConfig(threshold=0.69)
    texts = {"a": PARAGRAPH, "b": _edited(PARAGRAPH, 24), "c": _edited(PARAGRAPH, 50)}
    assert _duplicates(texts, config) == {"b": "a"}
    del texts["a"]
    assert _duplicates(texts, config) == {"c": "b"}


def test_short_texts_are_compared_exactly_only() -> None:
    """Two notes that differ in the one word that matters are not the same note."""
    texts = {
        "a": "Room 4 is closed all day today",
        "b": "Room 5 is closed all day today",
        "c": "Room 4 is closed all day today",
    }
    assert _duplicates(texts) == {"c": "a"}


def test_nothing_is_a_duplicate_where_deduplication_is_off() -> None:
    """Off means off: a source of legal records may need each copy."""
    texts = {"a": PARAGRAPH, "b": PARAGRAPH}
    assert _duplicates(texts, DeduplicationConfig(enabled=False)) == {}


def test_no_documents_give_an_empty_table_of_the_right_types() -> None:
    """An empty shard is ordinary; Delta refuses a column of type null."""
    decisions = resolve_duplicates(_frame({}), CONFIG)
    assert dict(decisions.schema) == DECISION_SCHEMA
    assert decisions.is_empty()


@pytest.mark.parametrize("minhash", [None, b"", b"\x00" * 512])
def test_a_signature_of_another_length_is_nobodys_near_duplicate(minhash: bytes | None) -> None:
    """While parameters change, old and new signatures meet in one resolution."""
    frame = _frame({"a": PARAGRAPH, "b": _edited(PARAGRAPH, 4)})
    old = frame.with_columns(
        minhash=pl.when(pl.col("uri") == "a").then(pl.lit(minhash)).otherwise("minhash")
    )
    assert resolve_duplicates(frame, CONFIG)["duplicate_of"].to_list() == [None, "a"]
    assert resolve_duplicates(old, CONFIG)["duplicate_of"].to_list() == [None, None]


@pytest.mark.parametrize("text_hash", [None, ""])
def test_documents_without_a_text_hash_are_not_copies_of_each_other(text_hash: str | None) -> None:
    """A missing hash says nothing; one survivor for all unhashed texts would hide them."""
    frame = _frame({"a": "short", "b": "other"}).with_columns(text_hash=pl.lit(text_hash))
    assert resolve_duplicates(frame, CONFIG)["duplicate_of"].to_list() == [None, None]


def test_a_document_seen_in_two_shards_is_not_its_own_duplicate() -> None:
    """While the number of shards changes, a document is briefly in both."""
    frame = _frame({"a": PARAGRAPH})
    assert resolve_duplicates(pl.concat([frame, frame]), CONFIG).rows() == [("a", None, None)]


def test_documents_of_different_scopes_are_not_compared() -> None:
    """A copy that everybody may read must not give way to one that only some may read."""
    frame = _frame({"a": PARAGRAPH, "b": PARAGRAPH, "c": _edited(PARAGRAPH, 4), "d": PARAGRAPH})
    scoped = frame.with_columns(scope=pl.Series(["hr", "all", "hr", "all"]))
    decisions = resolve_duplicates(scoped, CONFIG)
    assert decisions["document_id"].to_list() == ["a", "b", "c", "d"]
    assert decisions["duplicate_of"].to_list() == [None, None, "a", "b"]


@given(_documents, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_decisions_are_those_of_a_slow_reference_in_any_order_of_rows(
    documents: list[tuple[int, int, int]], shuffler: random.Random
) -> None:
    """Shards arrive in any order; the decisions must be those of a fresh build."""
    signatures = _synthetic(documents)
    order = list(range(len(documents)))
    shuffler.shuffle(order)
    decisions = resolve_duplicates(signatures[order], SMALL)
    assert _as_dict(decisions) == _resolve_slowly(signatures)
    assert decisions.equals(resolve_duplicates(signatures, SMALL))


@given(_documents)
@settings(max_examples=50, deadline=None)
def test_every_duplicate_names_a_survivor_at_or_above_the_threshold(
    documents: list[tuple[int, int, int]],
) -> None:
    """A duplicate of a duplicate would have nothing searchable to stand for it."""
    signatures = _synthetic(documents)
    decisions = _as_dict(resolve_duplicates(signatures, SMALL))
    texts = dict(signatures.select("document_id", "text_hash").iter_rows())
    survivors = {document_id for document_id, (of, _) in decisions.items() if of is None}
    clusters: dict[str, set[str]] = {}
    for document_id, (of, similarity) in decisions.items():
        clusters.setdefault(texts[document_id], set()).add(of or document_id)
        if of is not None and similarity is not None:
            assert of in survivors
            assert similarity >= SMALL.threshold
            assert (texts[document_id] != texts[of]) or similarity == 1.0
    assert all(len(leaders) == 1 for leaders in clusters.values())


@given(st.integers(2, 8), st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_removing_the_survivor_of_like_documents_promotes_exactly_the_next(
    n_documents: int, n_others: int
) -> None:
    """The cluster must stay searchable, once: by one document, not by none or by all."""
    signatures = pl.concat(
        [_synthetic([(0, 2, number) for number in range(n_documents)]), _strangers(n_others)]
    ).sort("uri")
    family = signatures.filter(~pl.col("document_id").str.starts_with("stranger"))
    first, second = family["document_id"][:2]
    before = _as_dict(resolve_duplicates(signatures, SMALL))
    remaining = signatures.filter(pl.col("document_id") != first)
    after = _as_dict(resolve_duplicates(remaining, SMALL))
    assert {before[key][0] for key in family["document_id"]} == {None, first}
    assert {key for key in after if before[key][0] and not after[key][0]} == {second}
    assert {after[key][0] for key in family["document_id"][1:]} <= {None, second}


def _strangers(n_documents: int) -> pl.DataFrame:
    """Documents like nobody else."""
    generator = np.random.default_rng(99)
    rows = [
        (f"stranger{i}", f"file:///5{i}x", f"s{i}", generator.bytes(256), 9)
        for i in range(n_documents)
    ]
    return pl.DataFrame(rows, schema=SIGNATURE_SCHEMA, orient="row")


@given(_documents, st.data())
@settings(max_examples=50, deadline=None)
def test_after_any_removal_no_document_points_at_a_missing_one(
    documents: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Survivors go away all the time; what repeated them must lead or repeat something present."""
    signatures = _synthetic(documents)
    removed = set(data.draw(st.lists(st.sampled_from(range(max(1, len(documents)))))))
    remaining = signatures.with_row_index("row").filter(~pl.col("row").is_in(removed)).drop("row")
    decisions = _as_dict(resolve_duplicates(remaining, SMALL))
    survivors = {document_id for document_id, (of, _) in decisions.items() if of is None}
    assert set(decisions) == set(remaining["document_id"])
    assert all(of is None or of in survivors for of, _ in decisions.values())


@given(_documents)
@settings(max_examples=30, deadline=None)
def test_a_document_like_no_other_changes_no_other_decision(
    documents: list[tuple[int, int, int]],
) -> None:
    """One new page must not make the index shift elsewhere."""
    signatures = _synthetic(documents)
    before = _as_dict(resolve_duplicates(signatures, SMALL))
    after = _as_dict(resolve_duplicates(pl.concat([signatures, _strangers(3)]), SMALL))
    assert {key: after[key] for key in before} == before
    assert all(after[f"stranger{i}"] == (None, None) for i in range(3))


# --- speed and buckets -----------------------------------------------------------------------


def test_every_pair_that_datasketch_finds_is_compared() -> None:
    """The vectorised buckets replace datasketch's index; they may not find less than it does."""
    generator = np.random.default_rng(11)
    families = generator.integers(0, 2**32, (40, 256), dtype=np.uint32)
    minhashes = families[generator.integers(0, 40, 200)].copy()
    is_changed = generator.random(minhashes.shape) < generator.random((200, 1)) * 0.15
    minhashes[is_changed] = generator.integers(0, 2**32, is_changed.sum(), dtype=np.uint32)
    sketches = [
        MinHash(num_perm=256, seed=1, scheme="affine32", hashvalues=row) for row in minhashes
    ]
    index = MinHashLSH(num_perm=256, params=(CONFIG.n_bands, CONFIG.rows_per_band))
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    theirs = {
        (one, other)
        for one, sketch in enumerate(sketches)
        for other in map(int, map(str, index.query(sketch)))
        if one < other and sketch.jaccard(sketches[other]) >= CONFIG.threshold
    }
    buckets = find_shared_buckets(minhashes, CONFIG.n_bands, CONFIG.rows_per_band)
    ours = {
        (one, other)
        for one, other in itertools.combinations(range(200), 2)
        if ((buckets[one] == buckets[other]) & (buckets[one] >= 0)).any()
        and (minhashes[one] == minhashes[other]).mean() >= CONFIG.threshold
    }
    assert len(theirs) > 100
    assert ours == theirs


def test_unlike_pages_of_one_template_are_compared_with_a_bounded_number_of_leaders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Boilerplate puts thousands of unlike pages into one bucket: all pairs would take hours."""
    generator = np.random.default_rng(2)
    n_documents = 400
    minhashes = generator.integers(0, 2**32, (n_documents, 64), dtype=np.uint32)
    minhashes[:, :8] = 7
    minhashes[399, 8:] = minhashes[300, 8:]  # in the one bucket that offers no more leaders
    collect, n_compared = deduplication._collect_candidates, []

    def spy(leaders_in: dict[int, list[int]], buckets: list[int]) -> list[int]:
        candidates = collect(leaders_in, buckets)
        n_compared.append(len(candidates))
        return candidates

    monkeypatch.setattr(deduplication, "MAX_LEADERS_PER_BUCKET", 10)
    monkeypatch.setattr(deduplication, "_collect_candidates", spy)
    leader, _ = assign_leaders(minhashes, SMALL)
    assert leader.tolist() == [*range(399), 300]
    assert max(n_compared) <= 21  # two buckets of the template, and row 300
