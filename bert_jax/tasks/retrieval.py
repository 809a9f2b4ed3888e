"""Retrieval: exact search in blocks, and the metrics of a ranking.

Scores are computed in float64 and rounded to float32, so that equal vectors have equal scores
wherever they stand in a block; equal scores are ranked by number. Metrics follow trec_eval, which
the tests compare them with. They are our own because no kept library has wheels for every platform
(pytrec-eval-terrier 0.5.11 has none for Linux on ARM).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

NUMBERS_PER_BLOCK = 1 << 22  # scores, and numbers of vectors in float64, in memory at a time
RANKED_SCORES = 1 << 26  # float32 scores of all documents in memory at a time
QUERIES_PER_BLOCK = 256  # with more of them, a block would have too few documents
METRICS = ("mrr@10", "ndcg@10", "recall@10", "recall@100", "map")


class Hits(NamedTuple):
    """The best documents of each query, best first."""

    numbers: np.ndarray  # int64 [queries, k]
    scores: np.ndarray  # float32 [queries, k]


def top_k(queries: np.ndarray, documents: np.ndarray, k: int) -> Hits:
    """The `k` documents [n d], or all n if there are fewer, with the largest dot product with each
    query [m d]. `documents` may be a memory map: it is read in blocks."""
    parts = [
        _top_k(queries[i : i + QUERIES_PER_BLOCK], documents, min(k, len(documents)))
        for i in range(0, len(queries), QUERIES_PER_BLOCK)
    ]
    return Hits(*map(np.concatenate, zip(*parts, strict=True)))


def _top_k(queries: np.ndarray, documents: np.ndarray, k: int) -> Hits:
    block = _block(len(queries), documents)
    numbers = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for begin in range(0, len(documents), block):
        new = dot(queries, documents[begin : begin + block])
        scores = np.concatenate([scores, new], axis=1)
        at = np.broadcast_to(np.arange(begin, begin + new.shape[1]), new.shape)
        numbers = np.concatenate([numbers, at], axis=1)
        kept = [_best(s, n, k) for s, n in zip(scores, numbers, strict=True)]
        scores = np.stack([s[i] for s, i in zip(scores, kept, strict=True)])
        numbers = np.stack([n[i] for n, i in zip(numbers, kept, strict=True)])
    return Hits(numbers, scores)


def hits_without(
    queries: np.ndarray, documents: np.ndarray, k: int, own: Sequence[int | None]
) -> Iterator[tuple[list[int], list[float]]]:
    """Per query the numbers and scores of `top_k`, in which its document `own` does not count."""
    for numbers, scores, left_out in zip(*top_k(queries, documents, k + 1), own, strict=True):
        kept = np.flatnonzero(numbers != (-1 if left_out is None else left_out))[:k]
        yield numbers[kept].tolist(), scores[kept].tolist()


def _best(scores: np.ndarray, numbers: np.ndarray, k: int) -> np.ndarray:
    """The positions of the `k` largest scores, best first; equal ones by number, NaN last."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    k = min(k, len(scores))
    lowest = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= lowest)
    return candidates[np.lexsort((numbers[candidates], -scores[candidates]))][:k]


def _block(queries: int, documents: np.ndarray) -> int:
    """How many documents are read at a time."""
    return max(1, NUMBERS_PER_BLOCK // max(1, queries, documents.shape[1]))


def dot(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """The dot products [m n] of vectors [m d] and [n d], float32."""
    return (queries.astype(np.float64) @ documents.astype(np.float64).T).astype(np.float32)


def _dot_by_blocks(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """`dot`, without all documents in float64."""
    block = _block(len(queries), documents)
    scores = np.empty((len(queries), len(documents)), np.float32)
    for begin in range(0, len(documents), block):
        scores[:, begin : begin + block] = dot(queries, documents[begin : begin + block])
    return scores


class Judged(NamedTuple):
    """The documents that are judged for one query, in any order."""

    ranks: np.ndarray  # from 1; NaN if a document's score is NaN
    grades: np.ndarray  # relevance; 0 is not relevant


def rank_judged(
    queries: np.ndarray,
    documents: np.ndarray,
    grades: Sequence[Mapping[int, float]],
    own: Sequence[int | None] | None = None,
) -> list[Judged]:
    """The ranks of the judged documents of each query among all documents, by dot product.
    `grades` has, per query, the number of each judged document and its grade; `own` the number of
    a document that is left out."""
    rows = max(1, RANKED_SCORES // max(1, len(documents)))
    blocks = (
        _dot_by_blocks(queries[i : i + rows], documents) for i in range(0, len(queries), rows)
    )
    scores = (row for block in blocks for row in block)
    left_out = [None] * len(queries) if own is None else own
    return [_rank(*row) for row in zip(scores, grades, left_out, strict=True)]


def _rank(scores: np.ndarray, grades: Mapping[int, float], own: int | None) -> Judged:
    if own is not None:
        scores[own] = -np.inf
    relevance = np.array(list(grades.values()), np.float64)
    if np.isnan(scores).any():  # no score is larger than NaN, so each rank would be 1
        return Judged(np.full(len(grades), np.nan), relevance)
    numbers = np.array(list(grades), np.int64)
    ranks = [
        1 + (scores > scores[i]).sum() + (scores[:i] == scores[i]).sum() for i in numbers.tolist()
    ]
    return Judged(np.array(ranks, np.int64), relevance)


def ranking_metrics(judged: Sequence[Judged]) -> dict[str, float]:
    """The means over all queries that have a relevant document; empty if none has, NaN if a score
    is NaN.

    mrr@10       1 / the rank of the first relevant document, 0 if it is above 10
    ndcg@10      sum of grade / log2(1 + rank) up to rank 10, over its largest possible value
    recall@k     share of the relevant documents whose rank is at most k
    map          mean over relevant documents of the precision at their rank
    """
    values = [list(_metrics_of(*_relevant(j))) for j in judged if (j.grades > 0).any()]
    if not values:
        return {}
    return dict(zip(METRICS, np.mean(values, axis=0).tolist(), strict=True))


def expected_at_random(
    grades: Sequence[Mapping[int, float]], documents: int, own: Sequence[int | None]
) -> dict[str, float]:
    """`ndcg@10`, `recall@10` and `recall@100` of documents in a random order, on average."""
    values = []
    for of_query, left_out in zip(grades, own, strict=True):
        relevant = np.sort([g for n, g in of_query.items() if g > 0 and n != left_out])[::-1]
        if not len(relevant):
            continue
        n = documents - (left_out is not None)
        discounts = 1 / np.log2(np.arange(2, 12))
        best = (relevant[:10] * discounts[: len(relevant)]).sum()
        ndcg = relevant.sum() * discounts[:n].sum() / n / best
        values.append((ndcg, min(1.0, 10 / n), min(1.0, 100 / n)))
    names = ("ndcg@10", "recall@10", "recall@100")
    return dict(zip(names, np.mean(values, axis=0).tolist(), strict=True)) if values else {}


def _relevant(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and grades of the relevant documents, best rank first."""
    order = np.argsort(judged.ranks, kind="stable")
    order = order[judged.grades[order] > 0]
    return judged.ranks[order], judged.grades[order]


def _metrics_of(ranks: np.ndarray, grades: np.ndarray) -> Iterator[float]:
    if np.isnan(ranks).any():
        yield from [math.nan] * len(METRICS)
        return
    yield 1 / ranks[0] if ranks[0] <= 10 else 0.0
    ideal = np.sort(grades)[::-1][:10]
    best = (ideal / np.log2(np.arange(2, len(ideal) + 2))).sum()
    yield (grades / np.log2(1 + ranks))[ranks <= 10].sum() / best
    yield (ranks <= 10).mean()
    yield (ranks <= 100).mean()
    yield (np.arange(1, len(ranks) + 1) / ranks).mean()
