"""Counts of both neighbors: a distribution, the right one where it is known, and never its own."""

import numpy as np
import pytest

from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import (
    NO_NEIGHBOR,
    Contexts,
    TokenKinds,
    neighbors,
)

PAD, CLS, SEP, MASK = range(4)
V, LENGTH = 24, 12
SPECIAL = np.arange(V) < 4
KINDS = TokenKinds(SPECIAL, np.isin(np.arange(V), (PAD, MASK)))


def rows_of(rng: np.random.Generator, n: int, text: np.ndarray | None = None) -> np.ndarray:
    """Rows [CLS] text [SEP] with padding; the text is random by default."""
    rows = np.full((n, LENGTH), PAD)
    for i, row in enumerate(rows):
        size = int(rng.integers(3, LENGTH - 1))
        row[0], row[size + 1] = CLS, SEP
        row[1 : size + 1] = rng.integers(4, V, size) if text is None else text[i, :size]
    return rows


def markov_text(rng: np.random.Generator, n: int, follow: np.ndarray) -> np.ndarray:
    """Text in which each token is drawn from the row of the token before it."""
    text = np.zeros((n, LENGTH), int)
    text[:, 0] = rng.integers(4, V, n)
    for j in range(1, LENGTH):
        u = rng.random(n)[:, None]
        text[:, j] = (follow[text[:, j - 1]].cumsum(1) < u).sum(1)
    return text


@pytest.fixture(scope="module")
def follow() -> np.ndarray:
    p = np.random.default_rng(5).dirichlet(np.full(V - 4, 0.2), V)
    return np.pad(p, ((0, 0), (4, 0)))


@pytest.fixture(scope="module")
def counts(follow: np.ndarray) -> NeighborCounts:
    rng = np.random.default_rng(0)
    return NeighborCounts.fit(rows_of(rng, 4000, markov_text(rng, 4000, follow)), KINDS)


def test_neighbors_are_the_shown_tokens_beside_a_place() -> None:
    rows = np.array([[CLS, 7, MASK, 8, MASK, MASK, SEP, PAD]])
    left, right = neighbors(rows, KINDS, np.zeros(4, int), np.array([1, 2, 4, 5]))
    assert left.tolist() == [CLS, 7, 8, NO_NEIGHBOR]
    assert right.tolist() == [NO_NEIGHBOR, 8, NO_NEIGHBOR, SEP]


def test_the_mixture_is_a_distribution_over_text(counts: NeighborCounts) -> None:
    """For every pair of neighbors, also missing and unseen ones; and `loss` gives its logarithm."""
    shown = [NO_NEIGHBOR, CLS, SEP, *range(4, V)]
    left, right = (x.ravel() for x in np.meshgrid(shown, shown))
    p = counts._distribution(Contexts.find(counts.tables, left, right))
    assert np.allclose(p.sum(1), 1)
    assert (p[:, SPECIAL] == 0).all()
    assert (p[:, ~SPECIAL] > 0).all()
    targets = np.full(len(left), 9)
    assert np.allclose(counts.loss(left, right, targets), -np.log(p[:, 9]))
    scores = counts.scores(left, right, targets)
    assert np.allclose(scores.loss, -np.log(p[:, 9]))
    assert np.array_equal(scores.rank, (p > p[:, [9]]).sum(1))


def test_the_likeliest_tokens_are_those_of_the_first_ranks(counts: NeighborCounts) -> None:
    left, right = np.array([CLS, 7, NO_NEIGHBOR]), np.array([9, NO_NEIGHBOR, NO_NEIGHBOR])
    found = counts.likeliest(left, right, 3)
    for k in range(3):
        assert counts.scores(left, right, found[:, k]).rank.tolist() == [k] * 3


def test_loss_of_markov_text_comes_near_the_best_that_is_possible(
    counts: NeighborCounts, follow: np.ndarray
) -> None:
    """With both neighbors p(w | l, r) ~ p(w | l) p(r | w) is known."""
    rng = np.random.default_rng(1)
    text = markov_text(rng, 3000, follow)
    left, target, right = text[:, 0], text[:, 1], text[:, 2]
    best = follow[left] * follow[:, right].T
    best = np.take_along_axis(best / best.sum(1, keepdims=True), target[:, None], 1)[:, 0]
    with_both = counts.loss(left, right, target).mean()
    assert abs(with_both + np.log(best).mean()) < 0.06
    none = np.full_like(left, NO_NEIGHBOR)
    with_left = counts.loss(left, none, target).mean()
    assert with_both + 0.3 < with_left < counts.unigram_scores(target).loss.mean() - 0.3
    assert abs(with_left + np.log(follow[left, target]).mean()) < 0.05


def test_text_without_order_is_no_better_than_its_frequencies() -> None:
    """Held-out weights: counts do not mistake chance for evidence."""
    rng = np.random.default_rng(2)
    counts = NeighborCounts.fit(rows_of(rng, 300), KINDS)
    left, right, target = rng.integers(4, V, (3, 2000))
    loss = counts.loss(left, right, target).mean()
    assert abs(loss - np.log(V - 4)) < 0.03
    assert abs(loss - counts.unigram_scores(target).loss.mean()) < 0.03


def test_repeated_rows_do_not_fit_the_weights() -> None:
    """Rows that stand there three times look predictable; `distinct` says that they are not."""
    rng = np.random.default_rng(3)
    rows = rows_of(rng, 200)
    repeated = np.tile(rows, (3, 1))
    left, right, target = rng.integers(4, V, (3, 2000))
    fooled = NeighborCounts.fit(repeated, KINDS).loss(left, right, target).mean()
    sound = NeighborCounts.fit(repeated, KINDS, rows).loss(left, right, target).mean()
    assert sound + 0.5 < fooled


def test_each_half_is_scored_by_the_counts_of_the_other(counts: NeighborCounts) -> None:
    rng = np.random.default_rng(4)
    other = NeighborCounts.fit(rows_of(rng, 300), KINDS)
    by_row = CountsByRow((counts, other), np.array([0, 1, 1]))
    row, left, right, target = rng.integers(0, 3, 50), *rng.integers(4, V, (3, 50))
    for i, one in enumerate((counts, other)):
        at = by_row.index[row] == i
        expected = one.scores(left[at], right[at], target[at])
        scores = by_row.scores(row, left, right, target)
        assert np.array_equal(scores.loss[at], expected.loss)
        assert np.array_equal(scores.rank[at], expected.rank)
        assert np.allclose(by_row.loss(row, left, right, target)[at], expected.loss)
        frequencies = one.unigram_scores(target[at])
        assert np.array_equal(by_row.unigram_scores(row, target).loss[at], frequencies.loss)


@pytest.mark.parametrize("n", [2, 3, 25])
def test_few_rows_are_enough(n: int) -> None:
    counts = NeighborCounts.fit(rows_of(np.random.default_rng(n), n), KINDS)
    one = np.array([5])
    assert np.isfinite(counts.loss(one, one, one)).all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rows with text, got 1"):
        NeighborCounts.fit(np.array([[CLS, 5, SEP], [CLS, SEP, PAD]]), KINDS)
