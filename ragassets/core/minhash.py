"""Words, shingles, MinHash sketches (datasketch) and the buckets in which like sketches meet.

The arithmetic under `deduplication`, which holds the rules. Nothing here knows a document. Stored
signatures depend on every line: a change of a value needs a new code version of that stage.
"""

import re
import zlib
from functools import lru_cache
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

SCHEME = "affine32"
"""Named, because stored sketches of two schemes cannot be compared."""

SHINGLES_PER_BATCH = 512
"""Keeps the intermediate (512, n_permutations) array inside a CPU's cache (measured: 4 times as
fast as one array for the whole document, and no 100 MB peak for a book)."""

# Makes a shingle's hash depend on the order of its words. Odd, so that no bit is lost: 2^64 divided
# by the golden ratio, the usual constant of multiplicative hashing (Knuth, TAOCP 3, section 6.4).
_ORDER_FACTOR = np.uint64(0x9E3779B97F4A7C15)

# Scripts written without spaces: there `\w+` is a whole clause, and one edited character would
# change five clauses. Each of their characters counts as one word instead.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(r"\w+")
_WORD_OR_CHARACTER = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def split_words(text: str) -> list[str]:
    r"""The words of the lower-cased text: runs of `\w`, and each Chinese or Japanese character."""
    lowered = text.lower()
    pattern = _WORD_OR_CHARACTER if _UNSPACED_CHARACTER.search(lowered) else _WORD
    return pattern.findall(lowered)


def hash_shingles(words: list[str], shingle_words: int) -> npt.NDArray[np.uint64]:
    """Distinct 64-bit hashes of the shingles; fewer words than one shingle make one.

    Each distinct word is hashed once and the shingles are made from the word hashes, which is ten
    times as fast as hashing every shingle's characters. CRC-32 is stable everywhere; two words of
    one hash (one pair in a vocabulary of 100,000) merely count as the same word.
    """
    if not words:
        return np.empty(0, dtype=np.uint64)
    codes = {word: zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in set(words)}
    word_hashes = _mix64(np.array([codes[word] for word in words], dtype=np.uint64))
    width = min(shingle_words, len(words))
    n_shingles = len(words) - width + 1
    hashes = np.zeros(n_shingles, dtype=np.uint64)
    for offset in range(width):
        hashes = hashes * _ORDER_FACTOR + word_hashes[offset : offset + n_shingles]
    return np.unique(_mix64(hashes))


def compute_minhash(
    shingles: npt.NDArray[np.uint64], n_permutations: int, seed: int
) -> npt.NDArray[np.uint32]:
    """(n_permutations,) little-endian uint32: for each permutation, its least shingle hash.

    Made by datasketch's `MinHash` from the upper halves of the hashes.

    Source: https://github.com/ekzhu/datasketch/issues/212 (why the permutations are affine maps
    modulo 2^32 with an odd factor).
    """
    sketch = _new_sketch(n_permutations, seed)
    inputs = (shingles >> np.uint64(32)).tolist()
    for start in range(0, len(inputs), SHINGLES_PER_BATCH):
        sketch.update_batch(inputs[start : start + SHINGLES_PER_BATCH])
    return sketch.hashvalues.astype("<u4")


def find_shared_buckets(
    minhashes: npt.NDArray[np.uint32], n_bands: int, rows_per_band: int
) -> npt.NDArray[np.int64]:
    """The LSH bucket of each sketch in each band.

    Args:
        minhashes: (n, n_permutations) uint32.
        n_bands: Bands, of which each makes its own buckets.
        rows_per_band: Consecutive permutations in a band; the first n_bands * rows_per_band count.

    Returns:
        (n, n_bands) int64. Sketches with the same number are equal in that band (up to a 64-bit
        hash collision, which costs one needless comparison); -1 where no other sketch is. A number
        belongs to one band only.
    """
    n = len(minhashes)
    buckets = np.full((n, n_bands), -1, dtype=np.int64)
    for band in range(n_bands):
        key = np.zeros(n, dtype=np.uint64)
        for column in range(band * rows_per_band, (band + 1) * rows_per_band):
            key = _mix64(key ^ minhashes[:, column])
        _, bucket, n_members = np.unique(key, return_inverse=True, return_counts=True)
        is_shared = n_members[bucket] > 1
        buckets[is_shared, band] = band * n + bucket[is_shared]
    return buckets


class _Sketch(Protocol):
    """The part of datasketch's `MinHash` that is used: its own signatures are only partly typed."""

    hashvalues: npt.NDArray[np.uint64]

    def update_batch(self, b: list[int]) -> None: ...

    def copy(self) -> "_Sketch": ...


@lru_cache(maxsize=4)
def _empty_sketch(n_permutations: int, seed: int) -> _Sketch:
    """The sketch of nothing: drawing its permutations costs as much as sketching a page."""
    from datasketch import MinHash

    return cast("_Sketch", MinHash(n_permutations, seed, scheme=SCHEME, hashfunc=int))


def _new_sketch(n_permutations: int, seed: int) -> _Sketch:
    return _empty_sketch(n_permutations, seed).copy()


def _mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """MurmurHash3's 64-bit finalizer: a bijection that spreads every bit over all bits."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
