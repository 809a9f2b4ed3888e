"""Counts of both neighbors: the best guess at a token from the two tokens beside it. A model that
uses more of the context than that scores better.

    tokens    the [MASK] sat          left `the`, right `sat`

    p(w | l, r) = a p(w) + b p(w | l) + c p(w | r) + d q(w | l) q(w | r) / (p(w) z) + e p(w | l, r)

Every p is a relative frequency in the training rows; q(w | l) mixes p(w | l) and p(w) by the
confidence in l, the share of its n occurrences in n plus the number of different tokens seen beside
it (Witten and Bell 1991); z makes the product a distribution. The weights a to e are fitted by EM
on rows that were not counted (deleted interpolation, Jelinek and Mercer 1980), one set for each
class of places: which neighbors can be used, and the confidence in them. Then all rows are counted.
The mask token and padding are no neighbors; [CLS] and [SEP] are, because a model sees them too.

Axes: n rows, l tokens of a row, m places, v vocabulary, c pairs of neighbors, g classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bert_jax.inference.evaluation.neighbor_tables import (
    GROUPS_PER_KIND,
    KINDS,
    LEFT,
    MIDDLE,
    NO_NEIGHBOR,
    PRODUCT,
    RIGHT,
    UNIGRAM,
    Contexts,
    Tables,
    TokenKinds,
    chunks,
    component_probabilities,
    divide_columns,
    neighbors,
    scale_rows,
)

HELD_OUT_BLOCK, HELD_OUT_EVERY = 16, 10  # of every 10 blocks of 16 rows, one fits the weights
MAX_FIT_PLACES = 100_000
EM_STEPS = 40
PRIOR_PLACES = 20.0  # a class starts from the weights of its kind, as if from so many places
CHUNK_CELLS = 4_000_000  # numbers of a dense array


class PlaceScores(NamedTuple):
    """How well the true tokens at some places are predicted."""

    loss: np.ndarray  # float [m]: -log p of the true token, in nat
    rank: np.ndarray  # int [m]: how many tokens are more likely

    def in_top(self, k: int) -> np.ndarray:
        """bool [m]: whether the true token is among the k most likely ones."""
        return self.rank < k


@dataclass(frozen=True)
class NeighborCounts:
    """The mixture, fitted to training rows."""

    tables: Tables
    weights: np.ndarray  # [g 5]

    @classmethod
    def fit(
        cls, tokens: np.ndarray, kinds: TokenKinds, distinct: np.ndarray | None = None
    ) -> NeighborCounts:
        """Count the rows `tokens` [n l], which are padded with an excluded token.

        Where rows repeat text of other rows, `distinct` [n' l] are the rows without it: repeated
        text is no measure of how well counts predict new text, so these rows fit the weights.
        ValueError: fewer than two of those rows have text.
        """
        rows = tokens if distinct is None else distinct
        rows = rows[(~kinds.excluded[rows]).any(1)]
        if len(rows) < 2:
            raise ValueError(
                f"counts need at least 2 rows with text, got {len(rows)}: give more text"
            )
        block = min(HELD_OUT_BLOCK, max(1, len(rows) // (2 * HELD_OUT_EVERY)))
        number = np.arange(len(rows)) // block
        held_out = number % HELD_OUT_EVERY == min(HELD_OUT_EVERY, number[-1] + 1) - 1
        tables = Tables.of_rows(rows[~held_out], kinds)
        weights = _fit_weights(tables, rows[held_out], kinds)
        return cls(Tables.of_rows(tokens, kinds), weights)

    def unigram_scores(self, targets: np.ndarray) -> PlaceScores:
        """What the frequencies of tokens alone predict."""
        p = self.tables.unigram
        more_likely = len(p) - np.searchsorted(np.sort(p), p, side="right")
        return PlaceScores(-np.log(p[targets]), more_likely[targets])

    def scores(self, left: np.ndarray, right: np.ndarray, targets: np.ndarray) -> PlaceScores:
        """Loss and rank of the targets [m] between the neighbors [m]."""
        contexts = Contexts.find(self.tables, left, right)
        loss, rank = np.zeros(len(targets)), np.zeros(len(targets), int)
        for part in chunks(len(targets), CHUNK_CELLS // len(self.tables.unigram)):
            p = self._distribution(contexts.take(part))
            p_target = np.take_along_axis(p, targets[part, None], axis=1)
            loss[part] = -np.log(p_target[:, 0])
            rank[part] = (p > p_target).sum(1)
        return PlaceScores(loss, rank)

    def likeliest(self, left: np.ndarray, right: np.ndarray, top: int) -> np.ndarray:
        """The `top` most likely tokens between the neighbors [m], the likeliest first: [m top]."""
        p = self._distribution(Contexts.find(self.tables, left, right))
        return np.argsort(-p, axis=1, kind="stable")[:, :top]

    def loss(self, left: np.ndarray, right: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """-log p of the targets in nat, [m], infinite for excluded tokens; much cheaper than
        `scores`."""
        contexts = Contexts.find(self.tables, left, right)
        p = component_probabilities(self.tables, contexts, targets)
        with np.errstate(divide="ignore"):
            return -np.log((p * contexts.available_weights(self.weights)).sum(1))

    def _distribution(self, c: Contexts) -> np.ndarray:
        """p(w | l, r), dense [m v]."""
        tables, weights = self.tables, c.available_weights(self.weights)
        left, right = tables.left[c.left], tables.right[c.right]
        product = left.multiply(divide_columns(right, tables.unigram)).tocsr()
        of_unigram, of_left, of_right, of_product = c.product_weights * weights[:, [PRODUCT]].T
        mixture = (
            scale_rows(left, weights[:, LEFT] + of_left)
            + scale_rows(right, weights[:, RIGHT] + of_right)
            + scale_rows(product, of_product)
            + scale_rows(tables.middle[c.middle], weights[:, MIDDLE])
        )
        return mixture.toarray() + (weights[:, UNIGRAM] + of_unigram)[:, None] * tables.unigram


# ---- weights


def _fit_weights(tables: Tables, rows: np.ndarray, kinds: TokenKinds) -> np.ndarray:
    """The weights of every class, [g 5]. Each place of the rows is used four times: with both
    neighbors, with either one, and with none."""
    row, position = np.nonzero(~kinds.excluded[rows])
    if len(row) > MAX_FIT_PLACES:
        chosen = np.random.default_rng(0).permutation(len(row))[:MAX_FIT_PLACES]
        row, position = row[chosen], position[chosen]
    left, right = neighbors(rows, kinds, row, position)
    none = np.full_like(left, NO_NEIGHBOR)
    lefts, rights = [left, left, none, none], [right, none, right, none]
    contexts = Contexts.find(tables, np.concatenate(lefts), np.concatenate(rights))
    p = component_probabilities(tables, contexts, np.tile(rows[row, position], 4))
    coarse = contexts._replace(group=contexts.group // GROUPS_PER_KIND)
    by_kind = _em(p, coarse, np.full((KINDS, 5), 0.2))
    return _em(p, contexts, np.repeat(by_kind, GROUPS_PER_KIND, axis=0))


def _em(p: np.ndarray, contexts: Contexts, prior: np.ndarray) -> np.ndarray:
    """The weights [g 5] under which the held-out places, with probabilities p [m 5], are most
    likely. A class with few places stays near its `prior` [g 5]."""
    groups = len(prior)
    places = np.bincount(contexts.group, minlength=groups)[:, None]
    weights = prior
    for _ in range(EM_STEPS):
        share: Any = p * contexts.available_weights(weights)
        share /= share.sum(1, keepdims=True)
        sums = [np.bincount(contexts.group, s, minlength=groups) for s in share.T]
        weights = (np.stack(sums, 1) + PRIOR_PLACES * prior) / (places + PRIOR_PLACES)
    return weights
