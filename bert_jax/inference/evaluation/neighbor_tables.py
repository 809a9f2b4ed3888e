"""Tables of which tokens occur beside which, and what they say about a place (neighbor_counts.py).

Axes: n rows, l tokens of a row, m places, v vocabulary, c pairs of neighbors, g classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from bert_jax.data.tokenization.tokenizer import Tokenizer

NO_NEIGHBOR = -1
CHUNK_PAIRS = 4096
# Bounds of the classes by confidence; a context that never occurs has none.
CONFIDENCE_BOUNDS = np.array([1e-9, 0.2, 0.34, 0.45, 0.52, 0.6, 0.67, 0.75, 0.8, 0.85, 0.9, 0.95])
GROUPS_PER_KIND = len(CONFIDENCE_BOUNDS) + 1
KINDS = 4  # places with no neighbor, the left one, the right one, both
UNIGRAM, LEFT, RIGHT, PRODUCT, MIDDLE = range(5)  # components of the mixture


class TokenKinds(NamedTuple):
    """Which ids are not predicted, and which cannot be seen."""

    excluded: np.ndarray  # bool [v]: special tokens and the unknown token, never predicted
    hidden: np.ndarray  # bool [v]: the mask and the padding token, which are no neighbors

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenKinds:
        excluded, hidden = np.zeros((2, tokenizer.vocab_size), bool)
        excluded[[*tokenizer.special_ids, tokenizer.unk_id]] = True
        hidden[[tokenizer.mask_id, tokenizer.pad_id]] = True
        return cls(excluded, hidden)


def neighbors(
    tokens: np.ndarray, kinds: TokenKinds, row: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right neighbor of each place, NO_NEIGHBOR where none is shown: [m], [m].
    `tokens` [n l] are rows as the model sees them."""
    shown = np.where(kinds.hidden[tokens], NO_NEIGHBOR, tokens)
    shown = np.pad(shown, ((0, 0), (1, 1)), constant_values=NO_NEIGHBOR)
    return shown[row, position], shown[row, position + 2]


class Tables(NamedTuple):
    """Relative frequencies in some rows. Rows of the sparse arrays are contexts."""

    unigram: np.ndarray  # float [v]: p(w), with one added to every count; 0 if excluded
    left: sp.csr_array  # [v v]: p(w | l)
    right: sp.csr_array  # [v v]: p(w | r)
    middle: sp.csr_array  # [c v]: p(w | l, r)
    pairs: np.ndarray  # int64 [c]: l v + r of every pair with a token in between, ascending
    left_confidence: np.ndarray  # float [v]
    right_confidence: np.ndarray  # float [v]
    middle_confidence: np.ndarray  # float [c]

    @classmethod
    def of_rows(cls, tokens: np.ndarray, kinds: TokenKinds) -> Tables:
        v = len(kinds.excluded)
        is_text, is_shown = ~kinds.excluded[tokens], ~kinds.hidden[tokens]
        unigram = np.where(kinds.excluded, 0.0, np.bincount(tokens[is_text], minlength=v) + 1.0)
        after, before = is_shown[:, :-1] & is_text[:, 1:], is_text[:, :-1] & is_shown[:, 1:]
        first, second = tokens[:, :-1], tokens[:, 1:]
        left, left_confidence = _frequencies(first[after], second[after], (v, v))
        right, right_confidence = _frequencies(second[before], first[before], (v, v))
        between = after[:, :-1] & before[:, 1:]
        l, w, r = (x[between] for x in (tokens[:, :-2], tokens[:, 1:-1], tokens[:, 2:]))  # noqa: E741
        pairs, pair = np.unique(l.astype(np.int64) * v + r, return_inverse=True)
        middle, middle_confidence = _frequencies(pair, w, (max(1, len(pairs)), v))
        return cls(
            unigram / unigram.sum(),
            left,
            right,
            middle,
            pairs if len(pairs) else np.array([-1]),
            left_confidence,
            right_confidence,
            middle_confidence,
        )


def _frequencies(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> tuple[sp.csr_array, np.ndarray]:
    """How often each column occurs with each row, divided by the row's sum n; and the confidence
    in each row, n / (n + number of different columns)."""
    table = sp.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()
    table.sum_duplicates()  # sorts the columns too
    sums, different = np.bincount(rows, minlength=shape[0]), np.diff(table.indptr)
    table.data /= np.repeat(sums, different)
    return table, sums / np.maximum(1, sums + different)


# ---- contexts and components


class Contexts(NamedTuple):
    """The contexts of m places: rows of the tables (0 if not available), and the class."""

    left: np.ndarray  # int [m]
    right: np.ndarray  # int [m]
    middle: np.ndarray  # int [m]
    available: np.ndarray  # bool [m 5]: which components know the context
    product_weights: (
        np.ndarray
    )  # float [4 m]: of p(w), p(w | l), p(w | r), p(w | l) p(w | r) / p(w)
    group: np.ndarray  # int [m]: the class

    @classmethod
    def find(cls, tables: Tables, left: np.ndarray, right: np.ndarray) -> Contexts:
        has_left, has_right = left != NO_NEIGHBOR, right != NO_NEIGHBOR
        both = has_left & has_right
        left, right = np.where(has_left, left, 0), np.where(has_right, right, 0)
        pair = left.astype(np.int64) * len(tables.unigram) + right
        middle = np.minimum(np.searchsorted(tables.pairs, pair), len(tables.pairs) - 1)
        a = np.where(has_left, tables.left_confidence[left], 0.0)
        b = np.where(has_right, tables.right_confidence[right], 0.0)
        has_middle = both & (tables.pairs[middle] == pair)
        confidence = np.where(both, has_middle * tables.middle_confidence[middle], a + b)
        group = np.digitize(confidence, CONFIDENCE_BOUNDS)
        group += GROUPS_PER_KIND * (has_left + 2 * has_right.astype(int))
        z = 1 + a * b * (_agreement(tables, left, right, pair, both) - 1)
        product_weights = np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]) / z
        available = np.stack([np.ones_like(both), a > 0, b > 0, both, has_middle], axis=1)
        return cls(left, right, np.where(has_middle, middle, 0), available, product_weights, group)

    def take(self, part: slice) -> Contexts:
        return Contexts(
            self.left[part],
            self.right[part],
            self.middle[part],
            self.available[part],
            self.product_weights[:, part],
            self.group[part],
        )

    def available_weights(self, weights: np.ndarray) -> np.ndarray:
        """The weights of each place, without components that do not know its context: [m 5]."""
        chosen = weights[self.group] * self.available
        return chosen / chosen.sum(1, keepdims=True)


def _agreement(
    tables: Tables, left: np.ndarray, right: np.ndarray, pair: np.ndarray, both: np.ndarray
) -> np.ndarray:
    """The sum over w of p(w | l) p(w | r) / p(w), [m]: 1 if the two neighbors are independent, and
    large if they agree on the token between them. 1 where a neighbor is missing."""
    z = np.ones(len(pair))
    _, first, inverse = np.unique(pair[both], return_index=True, return_inverse=True)
    left, right = left[both][first], right[both][first]
    z_pair = np.zeros(len(first))
    for part in chunks(len(first), CHUNK_PAIRS):
        over_unigram = divide_columns(tables.right[right[part]], tables.unigram)
        z_pair[part] = tables.left[left[part]].multiply(over_unigram).sum(1)
    z[both] = z_pair[inverse]
    return z


def component_probabilities(tables: Tables, c: Contexts, targets: np.ndarray) -> np.ndarray:
    """The probability of each target under each component, [m 5]."""
    p = np.zeros((len(targets), 5))
    p[:, UNIGRAM] = tables.unigram[targets]
    p[:, LEFT] = _look_up(tables.left, c.left, targets)
    p[:, RIGHT] = _look_up(tables.right, c.right, targets)
    # excluded tokens have p(w) = 0, and so do p(w | l) and p(w | r)
    product = p[:, LEFT] * p[:, RIGHT] / np.where(p[:, UNIGRAM] > 0, p[:, UNIGRAM], 1)
    parts = np.stack([p[:, UNIGRAM], p[:, LEFT], p[:, RIGHT], product])
    p[:, PRODUCT] = (parts * c.product_weights).sum(0)
    p[:, MIDDLE] = _look_up(tables.middle, c.middle, targets)
    return p * c.available


def _look_up(table: sp.csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """table[rows, columns], dense [m]: a binary search in all rows at once."""
    if not table.nnz:
        return np.zeros(len(rows))
    low, end = table.indptr[rows].astype(np.int64), table.indptr[rows + 1].astype(np.int64)
    high = end
    while (low < high).any():
        middle = (low + high) // 2
        is_below = (low < high) & (table.indices[np.minimum(middle, table.nnz - 1)] < columns)
        low, high = np.where(is_below, middle + 1, low), np.where(is_below, high, middle)
    at = np.minimum(low, table.nnz - 1)
    return np.where((low < end) & (table.indices[at] == columns), table.data[at], 0.0)


def divide_columns(table: sp.csr_array, divisors: np.ndarray) -> sp.csr_array:
    data = table.data / divisors[table.indices]
    return sp.csr_array((data, table.indices, table.indptr), table.shape)


def scale_rows(table: sp.csr_array, scale: np.ndarray) -> sp.csr_array:
    data = table.data * np.repeat(scale, np.diff(table.indptr))
    return sp.csr_array((data, table.indices, table.indptr), table.shape)


def chunks(count: int, size: int) -> Iterator[slice]:
    for begin in range(0, count, max(1, size)):
        yield slice(begin, begin + max(1, size))
