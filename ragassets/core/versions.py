"""The code version of every stage: raise it when the code gives other output for equal input.

A raised version recomputes that stage everywhere, and then only what depends on changed content.
The Dagster UI shows them as code versions. What a stage calls is covered by the stage's own
version, in whichever module it stands.

The pipeline version names all of them together, with the release. Rows and points carry the one
that computed them; nothing is computed because it changed.
"""

from ragassets.core.fingerprints import fingerprint

RELEASE = "0.1.0"
"""The version of the package; `setup.py` says the same."""

STAGE_VERSIONS: dict[str, str] = {
    "source_objects": "1",
    "raw_documents": "1",
    # Parsers have versions of their own beside this one, so that one mended parser is enough.
    "parsed_documents": "1",
    # Covers core/validation, languages, text_quality and unsafe_content.
    "valid_documents": "1",
    # Covers core/cleaning, text_repair, page_furniture and redaction.
    "clean_documents": "1",
    # Covers core/minhash and the signing half of core/deduplication.
    "_document_signatures": "1",
    "unique_documents": "1",
    # Covers core/chunking and every module whose name starts with chunk_, sentences and
    # section_headings. Raise it whenever any text could be split differently.
    "chunks": "2",
    "embeddings": "1",
    "indexed_chunks": "2",
    "index_versions": "1",
    "live_index": "1",
    "dead_letters": "1",
    "document_catalog": "1",
    "audit": "1",
    "forgotten_documents": "1",
}

PIPELINE_VERSION = f"{RELEASE}+{fingerprint(STAGE_VERSIONS)[:8]}"
"""Release and code versions, as `0.1.0+5f3a9c1e`."""


def model_version(model: str, revision: str | None, model_fingerprint: str) -> str:
    """Which weights made a vector, as `all-MiniLM-L6-v2@4f2c9d01a6b7`.

    Args:
        model: A hub id, the name of a service's model, or a path, of which the last part is taken.
        revision: As configured; it names the weights best.
        model_fingerprint: Of the embedder: covers the files, or what a service is asked for.
    """
    name = model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model
    return f"{name}@{revision or model_fingerprint[:12]}"
