"""The sample corpus of `ragassets init` and its golden queries: an invented company's handbook.

Data only; `demo/build_corpus.py` wrote the binary files. Some documents are there to go
wrong: one is corrupt, one empty, one an exact and one a near duplicate.
"""
