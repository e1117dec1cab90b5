"""Which language a text is written in: deterministic, offline, and silent where evidence is thin.

The statistical model is py3langid's, loaded on first use (about one second, once per process).
Around it stand three corrections that need no model: code, links and numbers are taken out first,
members of a macrolanguage are folded into it, and the scripts that are really on the page overrule
a language that cannot be written in them.

What to do with the answer (keep, reject, translate) is decided in `ragassets.core.validation`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol, cast


class LanguageGuess(NamedTuple):
    """A language and how sure the detector is of it.

    `language` is an ISO 639 code in its shortest form (`en`, `pt`, `zh`), or None when there is too
    little text, no linguistic content, or no language clearly ahead; `confidence` is in 0..1.
    """

    language: str | None
    confidence: float


class _Identifier(Protocol):
    """The part of py3langid's identifier that is used here."""

    def rank(self, text: str) -> list[tuple[str, float]]: ...


MAX_SAMPLE_CHARS = 3_000
"""Text shown to the model. No page of the bulk sample (1,276 pages) that has prose is labelled
wrongly with it, and a long page costs a sixth of the time."""

N_SAMPLES = 3
"""A long text is read at its start, middle and end: a foreign preface must not decide alone."""

MIN_LETTERS = 12
"""Below this many letters (an ideograph or syllable counts as three) a Latin text has no language
worth naming: "OK", "FAQ" and "Total" are words of many languages."""

MIN_CERTAIN_LETTERS = 40
"""Confidence shrinks in proportion below it: the model is certain that "Curriculum vitae" is Latin,
which is true of the two words and wrong of the document."""

MIN_CONFIDENCE = 0.2
"""Guesses below it are answered with None. Gates that reject have a higher limit of their own."""

# Source: ISO 639-3 macrolanguages (https://iso639-3.sil.org/code_tables/macrolanguage_mappings).
# Who accepts `zh` means these too, and on short Chinese text the model often answers `wuu`.
MACROLANGUAGES = {
    "ary": "ar",
    "arz": "ar",
    "cmn": "zh",
    "gom": "kok",
    "gug": "gn",
    "nb": "no",
    "nn": "no",
    "sdh": "ku",
    "uzs": "uz",
    "wuu": "zh",
    "yue": "zh",
}

# Codes that ISO 639 replaced, and three-letter forms that people write in configuration files.
_OTHER_CODES = {
    "ara": "ar",
    "deu": "de",
    "eng": "en",
    "fra": "fr",
    "in": "id",
    "ita": "it",
    "iw": "he",
    "jpn": "ja",
    "kor": "ko",
    "por": "pt",
    "rus": "ru",
    "spa": "es",
    "zho": "zh",
}

_NO_LANGUAGE = "zxx"
"""ISO 639 for "no linguistic content"; the model knows it as a label of its own."""

_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")

# What is no language: fenced and inline code, tags, placeholders, links, addresses, digits.
_NOT_LANGUAGE = re.compile(
    r"```.*?```|`[^`\n]*`|\{\{[^}\n]*\}\}|</?[a-zA-Z!][^<>]{0,200}>|\b\w+://\S+|\S+@\S+|\d+",
    re.DOTALL,
)
_WHITE_SPACE = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")

# Source: Unicode blocks (https://www.unicode.org/Public/UNIDATA/Blocks.txt).
_SCRIPTS: dict[str, re.Pattern[str]] = {
    "han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"),
    "kana": re.compile("[\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d]"),
    "hangul": re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]"),
    "cyrillic": re.compile("[\u0400-\u052f]"),
    "arabic": re.compile("[\u0620-\u064a\u066e-\u06d3\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]"),
    "greek": re.compile("[\u0370-\u03ff\u1f00-\u1fff]"),
    "hebrew": re.compile("[\u05d0-\u05ea]"),
    "thai": re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "bengali": re.compile("[\u0980-\u09ff]"),
}

_SCRIPTS_OF_LANGUAGE: dict[str, tuple[str, ...]] = {
    "ar": ("arabic",),
    "be": ("cyrillic",),
    "bg": ("cyrillic",),
    "bn": ("bengali",),
    "el": ("greek",),
    "fa": ("arabic",),
    "he": ("hebrew",),
    "hi": ("devanagari",),
    "ja": ("kana", "han"),
    "ko": ("hangul",),
    "mk": ("cyrillic",),
    "mr": ("devanagari",),
    "ne": ("devanagari",),
    "ru": ("cyrillic",),
    "th": ("thai",),
    "uk": ("cyrillic",),
    "ur": ("arabic",),
    "zh": ("han",),
}
"""Languages written in nothing else; those of several scripts are left to the model."""

_MIN_SCRIPT_SHARE = 0.05
"""Share of letters from which a script counts as present: technical pages in Chinese are mostly
Latin letters (names, commands), and a lone foreign name is not a language."""

_DENSE_SCRIPTS = ("han", "kana", "hangul")
_DENSE_WEIGHT = 3
"""One ideograph or syllable says about as much as three letters of an alphabet."""

MIN_CHINESE_LETTERS = 60
"""Ideographs without kana that make Chinese certain: a list of Japanese names has none either."""

_DOMINANT_SCRIPT_SHARE = 0.6
_SINGLE_LANGUAGE_SCRIPTS = {"hangul": "ko", "thai": "th", "greek": "el", "hebrew": "he"}


def detect_language(text: str) -> LanguageGuess:
    """The language of a text, or None where there is too little to go by.

    Deterministic. Long texts are sampled, so the cost has a ceiling of a few milliseconds.

    Source: py3langid (BSD), after Lui and Baldwin, "langid.py", ACL 2012.
    """
    sample = _language_sample(text)
    n_letters = len(_LETTER.findall(sample))
    shares, weight = _script_shares(sample, n_letters)
    from_script = _language_of_script(shares, n_letters)
    if from_script is not None and weight >= _DENSE_WEIGHT * 2:
        return from_script
    if weight < MIN_LETTERS:
        return LanguageGuess(None, 0.0)
    guess = _best_guess(_identifier().rank(sample), shares)
    if guess.language is None or guess.confidence < MIN_CONFIDENCE:
        return LanguageGuess(None, guess.confidence)
    return guess._replace(confidence=guess.confidence * min(1.0, weight / MIN_CERTAIN_LETTERS))


def normalize_language_code(code: str) -> str:
    """`EN`, `pt_BR`, `zh-CN` and `eng` as the code that `detect_language` answers with.

    Raises:
        ValueError: when it does not look like a language code.
    """
    primary = re.split(r"[-_]", code.strip().lower())[0]
    if not _LANGUAGE_CODE.fullmatch(primary):
        message = f"{code!r} is no ISO 639 language code such as 'en' or 'pt-BR'"
        raise ValueError(message)
    primary = _OTHER_CODES.get(primary, primary)
    return MACROLANGUAGES.get(primary, primary)


def _language_sample(text: str) -> str:
    """Prose of at most MAX_SAMPLE_CHARS characters, from the start, middle and end of the text."""
    # Twice the sample is read first, so that a page full of code still leaves prose to look at.
    raw = _windows(text, 2 * MAX_SAMPLE_CHARS)
    return _windows(_WHITE_SPACE.sub(" ", _NOT_LANGUAGE.sub(" ", raw)).strip(), MAX_SAMPLE_CHARS)


def _windows(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    width = max_chars // N_SAMPLES
    step = (len(text) - width) // (N_SAMPLES - 1)
    return " ".join(text[i * step : i * step + width] for i in range(N_SAMPLES))


def _script_shares(sample: str, n_letters: int) -> tuple[dict[str, float], int]:
    """Share of the letters per non-Latin script, and the weight of all letters as evidence."""
    if sample.isascii() or n_letters == 0:
        return {}, n_letters
    counts = {name: len(pattern.findall(sample)) for name, pattern in _SCRIPTS.items()}
    dense = sum(counts[name] for name in _DENSE_SCRIPTS)
    # Vowel signs of Indic scripts are no letters to Python, so the total may lag behind a count.
    total = max(n_letters, sum(counts.values()))
    shares = {name: count / total for name, count in counts.items() if count}
    return shares, n_letters + (_DENSE_WEIGHT - 1) * dense


def _language_of_script(shares: dict[str, float], n_letters: int) -> LanguageGuess | None:
    """The language, where most letters belong to a script that leaves no choice."""
    for script, language in _SINGLE_LANGUAGE_SCRIPTS.items():
        if shares.get(script, 0.0) >= _DOMINANT_SCRIPT_SHARE:
            return LanguageGuess(language, shares[script])
    kana, han = shares.get("kana", 0.0), shares.get("han", 0.0)
    if kana + han < _DOMINANT_SCRIPT_SHARE:
        return None
    # Japanese prose is about half kana; Chinese has none outside quotations.
    if kana >= _MIN_SCRIPT_SHARE:
        return LanguageGuess("ja", kana + han)
    return LanguageGuess("zh", min(1.0, han * n_letters / MIN_CHINESE_LETTERS))


def _best_guess(ranking: list[tuple[str, float]], shares: dict[str, float]) -> LanguageGuess:
    """The likeliest language after folding macrolanguages and dropping impossible scripts."""
    scores: dict[str, float] = {}
    for label, score in ranking:
        language = MACROLANGUAGES.get(label, label)
        scores[language] = scores.get(language, 0.0) + score
    possible = {name: score for name, score in scores.items() if _is_possible(name, shares)}
    total = sum(possible.values())
    if not total:
        return LanguageGuess(None, 0.0)
    language = max(possible, key=lambda name: (possible[name], name))
    confidence = min(1.0, possible[language] / total)
    return LanguageGuess(None if language == _NO_LANGUAGE else language, confidence)


def _is_possible(language: str, shares: dict[str, float]) -> bool:
    """Whether the scripts on the page allow the language."""
    scripts = _SCRIPTS_OF_LANGUAGE.get(language)
    if scripts is None:
        return True
    if language == "zh" and shares.get("kana", 0.0) >= _MIN_SCRIPT_SHARE:
        return False
    required = ("kana",) if language == "ja" else scripts
    return any(shares.get(script, 0.0) >= _MIN_SCRIPT_SHARE for script in required)


@lru_cache(maxsize=1)
def _identifier() -> _Identifier:
    """The model, loaded once per process, on first use."""
    from py3langid import langid

    # py3langid carries no types: the one call that is used is typed here.
    load = cast("Callable[..., _Identifier]", langid.LanguageIdentifier.from_model_file)  # pyright: ignore[reportUnknownMemberType]
    return load(langid.MODEL_FILE, norm_probs=True)
