"""Whether a fine-tuned model that is fine-tuned further keeps its head.

It does where type of task, kind of head and label names agree; the outputs follow the new order of
the labels. Numbers have no labels, and answers are found by the same head whether all questions
have one or not. Otherwise, and with `objective.new_head`, the head is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.config import Objective, Supervised
from bert_jax.utils.pytree import flatten_with_names

TASK_HEADS = ("label/", "tag/", "span/")  # trained for one task
OUTPUT_LAYERS = ("label/dense/", "tag/dense/")  # the last axis of their leaves is the labels
MAX_NAMES = 10  # of labels in a message
ONE_NUMBER = {"regression", "rerank"}  # a reranker may come as a regression of Hugging Face


class HeadDecision(NamedTuple):
    """What happens to a model's head, and why."""

    kept: bool
    message: str  # empty: the model has no head
    order: tuple[int, ...] = ()  # of the old outputs, if labels are in another order now


NO_HEAD = HeadDecision(False, "")


def decide(old: Objective, new: Objective, path: str) -> HeadDecision:
    """Whether the run with the objective `new` keeps the head that the model at `path` has."""
    if not isinstance(old, Supervised) or not isinstance(new, Supervised):
        return NO_HEAD
    start = f"the head of {path} is not used, a new one is trained: "
    if new.new_head:
        return HeadDecision(False, f"{start}--new-head is given")
    kinds = _kind(old), _kind(new)
    for name in kinds[0] | kinds[1]:
        a, b = (kind.get(name) for kind in kinds)
        if a != b and not {a, b} <= ONE_NUMBER:
            return HeadDecision(False, f"{start}its {name} is {a}, here {b}")
    unlabeled = new.task_type in ONE_NUMBER or (new.task_type == "qa" and new.span == "linear")
    if set(old.labels) != set(new.labels) and not unlabeled:
        changes = label_changes(old.labels, new.labels)
        return HeadDecision(False, f"{start}its labels are others ({changes})")
    reordered = old.labels != new.labels and not unlabeled and new.task_type != "qa"
    order = tuple(old.labels.index(label) for label in new.labels) if reordered else ()
    named = bool(new.labels) and not unlabeled
    message = f"the head of {path} is kept: same task" + (" and labels" if named else "")
    message += " (in another order)" if order else ""
    return HeadDecision(True, f"{message}; --new-head trains a new one", order)


def _kind(task: Supervised) -> dict[str, Any]:
    """What a head of this type of task is made of; other fields change nothing in it."""
    per_token = task.task_type in ("tagging", "qa")
    kind: dict[str, Any] = {"task type": task.task_type, "family": task.family}
    if task.task_type == "qa":
        kind["span"] = task.span
    if task.task_type in ONE_NUMBER:
        kind["scale"] = task.scale
    if not per_token or task.head == "prediction":
        kind["head"] = task.head
        kind |= {"pooling": task.pooling} if task.head == "prediction" and not per_token else {}
    return kind


def label_changes(old: Sequence[str], new: Sequence[str]) -> str:
    """The labels that only a model has (`old`), and those that it lacks (of `new`), in words."""
    parts = [
        f"{what} {', '.join(names[:MAX_NAMES])}{', ...' if len(names) > MAX_NAMES else ''}"
        for what, names in (
            ("only it has", sorted(set(old) - set(new))),
            ("it lacks", sorted(set(new) - set(old))),
        )
        if names
    ]
    return "; ".join(parts)


def head_params(params: Any, decision: HeadDecision) -> dict[str, Any]:
    """Name -> leaf of the kept head, with its outputs in the new order; {} for a new head."""
    if not decision.kept:
        return {}
    leaves = {k: v for k, v in flatten_with_names(params).items() if k.startswith(TASK_HEADS)}
    if not decision.order:
        return leaves
    order = np.array(decision.order)
    return {
        name: np.asarray(leaf)[..., order] if name.startswith(OUTPUT_LAYERS) else leaf
        for name, leaf in leaves.items()
    }
