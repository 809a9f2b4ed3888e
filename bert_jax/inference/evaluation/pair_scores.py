"""How well a model's sentence-pair head tells true pairs from others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.inference.evaluation.token_rows import TokenRows, map_rows
from bert_jax.inference.model import Model
from bert_jax.objectives.base import with_heads
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
    """Untrimmed segments that follow each other, shown in both orders: chance is .5."""

    neighbors: int  # rows, each of which is shown twice
    accuracy: float
    standard_error: float


def pair_scores(model: Model, rows: TokenRows, train_share: float) -> PairScores | None:
    """The scores on rows with a pair label; `train_share` is the share of label 1 in training. None
    if the model has no pair head, or the rows do not have both labels."""
    rows = rows.take(rows.pair >= 0)
    labels = rows.pair.astype(bool)
    if labels.all() or not labels.any() or (scores := _log_probabilities(model, rows)) is None:
        return None
    correct = scores.argmax(-1) == rows.pair
    recalls = [correct[labels == label].mean() for label in (False, True)]
    sizes = [(labels == label).sum() for label in (False, True)]
    variance = sum(r * (1 - r) / n for r, n in zip(recalls, sizes, strict=True)) / 4
    share = min(max(train_share, 1e-6), 1 - 1e-6)
    return PairScores(
        len(rows),
        float(np.mean(recalls)),
        float(np.sqrt(variance)),
        float(-np.take_along_axis(scores, rows.pair[:, None], axis=1).mean()),
        float(-np.where(labels, np.log(share), np.log(1 - share)).mean()),
    )


def order_scores(model: Model, rows: TokenRows) -> OrderScores | None:
    """How well a model trained on sentence order tells whether two segments are swapped.

    Two other things give the label of ALBERT's pairs away (`data/sentence_pairs.py`): instead of
    being swapped some have a random segment, of another topic; and the longer segment is trimmed,
    which shows where it ends. So only rows that follow each other (label 0) and leave room in
    `rows` are shown here, in order and swapped. The lengths of the segments may still tell their
    order. None: no pair head, or no such rows."""
    rows = rows.take((rows.pair == 0) & (rows.size < rows.tokens.shape[1]))
    both = TokenRows.concatenate((rows, swap_segments(rows, model.tokenizer.special_tokens)))
    if not len(rows) or (scores := _log_probabilities(model, both)) is None:
        return None
    is_swapped = np.repeat([0, 1], len(rows))
    right = (scores.argmax(-1) == is_swapped).reshape(2, -1).mean(0)  # of each row: 0, .5 or 1
    error = right.std() / np.sqrt(max(1, len(rows) - 1))
    return OrderScores(len(rows), float(right.mean()), float(error))


def swap_segments(rows: TokenRows, special_tokens: SpecialTokens) -> TokenRows:
    """Exchange the two segments of every row that has tokens.

    [CLS] a a [SEP] b [SEP] [PAD]   ->   [CLS] b [SEP] a a [SEP] [PAD]
    """
    tokens, first = rows.tokens.copy(), rows.first.copy()
    separators = 2 if special_tokens.doubled else 1  # before segment B
    for i, size in enumerate(rows.size):
        if size > 0:
            a = tokens[i, 1 : first[i] - 1].tolist()
            b = tokens[i, first[i] + separators - 1 : size - 1].tolist()
            row, first[i] = special_tokens.build_row(b, a)
            tokens[i, :size] = row
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
