"""Outputs to what a person asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from scipy import special

from bert_jax.config import GlueTask, TaskType
from bert_jax.tasks import answers
from bert_jax.tasks.examples import ChoiceExample, EncodedExamples, TaggingExample, task_type_of
from bert_jax.tasks.metrics import chosen_option, word_logits


def decode_predictions(
    task: TaskType | GlueTask,
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    labels: Sequence[str] = (),
    threshold: float = 0.0,
) -> list[dict[str, Any]]:
    """One JSON-able object per example, in their order.

    classification  label  probability  probabilities {label: p}
    regression      label
    tagging         tokens  tags  probabilities [w]
    choice          label (the option's number)  option  probability  probabilities [c]
    qa              id  answer  start  end (characters)  probability  candidates, the five best;
                    no_answer, its probability, if the model knows of none (`labels`), then
                    given where its score is above `threshold`
    """
    examples, task_type = encoded.examples, task_type_of(task)
    if task_type == "qa":
        found = answers.decode_answers(encoded, outputs)
        return [answers.answer_json(e, decoded, bool(labels), threshold) for e, decoded in found]
    if task_type == "tagging":
        both = zip(examples, word_logits(encoded, outputs), strict=True)
        return [_tagged(cast(TaggingExample, e), logits, labels) for e, logits in both]
    if task_type == "regression":
        return [{"label": float(out)} for out in outputs]
    if task_type == "choice":
        both = zip(examples, outputs, strict=True)
        return [_choice(cast(ChoiceExample, e), out) for e, out in both]
    return [_class(out, labels) for out in outputs]


def _class(logits: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    p = special.softmax(np.asarray(logits, np.float64)).tolist()
    best = int(np.argmax(p))
    named = dict(zip(labels, p, strict=True))
    return {"label": labels[best], "probability": p[best], "probabilities": named}


def _choice(e: ChoiceExample, logits: np.ndarray) -> dict[str, Any]:
    p = special.softmax(np.asarray(logits, np.float64)[: len(e.options)]).tolist()
    best = chosen_option(e, logits)
    found = {"label": best, "option": e.options[best], "probability": p[best]}
    return found | {"probabilities": p}


def _tagged(e: TaggingExample, logits: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    if not e.tokens:
        return {"tokens": [], "tags": [], "probabilities": []}
    p = special.softmax(logits.astype(np.float64), axis=-1)
    tags = [labels[int(k)] for k in p.argmax(-1)]
    return {"tokens": list(e.tokens), "tags": tags, "probabilities": p.max(-1).tolist()}
