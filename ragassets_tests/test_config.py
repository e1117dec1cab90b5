"""The configuration file: what it gives, and one clear error for everything that can be wrong."""

from pathlib import Path

import pytest

from ragassets.config import load_config
from ragassets.errors import ConfigurationError, UnknownNameError

EXAMPLE = """
root: .ragassets
catalog: sqlite:///.ragassets/catalog.db
vector_store: .ragassets/qdrant
sources:
  handbook:
    uri: ./documents
    include: ["**/*"]
    exclude: []
    shards: 4
    schedule: "0 * * * *"
    document_type: policy
    languages: {accept: [en], otherwise: keep}
    redact: [email, phone]
    metadata: {team: hr}
    acl: ["group:hr"]
    max_delete_share: 0.2
chunkings:
  recursive-256: {strategy: recursive, max_tokens: 256, overlap_tokens: 32}
  by-title-512:  {strategy: by_title, max_tokens: 512}
embedding_models:
  minilm: {provider: sentence-transformers, model: all-MiniLM-L6-v2, dim: 384}
  small:  {provider: openai, base_url: "https://api.openai.com/v1", model: text-embedding-3-small,
           dim: 1536, api_key: "${OPENAI_API_KEY:-none}"}
index_versions:
  v1: {chunking: recursive-256, embedding_model: minilm, distance: cosine, sparse: bm25,
       quantization: none, backfill: auto}
aliases:
  documents: {live: v1, golden_queries: golden.jsonl}
"""


def written(folder: Path, text: str) -> Path:
    """A configuration file in a folder."""
    file = folder / "ragassets.yaml"
    file.write_text(text)
    return file


def test_the_example_of_the_design_is_valid(tmp_path: Path) -> None:
    """The contract is tested from outside with exactly these keys."""
    config = load_config(written(tmp_path, EXAMPLE))
    assert config.source_shards() == [
        "handbook-000",
        "handbook-001",
        "handbook-002",
        "handbook-003",
    ]
    assert config.embedding_sets() == {"recursive-256.minilm": ("recursive-256", "minilm")}
    assert config.source("handbook").metadata == {"team": "hr"}
    assert config.alias("documents").live == "v1"


def test_relative_paths_count_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may start anywhere; a document's URI must not depend on it."""
    project = tmp_path / "project"
    project.mkdir()
    file = written(project, EXAMPLE.replace("./documents", "../documents"))
    monkeypatch.chdir("/")
    config = load_config(file)
    assert config.root == str(project / ".ragassets")
    assert config.source("handbook").uri == str(tmp_path / "documents")
    assert config.catalog == f"sqlite:///{project}/.ragassets/catalog.db"
    assert config.alias("documents").golden_queries == str(project / "golden.jsonl")


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    """The first try should need no reading."""
    config = load_config(written(tmp_path, ""))
    assert list(config.sources) == ["documents"]
    assert config.source("documents").uri == str(tmp_path / "documents")
    assert list(config.index_versions) == ["v1"]


def test_the_file_is_found_by_argument_then_variable_then_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is named by hand wins over what happens to be there."""
    for name in ("argument", "variable", "directory"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, f"sources: {{{name}: {{uri: x}}}}")
    monkeypatch.chdir(tmp_path / "directory")
    assert list(load_config().sources) == ["directory"]
    monkeypatch.setenv("RAGASSETS_CONFIG", str(tmp_path / "variable" / "ragassets.yaml"))
    assert list(load_config().sources) == ["variable"]
    assert list(load_config(tmp_path / "argument" / "ragassets.yaml").sources) == ["argument"]


def test_environment_variables_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets come from the environment only."""
    monkeypatch.setenv("DOCUMENTS", "/srv/documents")
    config = load_config(written(tmp_path, "sources: {a: {uri: '${DOCUMENTS}/x'}}"))
    assert config.source("a").uri == "/srv/documents/x"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("sources: {a: {uri: x, sahrds: 3}}", "sources.a.sahrds", ["Did you mean 'shards'"]),
        ("surces: {}", "surces", ["Did you mean 'sources'"]),
        ("sources: {a: {uri: x, shards: 0}}", "sources.a.shards", ["0", "greater than or equal"]),
        ("sources: {a: {uri: 'ftp://server/x'}}", "sources.a", ["s3://", "later release"]),
        ("sources: {a: {uri: 'kafka://broker'}}", "sources.a", ["kafka://host:9092"]),
        ("sources: {a: {uri: x, redact: [ssn]}}", "sources.a.redact.0", ["'ssn'", "email"]),
        (
            "sources: {a: {uri: x, languages: {otherwise: translate}}}",
            "sources.a",
            ["translate", "keep or reject"],
        ),
        ("sources: {a|b: {uri: x}}", "sources.a|b", ["pattern"]),
        ("root: '${NOT_SET_ANYWHERE}'", "root", ["NOT_SET_ANYWHERE", "not set"]),
        (
            "index_versions: {v2: {chunking: nope, embedding_model: minilm}}",
            "configuration",
            ["index_versions.v2.chunking", "'nope'", "recursive-256"],
        ),
        ("aliases: {a: {live: v9}}", "configuration", ["aliases.a.live", "'v9'", "v1"]),
        (
            "chunkings: {c: {max_tokens: 100, overlap_tokens: 60}}",
            "chunkings.c",
            ["overlap_tokens", "less than half"],
        ),
        (
            "embedding_models: {m: {provider: openai, model: x, dim: 3, base_url: 'localhost:80'}}",
            "embedding_models.m.base_url",
            ["'localhost:80'", "http:// or https://"],
        ),
        (
            "embedding_models: {m: {model: x, dim: 3, fallback_base_urls: ['http://h/v1']}}",
            "embedding_models.m",
            ["fallback_base_urls", "only provider: openai", "Remove it"],
        ),
        (
            "embedding_models: {m: {provider: openai, model: x, dim: 3, retry: {attempt: 3}}}",
            "embedding_models.m.retry.attempt",
            ["Did you mean 'attempts'"],
        ),
        (
            "embedding_models: {m: {provider: openai, model: x, dim: 3, concurrency: 0}}",
            "embedding_models.m.concurrency",
            ["0", "greater than or equal to 1"],
        ),
        (
            (
                "embedding_models: {m: {provider: openai, model: x, dim: 3, circuit_breaker:"
                " {open_second: 3}}}"
            ),
            "embedding_models.m.circuit_breaker.open_second",
            ["Did you mean 'open_seconds'"],
        ),
        ("- a list", "configuration file", ["list", "ragassets init"]),
        ("sources: [", "configuration file", ["cannot be read", "line"]),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_way_out(
    tmp_path: Path, text: str, key: str, words: list[str]
) -> None:
    """One line must be enough to mend the file."""
    with pytest.raises(ConfigurationError) as caught:
        load_config(written(tmp_path, text))
    assert caught.value.key == key
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    """Errors end up in logs."""
    text = "embedding_models: {m: {provider: openai, model: x, dim: 3, api_key: [hunter2]}}"
    with pytest.raises(ConfigurationError) as caught:
        load_config(written(tmp_path, text))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        'api_key: "hunter2\\nhunter2"',
        "fallback_api_key: hünter2",
        "base_url: 'https://me:hunter2@host/v1'",
        "fallback_base_urls: ['https://me:hunter2@host/v1']",
        "api_keys: hunter2",
    ],
)
def test_a_secret_of_an_embedding_service_is_not_shown(tmp_path: Path, entry: str) -> None:
    """A key with a line break would end up in the error of the HTTP library."""
    text = f"embedding_models: {{m: {{provider: openai, model: x, dim: 3, {entry}}}}}"
    with pytest.raises(ConfigurationError) as caught:
        load_config(written(tmp_path, text))
    assert "unter2" not in str(caught.value)


def test_an_empty_key_is_none_and_a_final_line_break_is_dropped(tmp_path: Path) -> None:
    """Keys come out of files and of variables that are set to nothing."""
    text = (
        "embedding_models: {m: {provider: openai, model: x, dim: 3, api_key: '',"
        ' fallback_api_key: "abc\\n"}}\n'
        "index_versions: {v1: {chunking: recursive-256, embedding_model: m}}"
    )
    model = load_config(written(tmp_path, text)).embedding_model("m")
    assert model.api_key is None
    assert model.fallback_api_key is not None
    assert model.fallback_api_key.get_secret_value() == "abc"
    assert model.endpoints == ("https://api.openai.com/v1",)


@pytest.mark.parametrize(
    "text", ["catalog_url: postgresql://me:hunter2@host/db", "catalog: 'x\npassword: hunter2: ["]
)
def test_no_piece_of_the_file_that_may_hold_a_secret_is_shown(tmp_path: Path, text: str) -> None:
    """A mistyped key and broken YAML are where passwords end up in tickets."""
    with pytest.raises(ConfigurationError) as caught:
        load_config(written(tmp_path, text))
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A typing mistake in --config must not silently mean the defaults."""
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """The user sees what could have been meant."""
    config = load_config(written(tmp_path, EXAMPLE))
    with pytest.raises(UnknownNameError, match="Known: handbook"):
        config.source("handbok")


def test_a_write_that_could_never_succeed_is_refused(tmp_path: Path) -> None:
    """A server would fail every upload, and say so only then."""
    text = "qdrant: {replication_factor: 2, write_consistency_factor: 3}"
    with pytest.raises(ConfigurationError, match="write_consistency_factor: 3 is more than"):
        load_config(written(tmp_path, text))


def test_the_key_of_a_vector_store_is_never_shown(tmp_path: Path) -> None:
    """Neither by an error nor by printing the configuration."""
    config = load_config(written(tmp_path, "qdrant: {api_key: hunter2, collection_prefix: acme-}"))
    assert config.qdrant.api_key is not None
    assert "hunter2" not in repr(config)
    with pytest.raises(ConfigurationError) as caught:
        load_config(written(tmp_path, "qdrant: {api_key: [hunter2]}"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("sparse: bm25", r"index_versions\.v1\.sparse: 'bm25' is nothing that FAISS can do\. Use "),
        ("quantization: binary", r"index_versions\.v1\.quantization: 'binary' .* Use int8, none"),
    ],
)
def test_what_the_vector_store_cannot_hold_is_refused_before_anything_is_computed(
    tmp_path: Path, version: str, problem: str
) -> None:
    """Parsing and embedding a corpus first would be a dear way to find out."""
    file = tmp_path / "ragassets.yaml"
    entry = f"{{chunking: recursive-256, embedding_model: minilm, {version}}}"
    text = f"vector_store: faiss:store\nindex_versions: {{v1: {entry}}}\n"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=problem):
        load_config(file)


def test_a_local_store_is_relative_to_the_file_and_has_no_sparse_vectors_by_itself(
    tmp_path: Path,
) -> None:
    """The defaults must work with every store."""
    file = tmp_path / "ragassets.yaml"
    file.write_text("vector_store: faiss:store\n", encoding="utf-8")
    config = load_config(file)
    assert config.vector_store == f"faiss:{tmp_path / 'store'}"
    assert config.index_version("v1").sparse is None
    file.write_text("vector_store: store\n", encoding="utf-8")
    config = load_config(file)
    assert config.vector_store == str(tmp_path / "store")
    assert config.index_version("v1").sparse == "bm25"
