"""A trained run on the validation rows of any corpus of its tokenizer.

The masks of a row follow from (seed, row), so runs that are compared on one corpus see the same;
and the same rows, whatever batch they were trained with.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bert_jax
from bert_jax import config, objectives
from bert_jax.data import mixture
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.training import step as train
from bert_jax.utils.types import Batch

SEED = 0  # of the masks: one for all runs
BATCH = 32


def held_out(run: Path, corpus: Path, rows: int) -> dict[str, float]:
    """Losses and accuracies over at most so many rows."""
    model = bert_jax.load(run)
    objective, batches = _opened(model, corpus)
    key = train.named_key(SEED, "corruption")

    @jax.jit
    def terms(params: Any, batch: Any) -> Any:
        return objective.terms(params, objective.corrupt(batch, key), None)

    sums = None
    for batch in batches.one_pass(-(-rows // BATCH)):
        found = terms(model.params, batch)
        sums = found if sums is None else jax.tree.map(np.add, sums, jax.device_get(found))
    return train.to_floats(sums or {})


def pairs(run: Path, nsp: Path, sop: Path, rows: int) -> dict[str, float | None]:
    """Accuracies of the pair head, whatever it was trained to tell: the mean over both classes,
    .5 by chance; None where a class is missing.

    nsp   is segment B the next one, or of another document? Rows of the corpus `nsp`
    sop   do the segments stand in order? Those rows of both corpora whose segments follow each
          other, as they are and exchanged. The swapped rows of a corpus of sentence order are
          not asked for: among them are those with a random segment (text/segments.py), which a
          model finds that knows topics alone
    """
    model = bert_jax.load(run)
    head = _head(model, nsp)
    special_tokens = model.tokenizer.special_tokens
    next_, follow, exchanged = [], [], []
    for corpus in (nsp, sop):
        for batch in _opened(model, corpus)[1].one_pass(-(-rows // BATCH)):
            real = batch["size"] > 0
            guesses, turned = head(batch), head(swapped(batch, special_tokens))
            if corpus == nsp:
                next_ += list(zip(batch["pair"][real], guesses[real], strict=True))
            neighbours = real & (batch["pair"] == 0)
            follow += list(guesses[neighbours])
            exchanged += list(turned[neighbours])
    order = [(0, g) for g in follow] + [(1, g) for g in exchanged]
    found = {"nsp": balanced(next_), "sop": balanced(order)}
    return {**found, "nsp_rows": len(next_), "sop_rows": len(follow)}


def swapped(batch: Batch, special_tokens: SpecialTokens) -> Batch:
    """Every row with its two segments exchanged.

    [CLS] a a [SEP] b [SEP] [PAD]   ->   [CLS] b [SEP] a a [SEP] [PAD]
    """
    tokens, first = batch["tokens"].copy(), batch["first"].copy()
    closing = 2 if special_tokens.doubled else 1  # separators before segment B
    for i, size in enumerate(batch["size"]):
        if size > 0:
            a = tokens[i, 1 : first[i] - 1].tolist()
            b = tokens[i, first[i] + closing - 1 : size - 1].tolist()
            row, first[i] = special_tokens.build_row(b, a)
            tokens[i, :size] = row
    return {**batch, "tokens": tokens, "first": first}


def balanced(answers: Iterable[tuple[int, int]]) -> float | None:
    """The mean over both classes of (label, guess); None: a class is missing."""
    right: dict[int, list[bool]] = {0: [], 1: []}
    for label, guess in answers:
        right[int(label)].append(bool(guess == label))
    if not all(right.values()):
        return None
    return float(np.mean([np.mean(found) for found in right.values()]))


def _head(model: bert_jax.Model, corpus: Path) -> Any:
    """Batch -> the pair head's guess for each row."""
    network, own = _opened(model, corpus)[0].encoder(model.params)

    @jax.jit
    def logits(params: Any, batch: Any) -> jax.Array:
        slots = dict.fromkeys(("masked", "left", "right", "offset"), batch["tokens"][:, :1] * 0)
        return network.apply({"params": params}, {**batch, **slots})["pair"]  # type: ignore[index]

    return lambda batch: np.argmax(logits(own, batch), axis=-1)


def _opened(model: bert_jax.Model, corpus: Path) -> tuple[Any, Any]:
    """The model's objective, and the corpus's validation rows."""
    experiment = config.replace(
        model.config, data=dict(path=str(corpus), corpus=None, batch_size=BATCH)
    )
    stages = mixture.open_stages(experiment)
    objective = objectives.build(experiment, mixture.corpus_vocabulary(stages[-1]))
    return objective, mixture.evaluation_loader(experiment, stages)
