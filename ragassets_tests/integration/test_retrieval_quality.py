"""Search quality of the whole pipeline on judged queries.

Nothing on the way from the source to the index may lose what the model alone finds.

The model alone, on title and text without chunking, gives nDCG@10 0.3998 on the same files.
"""

import json
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest

from ragassets.core.asset_tables import DEAD_LETTERS, UNIQUE_DOCUMENTS
from ragassets.core.evaluation import (
    GoldenQuery,
    RetrievalQuality,
    evaluate_rankings,
    rank_documents,
)
from ragassets.core.searching import SearchMode, SearchRequest
from ragassets_tests.corpora import corpus
from ragassets_tests.scenario import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]

N_DOCUMENTS, N_QUERIES = 1400, 225
WITHOUT_TEXT = {"471.txt", "995.txt"}

HITS_PER_QUERY = 50
"""Chunks fetched to rank ten documents."""


@pytest.fixture(scope="module")
def cranfield(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The corpus, one text file a document, ingested with the default configuration."""
    project = Project(tmp_path_factory.mktemp("cranfield") / "project")
    lines = (corpus("retrieval/cranfield") / "corpus.jsonl").read_text(encoding="utf-8")
    for line in lines.splitlines():
        document = json.loads(line)
        # What the published baselines read: the title, then the text, which repeats it.
        project.write(f"{document['_id']}.txt", f"{document['title']}\n\n{document['text']}\n")
    project.ingest()
    return project


@pytest.fixture(scope="module")
def qualities(cranfield: Project) -> dict[str, RetrievalQuality]:
    """Quality of each search mode over all judged queries."""
    golden = _judged_queries(cranfield)
    workspace = cranfield.workspace
    texts = [query.query for query in golden]
    vectors = workspace.embedder("minilm").embed_queries(texts)
    found: dict[str, RetrievalQuality] = {}
    modes: tuple[SearchMode, ...] = ("dense", "sparse", "hybrid")
    with workspace.vector_store() as store:
        for mode in modes:
            requests = [
                SearchRequest(mode, HITS_PER_QUERY, vector, text)
                for vector, text in zip(vectors, texts, strict=True)
            ]
            hits = store.search_batch("v1", requests)
            rankings = [rank_documents([str(hit.payload["uri"]) for hit in one]) for one in hits]
            found[mode] = evaluate_rankings(golden, rankings)
            print(mode, found[mode])
    return found


def _judged_queries(project: Project) -> list[GoldenQuery]:
    folder: Path = corpus("retrieval/cranfield")
    relevant: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, document_id, grade = line.split("\t")
        relevant[query_id][project.uri(f"{document_id}.txt")] = float(grade)
    queries = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in queries]
    return [GoldenQuery(entry["text"], relevant[entry["_id"]]) for entry in entries]


def test_dense_search_is_as_good_as_the_model_alone(qualities: dict[str, RetrievalQuality]) -> None:
    """Parsing, cleaning, deduplication and chunking may cost half a point of nDCG, not more."""
    assert qualities["dense"].n_queries == N_QUERIES
    assert qualities["dense"].ndcg_at_10 >= 0.395


def test_hybrid_search_is_better_than_dense_search(qualities: dict[str, RetrievalQuality]) -> None:
    """Otherwise the sparse vectors would only cost space."""
    assert qualities["hybrid"].ndcg_at_10 >= qualities["dense"].ndcg_at_10 + 0.02


def test_only_documents_without_text_are_missing(cranfield: Project) -> None:
    """Validation made for the web must not reject terse scientific abstracts."""
    letters = cranfield.rows(DEAD_LETTERS)
    names = {uri.rpartition("/")[2] for uri in letters["uri"]}
    assert names == WITHOUT_TEXT
    assert set(letters["reason"]) == {"empty"}


def test_deduplication_loses_no_relevant_document(cranfield: Project) -> None:
    """A document that is judged relevant and hidden as a copy would be lost to its query."""
    unique = cranfield.rows(UNIQUE_DOCUMENTS.outputs, pl.col("output_hash").is_not_null())
    duplicates = unique.filter(pl.col("duplicate_of").is_not_null())
    assert unique.height == N_DOCUMENTS - len(WITHOUT_TEXT)
    judged = {uri for query in _judged_queries(cranfield) for uri in query.relevant}
    assert not set(duplicates["uri"]) & judged
