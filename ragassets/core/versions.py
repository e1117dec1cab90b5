"""The code version of every stage: raise a stage's when its code gives other output for equal input.

A raised version recomputes that stage everywhere, and then only what depends on changed content. The
Dagster UI shows them as code versions.
"""

STAGE_VERSIONS: dict[str, str] = {
    "raw_documents": "1",
    "parsed_documents": "1",
    "valid_documents": "1",
    "clean_documents": "1",
    "_document_signatures": "1",
    "unique_documents": "1",
    "chunks": "1",
    "embeddings": "1",
    "indexed_chunks": "1",
}
"""Parsers have versions of their own beside the stage's, so that one mended parser is enough."""
