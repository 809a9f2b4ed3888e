"""A graph of FAISS beside the vectors of a search index, which then need not all be compared.

    vectors.faiss   HNSW (Malkov and Yashunin 2016) over the vectors, by inner product

The graph finds candidates. Their scores are those of exact search, so a hit has the same score
either way, and only hits can be missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.tasks import retrieval
from bert_jax.tasks.retrieval import Hits
from bert_jax.utils import extras

GRAPH = "vectors.faiss"
LINKS = 32  # of a vector in the graph
BUILD_DEPTH, SEARCH_DEPTH = 200, 128  # vectors in view (efConstruction, efSearch)
CANDIDATES_PER_HIT = 4
BLOCK = 1 << 16  # vectors in memory at a time, beside the graph


def _faiss() -> Any:
    try:
        import faiss  # type: ignore[import-not-found]
    except ImportError:
        raise extras.missing(
            "an index with a graph (unless search has --exact)", "faiss", "faiss"
        ) from None
    return faiss


def check_installed() -> None:
    """ValueError: FAISS is not installed."""
    _faiss()


def write_graph(vectors: np.ndarray, path: Path) -> None:
    """Write the graph of vectors [n d], which may be a memory map. The graph holds a copy of them
    in memory."""
    faiss = _faiss()
    graph = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_DEPTH
    for begin in range(0, len(vectors), BLOCK):
        graph.add(np.ascontiguousarray(vectors[begin : begin + BLOCK], np.float32))
    faiss.write_index(graph, str(path))


def read_graph(folder: Path, shape: tuple[int, ...]) -> Any:
    """The graph in an index; None if it has none. ValueError: FAISS is not installed, or the graph
    cannot be read or is not of `shape`."""
    path = folder / GRAPH
    if not path.is_file():
        return None
    faiss = _faiss()
    try:
        graph = faiss.read_index(str(path))
    except RuntimeError as e:
        raise ValueError(f"{path} cannot be read ({str(e)[:80]}): write the index again") from None
    if (graph.ntotal, graph.d) != shape:
        raise ValueError(
            f"{path} is of {graph.ntotal} vectors of width {graph.d}, and the index has {shape[0]} "
            f"of width {shape[1]}: write it again"
        )
    return graph


def top_k(graph: Any, queries: np.ndarray, vectors: np.ndarray, k: int) -> Hits:
    """As `retrieval.top_k`, among the candidates that the graph finds."""
    k = min(k, len(vectors))
    count = min(len(vectors), max(SEARCH_DEPTH, CANDIDATES_PER_HIT * k))
    graph.hnsw.efSearch = max(SEARCH_DEPTH, count)
    _, found = graph.search(np.ascontiguousarray(queries, np.float32), count)
    numbers, scores = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    for i, candidates in enumerate(found):
        at = np.unique(candidates[candidates >= 0])  # -1 where the graph has found fewer
        query = queries[i : i + 1]
        if len(at) < k:  # a part of the graph that cannot be reached
            hits = retrieval.top_k(query, vectors, k)
            numbers[i], scores[i] = hits.numbers[0], hits.scores[0]
            continue
        hits = retrieval.top_k(query, np.asarray(vectors[at]), k)
        numbers[i], scores[i] = at[hits.numbers[0]], hits.scores[0]
    return Hits(numbers, scores)
