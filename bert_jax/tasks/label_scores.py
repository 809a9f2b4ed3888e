"""Precision, recall and F1 of each label: which classes a model confuses or misses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.tasks import multilabel
from bert_jax.tasks.examples import EncodedExamples
from bert_jax.tasks.metrics import predicted_classes


def label_scores(
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    labels: Sequence[str],
    thresholds: Sequence[float] = (),
) -> dict[str, dict[str, float]]:
    """Label -> precision, recall, f1 and support, the number of labeled examples (tagging: words)
    that have it. {} where the task has no classes or no example is labeled.

    thresholds  of each label, for multi-label (multilabel.is_predicted)
    """
    if encoded.task_type == "multilabel":
        gold, p = multilabel.labeled_rows(encoded, outputs)
        if not len(gold):
            return {}
        predicted = multilabel.is_predicted(p, thresholds)
    elif encoded.task_type in ("classification", "tagging"):
        classes = predicted_classes(encoded, outputs, labels)
        gold, predicted = (np.eye(len(labels), dtype=bool)[x] for x in classes)
    else:
        return {}
    return _scores(gold, predicted, labels) if len(gold) else {}


def _scores(
    gold: np.ndarray, predicted: np.ndarray, labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    hits, found, support = ((x).sum(axis=0) for x in (gold & predicted, predicted, gold))
    precision, recall = hits / np.maximum(found, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(found + support, 1)
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return {
        label: {name: column[i].item() for name, column in columns.items()}
        for i, label in enumerate(labels)
    }
