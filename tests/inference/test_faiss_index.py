"""A graph of FAISS finds nearly all lines that exact search finds, with the same scores."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.inference import faiss_index
from bert_jax.tasks import retrieval


def unit_vectors(n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 24)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.library("faiss")
def test_hits_are_those_of_exact_search(tmp_path: Path) -> None:
    vectors, queries = unit_vectors(3000, 0), unit_vectors(20, 1)
    vectors[7] = vectors[5]
    queries[0] = vectors[5]
    faiss_index.write_graph(vectors, tmp_path / faiss_index.GRAPH)
    graph = faiss_index.read_graph(tmp_path, vectors.shape)
    exact = retrieval.top_k(queries, vectors, 10)
    near = faiss_index.top_k(graph, queries, vectors, 10)
    assert near.numbers[0, :2].tolist() == [5, 7]
    shared = [np.intersect1d(a, b) for a, b in zip(exact.numbers, near.numbers, strict=True)]
    assert np.mean([len(s) / 10 for s in shared]) >= 0.95
    for numbers, scores, query in zip(*near, queries, strict=True):
        assert np.array_equal(scores, retrieval.dot(query[None], vectors[numbers])[0])
        assert (np.diff(scores) <= 0).all()
    assert faiss_index.top_k(graph, queries, vectors, 5000).numbers.shape == (20, 3000)
    with pytest.raises(ValueError, match="is of 3000 vectors of width 24, and the index has 2999"):
        faiss_index.read_graph(tmp_path, (2999, 24))
    (tmp_path / faiss_index.GRAPH).write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"vectors\.faiss cannot be read .*: write the index"):
        faiss_index.read_graph(tmp_path, vectors.shape)


def test_an_index_without_a_graph_needs_no_faiss_and_one_with_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without_faiss(name: str, *args: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    assert faiss_index.read_graph(tmp_path, (1, 1)) is None
    (tmp_path / faiss_index.GRAPH).write_bytes(b"")
    with pytest.raises(ValueError, match=r"needs faiss, which is not installed: .*extra \[faiss\]"):
        faiss_index.read_graph(tmp_path, (1, 1))
