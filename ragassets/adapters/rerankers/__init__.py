"""Models that read query and text together; see `core/reranking.py`."""
