"""What `doctor` says of embedding services: one tiny request to each endpoint."""

from pathlib import Path

from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.queries.doctor import Check, _check_models
from ragassets_tests.embedding_server import EmbeddingServer, failing


def checks(folder: Path, **settings: object) -> list[Check]:
    """The checks of a project whose only model is a service."""
    model = {"provider": "openai", "model": "tiny", "dim": 8, "api_key": "sk-secret", **settings}
    file = folder / "ragassets.yaml"
    file.write_text(
        f"embedding_models: {{remote: {model}}}\n"
        "index_versions: {v1: {chunking: recursive-256, embedding_model: remote}}\n",
        encoding="utf-8",
    )
    return list(_check_models(Workspace(load_config(file))))


def test_a_sound_endpoint_passes_and_a_dead_fallback_is_a_warning(tmp_path: Path) -> None:
    """It must be found before it is needed."""
    with EmbeddingServer() as sound, EmbeddingServer(rule=lambda _r: failing(503)) as dead:
        found = checks(tmp_path, base_url=sound.url, fallback_base_urls=[dead.url])
    assert [(check.name, check.outcome) for check in found] == [
        (f"model remote at {sound.url}", "ok"),
        (f"model remote at {dead.url}", "warn"),
    ]
    assert found[0].value == "answers; sound vectors of 8 dimensions"
    assert found[1].value == "HTTP 503 in 1 try"
    assert [request["input"] for request in sound.requests] == [["A plain sentence."]]


def test_a_wrong_key_or_dimension_fails_and_says_what_to_mend(tmp_path: Path) -> None:
    """Before the first chunk is paid for; the key itself is not shown."""
    with EmbeddingServer(rule=lambda _r: failing(401)) as closed:
        (refused,) = checks(tmp_path, base_url=closed.url)
    with EmbeddingServer(dim=16) as wide:
        (wrong,) = checks(tmp_path, base_url=wide.url)
    assert refused.outcome == wrong.outcome == "fail"
    assert "api_key" in refused.value
    assert "sk-secret" not in str(refused)
    assert "Set dim: 16" in wrong.value
