"""A trained run on the validation rows of any corpus of its tokenizer.

The masks of a row follow from (seed, row), so runs that are compared on one corpus see the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

import bert_jax
from bert_jax import config, corpora, objectives, pretrain, train

SEED = 0  # of the masks: one for all runs


def held_out(run: Path, corpus: Path, batches: int) -> dict[str, float]:
    """Losses and accuracies over so many batches."""
    objective, params, rows = _opened(run, corpus)
    key = train.named_key(SEED, "corruption")

    @jax.jit
    def terms(params: Any, batch: Any) -> Any:
        return objective.terms(params, objective.corrupt(batch, key), None)

    sums = None
    for batch in rows.once(batches):
        found = terms(params, batch)
        sums = found if sums is None else jax.tree.map(np.add, sums, jax.device_get(found))
    return train.plain(sums or {})


def pair_accuracy(run: Path, corpus: Path, batches: int) -> float | None:
    """Of the pair head, the mean over both classes: .5 by chance. None: a class is missing."""
    objective, params, rows = _opened(run, corpus)
    network, own = objective.encoder(params)

    @jax.jit
    def logits(params: Any, batch: Any) -> jax.Array:
        slots = dict.fromkeys(("masked", "left", "right", "offset"), batch["tokens"][:, :1] * 0)
        return network.apply({"params": params}, {**batch, **slots})["pair"]  # type: ignore[index]

    right: dict[int, list[bool]] = {0: [], 1: []}
    for batch in rows.once(batches):
        guesses = np.argmax(logits(own, batch), axis=-1)
        for label, guess, size in zip(batch["pair"], guesses, batch["size"], strict=True):
            if size > 0 and label >= 0:
                right[int(label)].append(bool(guess == label))
    if not all(right.values()):
        return None
    return float(np.mean([np.mean(found) for found in right.values()]))


def _opened(run: Path, corpus: Path) -> Any:
    model = bert_jax.load(run)
    experiment = config.replace(model.config, data=dict(path=str(corpus), corpus=None))
    stages = corpora.open_stages(experiment)
    opened = [c for stage in stages for c in stage.corpora]
    vocabulary = pretrain.vocabulary(model.tokenizer, opened)
    objective = objectives.build(experiment, vocabulary)
    return objective, model.params, corpora.evaluation(experiment, stages)
