"""The code version of every stage: raise it when the code gives other output for equal input.

A raised version recomputes that stage everywhere, and then only what depends on changed content.
The Dagster UI shows them as code versions. What a stage calls is covered by the stage's own
version, in whichever module it stands.
"""

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
