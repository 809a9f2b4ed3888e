"""The weights of classes in the loss, from `objective.class_weights` and the training rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bert_jax.tasks.examples import Example, is_labeled, label_names
from bert_jax.utils.errors import did_you_mean

MAX_WEIGHT = 1e6  # and its reciprocal the least: products of weights and losses are float32


def class_weights(
    field: str, labels: Sequence[str], examples: Sequence[Example], multilabel: bool
) -> tuple[float, ...]:
    """A weight for each label, in their order.

    field  `balanced`: n / (number of labels * count) for the n labeled texts or words, so that each
           class has the same weight in all; multi-label: texts without the label per text with it.
           A label that no row has is not counted, and has weight 1.
           Else NAME=WEIGHT,... or a JSON object; a label that is not named has weight 1.

    ValueError: a name that is not among the labels, a name twice, a weight that is not a number
    above 0.
    """
    if field == "balanced":
        return _balanced(labels, examples, multilabel)
    given = _parse(field)
    unknown = sorted(set(given) - set(labels))
    if unknown:
        hint = did_you_mean(unknown[0], list(labels), f"expected labels: {', '.join(labels[:10])}")
        raise ValueError(f"objective.class_weights names {unknown[0]!r}, which is no label: {hint}")
    return tuple(given.get(label, 1.0) for label in labels)


def _balanced(
    labels: Sequence[str], examples: Sequence[Example], multilabel: bool
) -> tuple[float, ...]:
    counts: Counter[str] = Counter()
    texts = 0
    for e in examples:
        names = list(label_names(e))
        counts.update(names)
        texts += is_labeled(e)
    if multilabel:
        return tuple(max(texts - counts[k], 1) / counts[k] if counts[k] else 1.0 for k in labels)
    return tuple(counts.total() / (len(counts) * counts[k]) if counts[k] else 1.0 for k in labels)


def _parse(field: str) -> dict[str, float]:
    try:
        if field.lstrip().startswith("{"):
            given: Any = json.loads(field, object_pairs_hook=list)
        else:
            parts = [part.rpartition("=") for part in field.split(",")]
            given = [(name.strip(), weight) for name, _, weight in parts]
        pairs = [(name, float(weight)) for name, weight in given]
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ValueError(
            f"objective.class_weights is {field!r:.80}: expected balanced, or "
            "NAME=WEIGHT,..., or a JSON object of weights"
        ) from None
    weights = dict(pairs)
    if len(weights) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(
            f"objective.class_weights names {twice!r:.60} twice: expected one weight per label"
        )
    for name, weight in weights.items():
        if not 1 / MAX_WEIGHT <= weight <= MAX_WEIGHT:
            raise ValueError(
                f"objective.class_weights gives {name!r} the weight {weight}: expected a number "
                f"above 0, from {1 / MAX_WEIGHT:.0e} to {MAX_WEIGHT:.0e}"
            )
    return weights
