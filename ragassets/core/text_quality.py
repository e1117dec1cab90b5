"""Measurements of a text that need no language and no model.

Only numbers; which of them refuse a document is decided in `ragassets.core.validation`, whose
stage's version covers this module.
"""

import re

# Scripts without spaces are counted by character, and long runs of letters are cut up: a page that
# holds one letter ten thousand times then shows its repetition.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]{{1,20}}")
_LETTER = re.compile(r"[^\W\d_]")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_GARBAGE = re.compile(
    # Controls but for white space and PDFium's hyphen marks (U+0002, U+FFFE; cleaning joins the
    # word), halves of surrogate pairs, private use, noncharacters, U+FFFD.
    "[\x00\x01\x03-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufffd"
    "\uffff\U000f0000-\U0010ffff]"
    # What PDF readers write for glyphs without a Unicode mapping.
    r"|\(cid:\d{1,5}\)"
)

SHINGLE_WORDS = 5
"""Sequences of five words are rare by chance; shorter ones repeat in any prose."""

MAX_REPETITION_TOKENS = 20_000
"""Repetition is measured on four windows of a longer text: cost has a ceiling (about 15 ms)."""

MIN_REPETITION_TOKENS = 100
"""Shorter texts are not measured: an address list or a poem repeats itself with reason."""

_N_WINDOWS = 4


def measure_quality(text: str) -> dict[str, float]:
    """Counts and shares of a text.

    Returns:
        n_chars; n_words (an ideograph counts as a word); share_alpha, letters among characters
        other than white space; share_garbage, characters that are no text, likewise;
        share_repetition, five-word sequences that have occurred before, 0 for texts under 100
        words. Shares are in 0..1, and 0 for text without characters.
    """
    n_dense = count_dense_chars(text)
    tokens = _TOKEN.findall(text)
    n_garbage = sum(map(len, _GARBAGE.findall(text)))
    return {
        "n_chars": float(len(text)),
        "n_words": float(len(tokens)),
        "share_alpha": _share(len(_LETTER.findall(text)), n_dense),
        "share_garbage": _share(n_garbage, n_dense),
        "share_repetition": _share_repetition(tokens),
    }


def has_words(text: str) -> bool:
    """Whether the text has a letter or a digit of any script."""
    return _LETTER_OR_DIGIT.search(text) is not None


def count_dense_chars(text: str) -> int:
    """Number of characters that are not white space."""
    return sum(map(len, text.split()))


def _share(part: int, whole: int) -> float:
    return round(min(1.0, part / whole), 4) if whole else 0.0


def _share_repetition(tokens: list[str]) -> float:
    """Share of five-word sequences that occurred before.

    Source: the duplicate n-gram rule of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), by
    occurrences instead of characters.
    """
    if len(tokens) < MIN_REPETITION_TOKENS:
        return 0.0
    if len(tokens) > MAX_REPETITION_TOKENS:
        width = MAX_REPETITION_TOKENS // _N_WINDOWS
        step = (len(tokens) - width) // (_N_WINDOWS - 1)
        tokens = [word for i in range(_N_WINDOWS) for word in tokens[i * step : i * step + width]]
    shingles = list(zip(*(tokens[start:] for start in range(SHINGLE_WORDS)), strict=False))
    return _share(len(shingles) - len(set(shingles)), len(shingles))
