"""Scores of a task's split, from the outputs of a model."""

import math
from typing import Any

import numpy as np
import pytest

from bert_jax.config import Supervised
from bert_jax.tasks import EncodedExamples, Example, RerankExample, TextExample
from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.evaluation import EvalResult

NAN, LABELS = math.nan, ("a", "b")
# task -> examples, and outputs of which one is NaN
BROKEN: dict[Any, tuple[list[Example], list[Any]]] = {
    "classification": (
        [TextExample("x", None, "a"), TextExample("y", None, "b")],
        [np.array([NAN, NAN]), np.array([0.0, 1.0])],
    ),
    "multilabel": (
        [TextExample("x", None, ("a",)), TextExample("y", None, ("b",))],
        [np.array([NAN, NAN]), np.array([0.0, 1.0])],
    ),
    "regression": (
        [TextExample("x", None, 1.0), TextExample("y", None, 2.0), TextExample("z", None, 3.0)],
        [1.0, NAN, 3.0],
    ),
    "rerank": ([RerankExample("x", ("y", "z"), (1.0, 0.0))], [NAN, NAN]),
}


@pytest.mark.parametrize("task", BROKEN)
def test_outputs_that_are_nan_have_no_score_and_are_never_the_best(task: Any) -> None:
    """argmax of NaN would be the first class, and no score of a reranker is above NaN."""
    examples, outputs = BROKEN[task]
    indices = [0] * len(outputs) if task == "rerank" else list(range(len(outputs)))
    rows = [{"label": np.eye(len(outputs))[i]} for i in range(len(outputs))]  # of multilabel
    encoded = EncodedExamples(task, rows, indices, examples)
    labels = LABELS if task in ("classification", "multilabel") else ()
    result = EvalResult(Supervised(task=task, labels=labels), encoded, outputs, NAN)
    scores = result.scores(thresholds=result.best_thresholds())
    assert len(scores) > 1
    assert all(map(math.isnan, scores.values()))
    name = next(iter(scores))
    best = EarlyStopping(name, None)
    best.update(1, {name: 0.0})
    best.update(2, scores)
    assert best.best_step == 1
