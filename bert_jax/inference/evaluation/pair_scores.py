"""How well a model's sentence-pair head tells true pairs from others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.inference.evaluation.token_rows import TokenRows, map_rows
from bert_jax.inference.model import Model
from bert_jax.objectives.base import with_heads
from bert_jax.objectives.losses import share_loss
from bert_jax.utils.types import Batch


@dataclass(frozen=True)
class PairScores:
    """Sentence pairs, shown without masks."""

    pairs: int
    accuracy: float  # the mean of the accuracies of the two classes: .5 for any constant answer
    standard_error: float  # of the accuracy
    loss: float  # in nat
    share_loss: float  # of always giving the label's share among the training pairs


@dataclass(frozen=True)
class OrderScores:
    """Segments that follow each other, untrimmed, shown in both orders: chance is .5."""

    neighbors: int  # rows, each of which is shown twice
    accuracy: float
    standard_error: float
    counts_accuracy: float  # of `SegmentCounts`, on the same rows
    difference_error: float  # of accuracy - counts_accuracy, paired by row; nan: of one row


@dataclass(frozen=True)
class SegmentCounts:
    """How often each token stands in first and in second segments: the order that tokens tell."""

    log_ratio: np.ndarray  # float64 [vocab]: log p(token | first segment) / p(token | second)

    @classmethod
    def fit(cls, rows: TokenRows, special_tokens: SpecialTokens, vocab_size: int) -> SegmentCounts:
        """Count the tokens of the untrimmed neighbors among `rows`."""
        counts = np.full((2, vocab_size), 0.5)
        for pair in _segments(untrimmed_neighbors(rows), special_tokens):
            for segment, of_tokens in zip(pair, counts, strict=True):
                np.add.at(of_tokens, segment, 1)
        first, second = np.log(counts / counts.sum(1, keepdims=True))
        return cls(first - second)

    def correct(self, rows: TokenRows, special_tokens: SpecialTokens) -> np.ndarray:
        """Which of `rows`, which are in order, it tells from the same rows swapped: float64 [rows],
        1, 0, or .5 where it cannot choose."""
        pairs = _segments(rows, special_tokens)
        score = np.array([self.log_ratio[a].sum() - self.log_ratio[b].sum() for a, b in pairs])
        return (np.sign(score) + 1) / 2


def pair_scores(model: Model, rows: TokenRows, train_share: float) -> PairScores | None:
    """The scores on rows with a pair label; `train_share` is the share of label 1 in training. None
    if the model has no pair head, or the rows do not have both labels."""
    rows = rows.take(rows.pair >= 0)
    labels = rows.pair.astype(bool)
    if labels.all() or not labels.any() or (scores := _log_probabilities(model, rows)) is None:
        return None
    correct = scores.argmax(-1) == rows.pair
    zeros, ones = correct[~labels], correct[labels]
    return PairScores(
        len(rows),
        float(zeros.mean() + ones.mean()) / 2,
        math.hypot(_accuracy_error(zeros), _accuracy_error(ones)) / 2,
        float(-np.take_along_axis(scores, rows.pair[:, None], axis=1).mean()),
        share_loss(float(labels.mean()), train_share),
    )


def order_scores(model: Model, rows: TokenRows, counts: SegmentCounts) -> OrderScores | None:
    """How well a model trained on sentence order tells whether two segments are swapped.

    Three other things give the label of ALBERT's pairs away (`data/sentence_pairs.py`): instead of
    being swapped some have a random segment, of another topic; the longer segment is trimmed,
    which shows where it ends; and first segments have other lengths than second ones. So only rows
    that follow each other (label 0), leave room in `rows` and have `balanced_lengths` are shown
    here, in order and swapped. None: no pair head, or no such rows."""
    special_tokens = model.tokenizer.special_tokens
    rows = balanced_lengths(untrimmed_neighbors(rows), special_tokens)
    both = TokenRows.concatenate((rows, swap_segments(rows, special_tokens)))
    if not len(rows) or (scores := _log_probabilities(model, both)) is None:
        return None
    is_swapped = np.repeat([0, 1], len(rows))
    right = (scores.argmax(-1) == is_swapped).reshape(2, -1).mean(0)  # of each row: 0, .5 or 1
    of_counts = counts.correct(rows, special_tokens)
    spread = (right - of_counts).std(ddof=1) if len(rows) > 1 else np.nan
    return OrderScores(
        len(rows),
        float(right.mean()),
        _accuracy_error(right),
        float(of_counts.mean()),
        float(spread / np.sqrt(len(rows))),
    )


def _accuracy_error(correct: np.ndarray) -> float:
    """The standard error of the mean of `correct`, each from 0 to 1, as if one more were right and
    one more wrong (Agresti and Coull 1998 add two of each): it is not 0 where all are right."""
    return float(np.append(correct, [0.0, 1.0]).std() / np.sqrt(len(correct)))


def balanced_lengths(rows: TokenRows, special_tokens: SpecialTokens) -> TokenRows:
    """The rows without those that have no counterpart: as many first segments are k tokens longer
    than the second as are k tokens shorter, for every k. So the difference of the lengths does not
    tell the order."""
    longer = np.array([len(a) - len(b) for a, b in _segments(rows, special_tokens)], int)
    keep = longer == 0
    for k in np.unique(np.abs(longer[~keep])):
        sides = [np.nonzero(longer == difference)[0] for difference in (k, -k)]
        size = min(map(len, sides))
        for side in sides:
            keep[side[np.arange(size) * len(side) // max(1, size)]] = True  # from the whole text
    return rows.take(keep)


def untrimmed_neighbors(rows: TokenRows) -> TokenRows:
    """Rows whose segments follow each other and leave room in the row."""
    return rows.take((rows.pair == 0) & (rows.size > 0) & (rows.size < rows.tokens.shape[1]))


def _segments(
    rows: TokenRows, special_tokens: SpecialTokens
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The token ids of both segments of each row, without special tokens."""
    separators = 2 if special_tokens.doubled else 1  # before segment B
    for tokens, first, size in zip(rows.tokens, rows.first, rows.size, strict=True):
        yield tokens[1 : first - 1], tokens[first + separators - 1 : size - 1]


def swap_segments(rows: TokenRows, special_tokens: SpecialTokens) -> TokenRows:
    """Exchange the two segments of every row that has tokens.

    [CLS] a a [SEP] b [SEP] [PAD]   ->   [CLS] b [SEP] a a [SEP] [PAD]
    """
    tokens, first = rows.tokens.copy(), rows.first.copy()
    for i, (a, b) in enumerate(_segments(rows, special_tokens)):
        if rows.size[i] > 0:
            row, first[i] = special_tokens.build_row(b.tolist(), a.tolist())
            tokens[i, : len(row)] = row
    return replace(rows, tokens=tokens, first=first)


def _log_probabilities(model: Model, rows: TokenRows) -> np.ndarray | None:
    """Of both labels [n 2]; None if the model has no pair head."""
    network, params = model.objective.encoder(model.params)
    if "pair" not in network.heads:
        return None
    network = with_heads(network, "pooler", "pair")

    @jax.jit
    def log_p(params: Any, batch: Batch) -> tuple[jax.Array]:
        out: Any = network.apply({"params": params}, batch)
        return (jax.nn.log_softmax(out["pair"], axis=-1),)

    return map_rows(lambda batch: log_p(params, batch), rows, model.config.encoder)[0]
