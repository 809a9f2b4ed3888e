"""Neighbor counts for rows that may need different ones: a row is never scored by its own text.

rows of the first half     scored by the counts of the second half
rows of the second half    scored by the counts of the first half
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts, PlaceScores


@dataclass(frozen=True)
class CountsByRow:
    """The counts that score each row. Places are given with the number of their row."""

    counts: Sequence[NeighborCounts]
    index: np.ndarray  # int [n]: which of `counts` scores a row

    @classmethod
    def same(cls, counts: NeighborCounts, num_rows: int) -> CountsByRow:
        """One set of counts for all rows."""
        return cls((counts,), np.zeros(num_rows, int))

    def take(self, rows: np.ndarray) -> CountsByRow:
        """The counts of the rows with these numbers."""
        return CountsByRow(self.counts, self.index[rows])

    def unigram_scores(self, row: np.ndarray, targets: np.ndarray) -> PlaceScores:
        """As `NeighborCounts.unigram_scores`; `row` [m] is the row of each place."""
        return self._collect(row, lambda counts, at: counts.unigram_scores(targets[at]))

    def scores(
        self, row: np.ndarray, left: np.ndarray, right: np.ndarray, targets: np.ndarray
    ) -> PlaceScores:
        """As `NeighborCounts.scores`."""
        return self._collect(
            row, lambda counts, at: counts.scores(left[at], right[at], targets[at])
        )

    def loss(
        self, row: np.ndarray, left: np.ndarray, right: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        """As `NeighborCounts.loss`."""
        loss = np.zeros(len(row))
        for i, counts in enumerate(self.counts):
            at = self.index[row] == i
            loss[at] = counts.loss(left[at], right[at], targets[at])
        return loss

    def _collect(
        self, row: np.ndarray, score: Callable[[NeighborCounts, np.ndarray], PlaceScores]
    ) -> PlaceScores:
        loss, rank = np.zeros(len(row)), np.zeros(len(row), int)
        for i, counts in enumerate(self.counts):
            at = self.index[row] == i
            loss[at], rank[at] = score(counts, at)
        return PlaceScores(loss, rank)
