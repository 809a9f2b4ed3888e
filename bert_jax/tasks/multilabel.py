"""Multi-label classification: each label is a decision of its own.

A text has the labels whose probability, the sigmoid of their logit, is above their threshold: .5,
or the one with the best F1 on a labeled split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from bert_jax.tasks.examples import EncodedExamples, is_labeled

DEFAULT_THRESHOLD = 0.5


def probabilities(logits: Any) -> np.ndarray:
    """float64, shaped as the logits: the sigmoid."""
    return special.expit(np.asarray(logits, np.float64))


def is_predicted(p: np.ndarray, thresholds: Sequence[float] = ()) -> np.ndarray:
    """bool [... n]: which of n labels are above their threshold; () stands for .5 each."""
    return p > np.asarray(thresholds if len(thresholds) else DEFAULT_THRESHOLD)


def labeled_rows(encoded: EncodedExamples, outputs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """bool [r n], float64 [r n]: the labels of the examples that have known labels (perhaps none),
    and their probabilities."""
    gold, logits = [], []
    for i, row, out in zip(encoded.example_indices, encoded.rows, outputs, strict=True):
        if is_labeled(encoded.examples[i]):
            gold.append(row["label"] > 0)
            logits.append(np.asarray(out, np.float64))
    if not gold:
        return np.zeros((0, 0), bool), np.zeros((0, 0))
    return np.array(gold), probabilities(np.array(logits))


def best_thresholds(encoded: EncodedExamples, outputs: Sequence[Any]) -> tuple[float, ...]:
    """The threshold of each label with the best F1 on these examples; () if none is labeled."""
    gold, p = labeled_rows(encoded, outputs)
    return tuple(_best_threshold(gold[:, i], p[:, i]) for i in range(gold.shape[1]))


def _best_threshold(gold: np.ndarray, p: np.ndarray) -> float:
    """The threshold with the best F1, half way between two probabilities; of equally good ones the
    nearest to .5. A label without an example keeps .5."""
    if not gold.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-p, kind="stable")
    above, below = p[order], np.append(p[order][1:], 0.0)
    predicted = np.arange(1, len(p) + 1)
    f1 = 2 * np.cumsum(gold[order]) / (predicted + gold.sum())
    middle = (above + below) / 2
    middle = np.where(middle < above, middle, below)  # neighbors in floating point
    f1 = np.where(above > below, f1, -1.0)  # equal probabilities cannot be separated
    best = np.flatnonzero(f1 == f1.max())
    return float(middle[best[np.argmin(np.abs(middle[best] - DEFAULT_THRESHOLD))]])


def multilabel_metrics(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Metrics of bool [r n] labels: accuracy (all labels of a text are right), F1 averaged over
    decisions (micro) and over labels (macro), precision and recall over decisions. What is not
    defined is 0. They are counted here, since scikit-learn takes a single label for two classes."""
    hits, found, true = (x.sum(axis=0) for x in (gold & predicted, predicted, gold))
    micro = hits.sum()
    return {
        "f1_micro": float(2 * micro / max(found.sum() + true.sum(), 1)),
        "f1_macro": float(np.mean(2 * hits / np.maximum(found + true, 1))),
        "precision": float(micro / max(found.sum(), 1)),
        "recall": float(micro / max(true.sum(), 1)),
        "accuracy": float((gold == predicted).all(axis=1).mean()),
    }
