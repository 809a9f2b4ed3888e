"""How well a model's sentence-pair head tells true pairs from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

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


def pair_scores(model: Model, rows: TokenRows, train_share: float) -> PairScores | None:
    """The scores on rows with a pair label; `train_share` is the share of label 1 in training. None
    if the model has no pair head, or the rows do not have both labels."""
    network, params = model.objective.encoder(model.params)
    rows = rows.take(rows.pair >= 0)
    labels = rows.pair.astype(bool)
    if "pair" not in network.heads or labels.all() or not labels.any():
        return None
    network = with_heads(network, "pooler", "pair")

    @jax.jit
    def log_p(params: Any, batch: Batch) -> tuple[jax.Array]:
        out: Any = network.apply({"params": params}, batch)
        return (jax.nn.log_softmax(out["pair"], axis=-1),)

    (scores,) = map_rows(lambda batch: log_p(params, batch), rows, model.config.encoder)
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
