"""Which documents repeat another one: exact copies and near-duplicates.

Each document is signed once, alone (`sign_document`). The decisions are one pure function of the
signatures of all documents (`resolve_duplicates`), so they hold across shards and are those of a
fresh build, in whatever order the documents arrived. Here are no tables and no shards: who stores
the signatures, and who writes the decisions, is the caller's business.
"""

import hashlib
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import polars as pl

from ragassets.core.minhash import (
    compute_minhash,
    find_shared_buckets,
    hash_shingles,
    split_words,
)
from ragassets.core.settings import DeduplicationConfig

SIGNATURE_SCHEMA: dict[str, pl.DataType] = {
    "document_id": pl.String(),
    "uri": pl.String(),
    "text_hash": pl.String(),
    "minhash": pl.Binary(),
    "n_shingles": pl.Int64(),
}
"""What `resolve_duplicates` reads; a `scope` column of strings may be added."""

DECISION_SCHEMA: dict[str, pl.DataType] = {
    "document_id": pl.String(),
    "duplicate_of": pl.String(),
    "similarity": pl.Float64(),
}
"""What `resolve_duplicates` returns."""

MAX_LEADERS_PER_BUCKET = 128
"""Leaders that one bucket may offer for comparison; the later ones are found through other buckets.

Only boilerplate puts more unlike pages than this into one bucket. Without a limit, n pages that
share a template cost n * n / 2 comparisons; with it, at most n * n_bands * 128, and far fewer in
practice, because most bands of a page hold something of its own.
"""


@dataclass(frozen=True, slots=True)
class DocumentSignature:
    """What is kept of a text to compare it with others."""

    text_hash: str
    """32 hex characters; equal for texts that differ in white space and compatibility forms only.
    """
    minhash: bytes
    """Little-endian uint32[n_permutations], or empty: then only the text hash is compared."""
    n_shingles: int
    """Distinct shingles; 0 for a text without words, or where signing failed."""


def sign_document(text: str, config: DeduplicationConfig) -> DocumentSignature:
    """The signature of one text. Never raises on account of the text.

    A text whose shingles cannot be hashed keeps its text hash and gets an empty minhash.
    """
    normal = " ".join(unicodedata.normalize("NFKC", text).split())
    text_hash = _hash_text(normal)
    try:
        words = split_words(normal)
        shingles = hash_shingles(words, config.shingle_words)
        minhash = (
            compute_minhash(shingles, config.n_permutations, config.seed).tobytes()
            if len(words) >= config.min_words
            else b""
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  a text that cannot be compared would be lost to search
        return DocumentSignature(text_hash=text_hash, minhash=b"", n_shingles=0)
    return DocumentSignature(text_hash=text_hash, minhash=minhash, n_shingles=len(shingles))


def resolve_duplicates(signatures: pl.DataFrame, config: DeduplicationConfig) -> pl.DataFrame:
    """Decide for each document whether it survives or which survivor it repeats.

    Documents are taken in the order of their URIs. The first one leads. Each next one joins the
    most similar earlier leader whose estimated similarity is at least the threshold (of equals,
    the earlier), else it leads itself. Documents with the same text hash share one decision, that
    of the first of them.

    Invariants: the result does not depend on the order of the rows; `duplicate_of` names a
    survivor that is itself similar (no chains); a document similar to none changes no other
    decision (up to `MAX_LEADERS_PER_BUCKET`).

    Args:
        signatures: One row a document, columns as in `SIGNATURE_SCHEMA`. Where a `scope` column is
            given, only documents of one scope are compared. A row with a null or empty text hash
            is nobody's copy; one whose minhash is null, empty or of another length than the
            configuration's is nobody's near-duplicate.
        config: The threshold and the bands; `n_permutations` and `seed` as at signing.

    Returns:
        Columns as in `DECISION_SCHEMA`, in the order of URI and document id. `duplicate_of` and
        `similarity` are null for survivors; `similarity` is 1.0 for exact copies of the survivor.
        Time and memory grow linearly: about 2.5 KB a document.
    """
    ordered = signatures.sort("uri", "document_id", "text_hash").unique(
        # A document that is in two shards while the number of shards changes is not its own copy.
        "document_id",
        keep="first",
        maintain_order=True,
    )
    if ordered.is_empty() or not config.enabled:
        return _decisions(ordered, np.arange(len(ordered)), np.ones(len(ordered)))
    if "scope" not in ordered.columns:
        return _resolve_scope(ordered, config)
    scopes = ordered.partition_by("scope", maintain_order=True)
    decided = pl.concat([_resolve_scope(scope, config) for scope in scopes])
    return ordered.select("document_id").join(
        decided, on="document_id", how="left", maintain_order="left"
    )


def _resolve_scope(ordered: pl.DataFrame, config: DeduplicationConfig) -> pl.DataFrame:
    """`resolve_duplicates` for documents in order that may all be compared with each other."""
    has_hash = pl.col("text_hash").fill_null("") != ""
    exact_key = (
        pl.when(has_hash)
        .then("text:" + pl.col("text_hash"))
        .otherwise("document:" + pl.col("document_id"))
    )
    is_signed = pl.col("minhash").bin.size().fill_null(0) == config.n_permutations * 4
    facts = ordered.with_row_index("row").select(
        "row", first=pl.col("row").first().over(exact_key), is_signed=is_signed
    )
    first = facts["first"].to_numpy()
    rows = facts.filter(pl.col("is_signed") & (pl.col("row") == pl.col("first")))["row"].to_numpy()
    leader, similarity = np.arange(len(ordered)), np.ones(len(ordered))
    minhashes = np.frombuffer(b"".join(ordered["minhash"][rows]), dtype="<u4")
    found, similarity[rows] = assign_leaders(minhashes.reshape(-1, config.n_permutations), config)
    leader[rows] = rows[found]
    return _decisions(ordered, leader[first], similarity[first])


def assign_leaders(
    minhashes: npt.NDArray[np.uint32], config: DeduplicationConfig
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The greedy rule of `resolve_duplicates` over distinct texts in order.

    Args:
        minhashes: (n, n_permutations) uint32.
        config: The threshold and the bands.

    Returns:
        (n,) int64, the row of each row's leader, its own for a leader; and (n,) float64, the
        estimated similarity to it, 1.0 for a leader.
    """
    leader, similarity = np.arange(len(minhashes)), np.ones(len(minhashes))
    buckets = find_shared_buckets(minhashes, config.n_bands, config.rows_per_band)
    leaders_in: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        own = [bucket for bucket in buckets[row].tolist() if bucket >= 0]
        candidates = _collect_candidates(leaders_in, own)
        if candidates:
            estimates = (minhashes[candidates] == minhashes[row]).mean(axis=1)
            best = int(estimates.argmax())  # the first, that is the earliest, of equals
            if estimates[best] >= config.threshold:
                leader[row], similarity[row] = candidates[best], estimates[best]
                continue
        for bucket in own:
            if len(leaders_in[bucket]) < MAX_LEADERS_PER_BUCKET:
                leaders_in[bucket].append(row)
    return leader, similarity


def _collect_candidates(leaders_in: dict[int, list[int]], buckets: list[int]) -> list[int]:
    """The leaders in any of these buckets, earliest first."""
    offered = (leaders_in[bucket] for bucket in buckets if bucket in leaders_in)
    return sorted(set(chain.from_iterable(offered)))


def _decisions(
    ordered: pl.DataFrame, leader: npt.NDArray[np.int64], similarity: npt.NDArray[np.float64]
) -> pl.DataFrame:
    """The result table: row i repeats row leader[i], or survives where that is itself."""
    is_duplicate = pl.Series(leader != np.arange(len(ordered)))
    return ordered.select(
        "document_id",
        duplicate_of=pl.when(is_duplicate).then(ordered["document_id"].gather(leader)),
        similarity=pl.when(is_duplicate).then(pl.Series(similarity)),
    ).cast(DECISION_SCHEMA)  # pyright: ignore[reportArgumentType]


def _hash_text(text: str) -> str:
    # A lone surrogate (from a broken file name or JSON escape) has no UTF-8 form of its own.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
