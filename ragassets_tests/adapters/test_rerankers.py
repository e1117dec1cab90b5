"""Cross-encoders: the real bundled one, and small ones made here for the library's loading path."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ragassets.adapters.embedders.model_files import find_model
from ragassets.adapters.rerankers import model_files
from ragassets.adapters.rerankers.model_files import find_reranker
from ragassets.adapters.rerankers.registry import open_reranker
from ragassets.core.settings import RerankerConfig
from ragassets.errors import MissingModelError

BUNDLED = RerankerConfig(provider="onnx", model="ms-marco-MiniLM-L-12-v2")

QUERY = "how many people live in berlin"
ANSWER = "Berlin has a population of 3,520,031 registered inhabitants."
NEAR = "Berlin is well known for its museums."
CERTAIN = 5.0
"""The model's answers lie between about -11 and 11."""

FAR = "Potatoes are boiled in salted water."


class TestOnnx:
    def test_the_bundled_model_puts_the_answer_first(self) -> None:
        """Words and topic are the same in the second text; only reading tells them apart."""
        scores = open_reranker("precise", BUNDLED).score(QUERY, [FAR, NEAR, ANSWER])
        assert scores.dtype == np.float32
        assert np.argsort(-scores).tolist() == [2, 1, 0]
        assert scores[2] > CERTAIN
        assert scores[1] < 0

    def test_a_score_depends_on_its_own_pair_alone(self) -> None:
        """8-bit models scale by the batch: neighbours must not decide who ranks first."""
        reranker = open_reranker("precise", BUNDLED)
        together = reranker.score(QUERY, [ANSWER, NEAR * 20, FAR])
        alone = [reranker.score(QUERY, [text])[0] for text in (ANSWER, NEAR * 20, FAR)]
        assert together.tolist() == [float(score) for score in alone]

    def test_a_text_is_read_up_to_the_limit(self) -> None:
        """The query stays whole: what is cut is the longer one of the pair."""
        limited = open_reranker("precise", BUNDLED.model_copy(update={"max_tokens": 32}))
        short, long = limited.score(QUERY, [f"{ANSWER} {FAR * 3}", f"{ANSWER} {FAR * 50}"])
        assert short == long
        assert short > CERTAIN

    def test_no_texts_give_no_scores(self) -> None:
        assert open_reranker("precise", BUNDLED).score(QUERY, []).shape == (0,)

    def test_without_the_extra_the_key_and_the_way_out_are_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The weights are 72 MB that not everybody wants."""
        monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda _name: None)
        with pytest.raises(MissingModelError, match=r"rerankers\.precise\.model: 'ms-marco.*extra"):
            open_reranker("precise", BUNDLED)

    def test_other_weights_under_the_same_name_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A package that changed its file would change rankings without a word."""
        folder = tmp_path / "models" / "data" / "reranker_en"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"another")
        found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda _name: found)
        with pytest.raises(MissingModelError, match="is another one"):
            open_reranker("precise", BUNDLED)

    def test_files_that_are_no_model_are_named_with_the_key(self, tmp_path: Path) -> None:
        """Half a download should not end in a stack trace of a C++ library."""
        config = RerankerConfig(provider="onnx", model=str(tmp_path))
        with pytest.raises(MissingModelError, match=r"rerankers\.mine\.model.* no model\.onnx"):
            open_reranker("mine", config).score(QUERY, [ANSWER])
        bundled = find_reranker("precise", BUNDLED)
        shutil.copy(bundled / "tokenizer.json", tmp_path)
        (tmp_path / "model.onnx").write_bytes((bundled / "model.onnx").read_bytes()[:1000])
        with pytest.raises(MissingModelError, match=r"rerankers\.mine\.model.*cannot be loaded"):
            open_reranker("mine", config).score(QUERY, [ANSWER])

    def test_the_fingerprint_changes_with_what_decides_the_scores(self, tmp_path: Path) -> None:
        """Whoever keeps measurements has to know which model they are of."""
        directory = tmp_path / "model"
        shutil.copytree(find_reranker("precise", BUNDLED), directory)
        config = RerankerConfig(provider="onnx", model=str(directory))
        limited = config.model_copy(update={"max_tokens": 64})
        first = open_reranker("a", config).fingerprint
        assert first == open_reranker("b", BUNDLED).fingerprint
        assert first != open_reranker("a", limited).fingerprint
        with (directory / "model.onnx").open("ab") as weights:
            weights.write(b"\0")
        assert first != open_reranker("a", config).fingerprint


MakeModel = Callable[[int], str]


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Saves a small cross-encoder with random weights and a real vocabulary."""

    def make(num_labels: int) -> str:
        import torch
        from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

        folder = tmp_path_factory.mktemp("cross-encoder")
        tokenizer = AutoTokenizer.from_pretrained(str(find_model("all-MiniLM-L6-v2", None)))
        torch.manual_seed(3)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=num_labels,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.mark.slow
class TestTorch:
    TEXTS = (FAR, ANSWER * 30, NEAR, "", "word " * 900, *(f"{NEAR} {i}" for i in range(60)))

    def test_scores_are_those_of_the_library_in_the_order_of_the_texts(
        self, make_model: MakeModel
    ) -> None:
        """Batches are cut by tokens, longest first; that must not show."""
        from sentence_transformers import CrossEncoder

        model = make_model(1)
        found = open_reranker("mine", RerankerConfig(model=model)).score(QUERY, self.TEXTS)
        plain = CrossEncoder(model, local_files_only=True)
        expected = plain.predict([(QUERY, text) for text in self.TEXTS], show_progress_bar=False)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5
        assert len(set(found.tolist())) > len(self.TEXTS) // 2

    def test_the_same_pairs_give_the_same_bytes(self, make_model: MakeModel) -> None:
        """A page of hits must not change from one call to the next."""
        reranker = open_reranker("mine", RerankerConfig(model=make_model(1)))
        first, second = (reranker.score(QUERY, self.TEXTS) for _ in range(2))
        assert first.tobytes() == second.tobytes()
        assert reranker.score(QUERY, []).shape == (0,)

    def test_a_classifier_is_no_reranker(self, make_model: MakeModel) -> None:
        """Three numbers for a pair (entailment, say) have no order."""
        reranker = open_reranker("mine", RerankerConfig(model=make_model(3)))
        with pytest.raises(MissingModelError, match=r"rerankers\.mine\.model.* 3 numbers"):
            reranker.score(QUERY, [ANSWER])

    def test_a_directory_that_is_not_there_is_named_with_the_key(self, tmp_path: Path) -> None:
        config = RerankerConfig(model=str(tmp_path / "nowhere"))
        with pytest.raises(MissingModelError, match=r"rerankers\.mine\.model: .*nowhere"):
            open_reranker("mine", config)

    def test_files_that_are_no_model_are_named_with_the_key(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        reranker = open_reranker("mine", RerankerConfig(model=str(tmp_path)))
        with pytest.raises(MissingModelError, match=r"rerankers\.mine\.model"):
            reranker.score(QUERY, [ANSWER])
