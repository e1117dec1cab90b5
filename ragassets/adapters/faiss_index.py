"""FAISS indexes over rows of `point_rows.py`: always derived, never the truth.

Small collections are compared with every vector. Large ones get a graph (HNSW), which is kept in a
file and made of the rows of one moment; rows that came later are searched beside it, rows that went
are left out of its answers. Both are found by comparing row numbers.

Source: Malkov and Yashunin, https://arxiv.org/abs/1603.09320; https://github.com/facebookresearch/faiss/wiki
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragassets.adapters.durable_files import sync_directory
from ragassets.adapters.extras import import_untyped
from ragassets.adapters.point_encoding import OVERSAMPLING
from ragassets.adapters.point_rows import PointRows
from ragassets.core.collection_config import CollectionConfig, Distance

EXACT_SEARCH_POINTS = 100_000
"""Up to here every vector is compared: nothing is missed, and there is no graph to build."""

EXACT_FILTER_POINTS = 20_000
"""Up to so many points that satisfy a filter are compared one by one: a graph that may use few of
its nodes finds few of the nearest."""

MAX_BEHIND_SHARE = 0.1
"""A graph is made anew when so many of its rows went, or so many came beside it."""

GRAPH_LINKS, BUILD_CANDIDATES, SEARCH_CANDIDATES = 32, 200, 128
"""M, efConstruction and efSearch: the upper end of what the authors recommend."""

Scored = list[tuple[int, float]]


class Graph(NamedTuple):
    """An approximate index and the sorted row numbers that it was made of."""

    index: Any
    rows: NDArray[np.int64]


class FaissIndex:
    """Searches the rows of one moment; make a new one when rows were written or deleted."""

    def __init__(self, points: PointRows, config: CollectionConfig, graph: Graph | None) -> None:
        """Load the vectors that the graph lacks, all of them where there is none."""
        self._points, self._config, self._graph = points, config, graph
        self._rows = points.numbers()
        graph_rows = graph.rows if graph is not None else np.empty(0, np.int64)
        self._outside = np.setdiff1d(self._rows, graph_rows, assume_unique=True)
        self._flat = flat_index(points, self._outside, config)
        self._all: Any = self._flat if graph is None else None

    def nearest(
        self,
        vector: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.int64] | None,
        exact: bool,
    ) -> list[int]:
        """Return row numbers among which the nearest are, in any order.

        Args:
            vector: (dim,) float32 of the query.
            limit: how many are wanted; a few more may come.
            allowed: sorted row numbers that may be found; None for all.
            exact: compare with every vector.
        """
        query = unit_vectors(vector.reshape(1, -1), self._config.distance)
        if allowed is not None and len(allowed) <= EXACT_FILTER_POINTS:
            return _search(flat_index(self._points, allowed, self._config), query, limit, None)
        selection = None if allowed is None else import_untyped("faiss").IDSelectorBatch(allowed)
        if self._graph is None or exact:
            return _search(self._every_vector(), query, limit, _parameters(selection))
        beside = _search(self._flat, query, limit, _parameters(selection))
        return [*beside, *self._from_graph(self._graph, query, limit, allowed)]

    def _from_graph(
        self,
        graph: Graph,
        query: NDArray[np.float32],
        limit: int,
        allowed: NDArray[np.int64] | None,
    ) -> list[int]:
        faiss = import_untyped("faiss")
        wanted = round(limit * OVERSAMPLING.get(self._config.quantization, 1.0))
        living = self._rows if allowed is None else allowed
        gone = np.setdiff1d(graph.rows, living, assume_unique=True)
        refused = faiss.IDSelectorBatch(gone)
        parameters = faiss.SearchParametersHNSW(
            efSearch=max(SEARCH_CANDIDATES, 2 * wanted),
            sel=faiss.IDSelectorNot(refused) if len(gone) else None,
        )
        return _search(graph.index, query, wanted, parameters)

    def _every_vector(self) -> Any:
        if self._all is None:
            self._all = flat_index(self._points, self._rows, self._config)
        return self._all


def is_behind(graph: Graph, rows: NDArray[np.int64]) -> bool:
    """Whether a graph was made of rows too different from these."""
    n_changed = len(np.setxor1d(graph.rows, rows, assume_unique=True))
    return n_changed > MAX_BEHIND_SHARE * len(rows)


def build_graph(points: PointRows, config: CollectionConfig) -> Graph:
    """Make a graph of all rows; minutes for millions, without the interpreter's lock."""
    faiss = import_untyped("faiss")
    rows = points.numbers()
    metric = _metric(config.distance)
    if config.quantization == "int8":
        kind = faiss.ScalarQuantizer.QT_8bit
        graph = faiss.IndexHNSWSQ(config.dim, kind, GRAPH_LINKS, metric)
    else:
        graph = faiss.IndexHNSWFlat(config.dim, GRAPH_LINKS, metric)
    graph.hnsw.efConstruction = BUILD_CANDIDATES
    vectors = unit_vectors(points.vectors(rows), config.distance)
    graph.train(vectors)
    return Graph(_numbered(graph, vectors, rows), rows)


def save_graph(graph: Graph, path: Path) -> None:
    """Put the graph into its file; a crash leaves the old file or the new one."""
    for left_over in path.parent.glob(f".{path.name}.*"):
        left_over.unlink()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    import_untyped("faiss").write_index(graph.index, str(draft))
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)


def load_graph(path: Path, points: PointRows) -> Graph | None:
    """Read the graph's file; None where there is none of these points.

    A file that is damaged, or knows rows that were never given, is of no use: it belongs to a
    database that was put back from a copy. Searches are exact then, until a graph is made again.
    """
    if not path.exists():
        return None
    faiss = import_untyped("faiss")
    try:
        index = faiss.read_index(str(path))
    except RuntimeError:  # faiss raises nothing narrower for a file that it cannot read
        return None
    rows = np.sort(faiss.vector_to_array(index.id_map))
    return Graph(index, rows) if len(rows) and rows[-1] <= points.last_number() else None


def flat_index(points: PointRows, rows: NDArray[np.int64], config: CollectionConfig) -> Any:
    """Return an index that compares with every vector of these sorted rows."""
    index = import_untyped("faiss").IndexFlat(config.dim, _metric(config.distance))
    return _numbered(index, unit_vectors(points.vectors(rows), config.distance), rows)


def unit_vectors(vectors: NDArray[np.float32], distance: Distance) -> NDArray[np.float32]:
    """Return the vectors as they are compared: of length 1 for cosines. None of them is zero."""
    if distance != "cosine":
        return vectors
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _search(index: Any, query: NDArray[np.float32], limit: int, parameters: Any) -> list[int]:
    if index.ntotal == 0:
        return []
    _, found = index.search(query, min(limit, index.ntotal), params=parameters)
    return [int(row) for row in found[0] if row >= 0]


def _parameters(selection: Any) -> Any:
    return None if selection is None else import_untyped("faiss").SearchParameters(sel=selection)


def _metric(distance: Distance) -> int:
    faiss = import_untyped("faiss")
    return faiss.METRIC_L2 if distance == "euclid" else faiss.METRIC_INNER_PRODUCT


def _numbered(index: Any, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> Any:
    numbered = import_untyped("faiss").IndexIDMap2(index)
    if len(rows):
        numbered.add_with_ids(np.ascontiguousarray(vectors), rows)
    return numbered
