"""Language detection: right on real text of many languages, silent where nobody could know."""

import json
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core.languages import LanguageGuess, detect_language, normalize_language_code
from ragassets_tests.corpora import corpus


def _labelled_xquad(file: str, every: int) -> list[tuple[str, str]]:
    lines = (corpus("retrieval") / "xquad" / file).read_text(encoding="utf-8").splitlines()[::every]
    rows = [json.loads(line) for line in lines]
    return [(row["_id"].split("-")[0], row["text"]) for row in rows]


def _tldr_pages() -> list[tuple[str, str]]:
    folder = corpus("bulk_sample")
    rows = map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    languages = {
        f"bulk_sample/{row['path']}": re.split("[-_]", row["lang"])[0]
        for row in rows
        if row["path"].startswith("tldr/")
    }
    pages: list[tuple[str, str]] = []
    with tarfile.open(folder / "bulk_sample.tar.gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name in languages else None
            if content is not None:
                pages.append((languages[member.name], content.read().decode()))
    return pages


def _count(pairs: list[tuple[str, str]], confidence: float) -> tuple[int, int]:
    """How many guesses are right, and how many are wrong with at least this confidence."""
    guesses = [(label, detect_language(text)) for label, text in pairs]
    n_right = sum(guess.language == label for label, guess in guesses)
    n_wrong = sum(
        guess.language not in {label, None} and guess.confidence >= confidence
        for label, guess in guesses
    )
    return n_right, n_wrong


def test_paragraphs_in_five_languages_are_recognized() -> None:
    """The normal case must be as good as certain: a wrong label may reject or translate."""
    pairs = _labelled_xquad("corpus.jsonl", every=4)
    n_right, n_wrong = _count(pairs, confidence=0.5)
    assert n_right >= 0.995 * len(pairs)
    assert n_wrong == 0


def test_single_questions_are_recognized_and_never_wrongly_with_confidence() -> None:
    """One sentence is the shortest thing that a gate should judge at all."""
    pairs = _labelled_xquad("queries.jsonl", every=6)
    n_right, n_wrong = _count(pairs, confidence=0.7)
    assert n_right >= 0.985 * len(pairs)
    assert n_wrong <= 0.002 * len(pairs)


def test_very_short_technical_pages_in_twelve_languages_are_recognized() -> None:
    """Pages of 500 bytes that are half commands are what a company's notes look like."""
    pages = _tldr_pages()
    assert len(pages) == 260
    n_right, n_wrong = _count(pages, confidence=0.7)
    assert n_right >= 257
    assert n_wrong == 0


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("東京の天気はどうですか", "ja"),
        ("人人生而自由", "zh"),
        ("안녕하세요 여러분", "ko"),
        ("Все люди рождаются свободными и равными в своем достоинстве", "ru"),
        ("يولد جميع الناس أحرارا متساوين في الكرامة", "ar"),
        ("Ελευθερία ή θάνατος", "el"),
    ],
)
def test_other_scripts_decide_even_in_short_texts(text: str, language: str) -> None:
    assert detect_language(text).language == language


@pytest.mark.parametrize(
    "text", ["", "   ", "42", "OK", "1,200.00\t3,400.00", "https://a.b/c", "…"]
)
def test_nothing_to_go_by_is_answered_with_none(text: str) -> None:
    """A table of figures must not be rejected as Welsh."""
    assert detect_language(text) == LanguageGuess(None, 0.0)


def test_code_does_not_decide_the_language() -> None:
    """Commands in a Spanish page are not English prose."""
    code = "```\ngit commit --all --message 'the message of this commit'\n```\n" * 20
    assert detect_language(f"Guarda los cambios en el repositorio local.\n{code}").language == "es"


def test_a_long_text_is_judged_by_more_than_its_start() -> None:
    preface = "This licence allows you to copy the following document. " * 20
    body = "Der Ausschuss hat die Vorlage in seiner letzten Sitzung beraten. " * 400
    assert detect_language(preface + body).language == "de"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("EN", "en"),
        ("pt_BR", "pt"),
        ("zh-Hant-TW", "zh"),
        ("deu", "de"),
        ("nb", "no"),
        ("iw", "he"),
    ],
)
def test_language_codes_in_common_spellings_mean_the_same(code: str, expected: str) -> None:
    assert normalize_language_code(code) == expected


@pytest.mark.parametrize("code", ["", "english", "e", "12"])
def test_what_is_no_language_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="language code"):
        normalize_language_code(code)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_any_text_gets_the_same_answer_twice_and_a_confidence_in_range(text: str) -> None:
    """Determinism keeps re-runs quiet; hostile characters must not raise."""
    guess = detect_language(text)
    assert guess == detect_language(text)
    assert 0.0 <= guess.confidence <= 1.0


def test_importing_the_module_does_not_load_the_model() -> None:
    """Every run and sensor tick imports this module; the model takes a second."""
    source = Path(detect_language.__code__.co_filename).read_text(encoding="utf-8")
    assert not re.search(r"^(from|import) py3langid", source, re.MULTILINE)
